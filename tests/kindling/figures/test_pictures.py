"""What holds for every picture of every model."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.kindling.build import Experiment
from src.kindling.callbacks.figures import pictures_of
from src.kindling.figures import classification, regression
from src.kindling.figures.picture import nice_limit
from src.kindling.figures.view import View, held_out, view_of
from tests.kindling.conftest import options

Build = Callable[..., Experiment]


def seen(experiment: Experiment, step: int) -> View:
    """What pictures see of a model at a step."""
    sample = held_out(experiment.data)
    assert sample is not None
    return view_of(experiment.model, experiment.data, *sample, step)


def changed(model: Any) -> None:
    """Move the weights, as training would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.3 * torch.randn(weights.shape, generator=generator).to(weights)


@pytest.mark.parametrize("model", options("model"))
def test_a_picture_shows_the_moment_and_says_in_words_what_it_shows(
    model: str, build: Build
) -> None:
    experiment = build(f"model={model}", "logger=none")
    module = experiment.model
    generic = {"class": classification, "value": regression}[module.target].pictures(module)
    assert {p.name for p in pictures_of(module)} == {picture.name for picture in generic}
    check(experiment, generic)


def check(experiment: Experiment, pictures: list[Any]) -> None:
    """Compare pictures of a model before and after its weights move, and read what they say."""
    module = experiment.model
    assert len({picture.name for picture in pictures}) >= 2
    for picture in pictures:
        picture.restore(None, module)
    first = [picture.png(seen(experiment, 0)) for picture in pictures]
    changed(module)
    for picture, before in zip(pictures, first, strict=True):
        view, fresh = seen(experiment, 7), type(picture)()
        fresh.restore(picture.state(), module)
        assert picture.suits(view)
        drawn = picture.png(view)
        assert drawn == fresh.png(view), picture.name
        assert drawn != before
        image: Any = Image.open(io.BytesIO(drawn))
        assert np.array(image.convert("RGB")).std() > 10  # it is not blank
        words = f"{picture.title(view)} (step 7): {picture.description}"
        assert image.text == {"Description": words}  # and no version of matplotlib


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1), (1.1, 1.5), (0.0021, 0.003), (76, 100), (0, 1), (float("nan"), 1), (0.7, 0.7)],
)
def test_the_nice_limit_is_the_next_round_number(value: float, expected: float) -> None:
    assert nice_limit(value) == pytest.approx(expected)
