"""The board shows each answer where its number stands, and in the colour of its truth."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from src.data.fizzbuzz import FizzBuzzData, fizzbuzz
from src.figures.fizzbuzz import RIGHT, WRONG, Board
from src.kindling.figures.picture import View

SAID_WRONG = {1, 15, 84, 100}


@pytest.fixture
def view() -> View:
    """A player who errs at four numbers."""
    classes = fizzbuzz(torch.arange(1, 101))
    for number in SAID_WRONG:
        classes[number - 1] = (classes[number - 1] + 1) % 4
    logits = torch.nn.functional.one_hot(classes, 4).double().numpy()
    model: Any = None
    return View(model, FizzBuzzData(), "validation", np.zeros(1), logits, 9, lambda inputs: logits)


def test_wrong_answers_and_no_others_have_the_colour_of_wrong(view: View) -> None:
    drawing = Board().draw(view)
    assert drawing.description == "The game: 96 of 100 right (step 9)"
    pixels = np.array(Image.open(io.BytesIO(drawing.png)).convert("RGB")).astype(float) / 255
    height, width, _ = pixels.shape
    left, bottom, wide, high = 0.4 / 5, 0.36 / 5.3, 4.52 / 5, 4.08 / 5.3  # of the board

    def cell(number: int) -> np.ndarray:
        """The colour near the upper left corner of a number's cell, where no letter is."""
        line, column = divmod(number - 1, 10)
        x = (left + wide * (column + 0.1) / 10) * width
        y = (1 - bottom - high + high * (line + 0.1) / 10) * height
        return pixels[int(y), int(x)]

    for number in range(1, 101):
        expected = WRONG if number in SAID_WRONG else RIGHT
        assert cell(number) == pytest.approx(np.array(to_rgb(expected)), abs=0.03), number


def test_each_answer_is_written(view: View) -> None:
    board = Board()
    board.draw(view)
    answers = [row["answer"] for row in board._answers(view)]
    assert answers[:6] == ["fizz", "2", "fizz", "4", "buzz", "fizz"]
    assert answers[14] != "fizzbuzz"
    assert answers[29] == "fizzbuzz"


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colours, as the W3C defines it (WCAG 2.2)."""

    def luminance(colour: str) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)
        ]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_letters_are_read_on_both_colours() -> None:
    assert contrast("white", WRONG) > 4.5
    assert contrast("#222222", RIGHT) > 4.5
    assert contrast(RIGHT, WRONG) > 3  # apart without any colour
