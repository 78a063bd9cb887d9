"""The board shows each answer where its number stands, and in the color of its truth."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from src.data.fizzbuzz import FizzBuzzData, fizzbuzz
from src.figures.fizzbuzz import RIGHT, WRONG, Board, answers
from src.kindling import callbacks
from src.kindling.callbacks.figures import pictures_of
from src.kindling.figures.view import View
from src.models.fizzbuzz import FizzBuzz

SAID_WRONG = {1, 15, 84, 100}


@pytest.fixture
def view() -> View:
    """A player who errs at four numbers."""
    classes = fizzbuzz(torch.arange(1, 101))
    for number in SAID_WRONG:
        classes[number - 1] = (classes[number - 1] + 1) % 4
    logits = torch.nn.functional.one_hot(classes, 4).double().numpy()
    model: Any = None
    targets = np.zeros(1)
    return View(
        model, FizzBuzzData(), "validation", None, targets, logits, 9, lambda inputs: logits
    )


def test_wrong_answers_and_no_others_have_the_color_of_wrong(view: View) -> None:
    board = Board()
    assert board.title(view) == "The game: 96 of 100 right"
    pixels = np.array(Image.open(io.BytesIO(board.png(view))).convert("RGB")) / 255
    height, width, _ = pixels.shape
    (wide, high), margins = board.size, (0.75, 0.2, 0.65, 0.8)  # inches: left, right, top, bottom
    left, right, top, bottom = np.array(margins) / (wide, wide, high, high)

    def cell(number: int) -> np.ndarray:
        """The color near the upper left corner of a number's cell, where no letter is."""
        line, column = divmod(number - 1, 10)
        x = (left + (1 - left - right) * (column + 0.12) / 10) * width
        y = (top + (1 - top - bottom) * (line + 0.12) / 10) * height
        return pixels[int(y), int(x)]

    for number in range(1, 101):
        expected = WRONG if number in SAID_WRONG else RIGHT
        assert cell(number) == pytest.approx(np.array(to_rgb(expected)), abs=0.03), number


def test_each_number_has_its_answer(view: View) -> None:
    said = [row["answer"] for row in answers(view)]
    assert said[:6] == ["fizz", "2", "fizz", "4", "buzz", "fizz"]
    assert said[14] != "fizzbuzz"
    assert said[29] == "fizzbuzz"


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colors, as the W3C defines it (WCAG 2.2)."""

    def luminance(color: str) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)
        ]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_letters_are_read_on_both_colors() -> None:
    assert contrast("white", WRONG) > 4.5
    assert contrast("#222222", RIGHT) > 4.5
    assert contrast(RIGHT, WRONG) > 3  # apart without any color


def test_without_pictures_of_its_own_a_model_has_the_generic_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def is_there(module: str) -> bool:
        return not module.startswith("src.figures")

    monkeypatch.setattr(callbacks.figures, "_is_there", is_there)
    names = {picture.name for picture in pictures_of(FizzBuzz())}
    assert names == {"confusion", "calibration", "precision_recall"}
