"""What holds for every picture of every model."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.kindling.build import Experiment
from src.kindling.callbacks.figures import ask, pictures_of, rows_of
from src.kindling.figures import classification, regression
from src.kindling.figures.picture import View, ceiling, png, ticks
from tests.conftest import options

Build = Callable[..., Experiment]
SMALL = {"two_layer_net": ("data.rows=64", "data.in_features=20", "model.hidden_features=8")}


def view_of(experiment: Experiment, step: int) -> View:
    """What is seen of a model at a step."""
    model, data = experiment.model, experiment.data
    rows = rows_of(data)
    assert rows is not None
    answers = ask(model, rows[1]).numpy()
    return View(
        model, data, rows[0], rows[2].numpy(), answers, step, lambda x: ask(model, x).numpy()
    )


def changed(model: Any) -> None:
    """Move the weights, as training would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.3 * torch.randn(weights.shape, generator=generator).to(weights)


@pytest.mark.parametrize("model", options("model"))
def test_a_picture_drawn_again_is_the_picture_drawn_afresh(model: str, build: Build) -> None:
    experiment = build(f"model={model}", "logger=none", *SMALL.get(model, ()))
    module = experiment.model
    generic = {"class": classification, "value": regression}[module.target].pictures(module)
    pictures = [*pictures_of(module), *generic]
    assert len({picture.name for picture in pictures}) >= 2
    for picture in pictures:
        picture.take_up(None, module)
    first = [picture.draw(view_of(experiment, 0)) for picture in pictures]
    changed(module)
    for picture, before in zip(pictures, first, strict=True):
        notes = picture.notes()
        again = picture.draw(view_of(experiment, 7))
        fresh = type(picture)()
        fresh.take_up(notes, module)
        assert again == fresh.draw(view_of(experiment, 7)), picture.name
        assert again.png != before.png
        pixels = np.array(Image.open(io.BytesIO(again.png)).convert("RGB"))
        assert pixels.shape == (again.size[1], again.size[0], 3)
        assert pixels.std() > 10  # it is not blank
        assert again.description.endswith("(step 7)")


@pytest.mark.parametrize("colours", [2, 200, 5000])
def test_the_png_is_read_back_to_the_same_picture_and_words(colours: int) -> None:
    random = np.random.default_rng(0)
    palette = random.integers(0, 256, (colours, 3), np.uint8)
    pixels = palette[random.integers(0, colours, (50, 70))]
    image = Image.open(io.BytesIO(png(pixels, "R2 0.5 (step 3)")))
    back = np.array(image.convert("RGB")).astype(int)
    # Up to 256 colours are rounded to 5, 6 and 5 bits; more are kept as they are.
    assert np.abs(back - pixels).max() <= (7 if colours <= 256 else 0)
    assert (image.mode == "P") == (colours <= 256)
    assert image.text["Description"] == "R2 0.5 (step 3)"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1), (1.1, 1.5), (0.0021, 0.003), (76, 100), (0, 1), (float("nan"), 1), (0.7, 0.7)],
)
def test_the_ceiling_is_the_next_round_number(value: float, expected: float) -> None:
    assert ceiling(value) == pytest.approx(expected)


def test_ticks_are_round_and_within_the_ends() -> None:
    assert list(ticks(0, 1).values()) == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert list(ticks(-4.2, 7.9)) == [-4, -2, 0, 2, 4, 6]
    assert list(ticks(0, 1, 2).values()) == ["0", "0.5", "1"]
