"""The pictures of the models are drawn while these train, and go on in a run that is resumed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.kindling import callbacks
from src.kindling.build import Experiment
from src.kindling.callbacks.figures import Figures, pictures_of
from src.models.fizzbuzz import FizzBuzz
from tests.conftest import options
from tests.kindling.figures.test_pictures import check

Build = Callable[..., Experiment]
SMALL = {
    "two_layer_net": ("data.rows=64", "data.in_features=20", "model.hidden_features=8"),
    "fizzbuzz": ("model.hidden_features=16",),
}
EXPECTED = {
    "linear_regression": {"fit", "coefficients"},
    "two_layer_net": {"predicted_against_true", "error_by_output", "first_layer"},
    "fizzbuzz": {"board", "confusion", "calibration", "precision_recall"},
}


@pytest.mark.parametrize("model", options("model"))
def test_a_picture_shows_the_moment_and_says_in_words_what_it_shows(
    model: str, build: Build
) -> None:
    experiment = build(f"model={model}", "logger=none", *SMALL.get(model, ()))
    pictures = pictures_of(experiment.model)
    names = {picture.name for picture in pictures}
    assert names == EXPECTED.get(model, names)
    check(experiment, pictures)


def test_without_pictures_of_its_own_a_model_has_the_generic_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def is_there(module: str) -> bool:
        return not module.startswith("src.figures")

    monkeypatch.setattr(callbacks.figures, "_is_there", is_there)
    names = {picture.name for picture in pictures_of(FizzBuzz())}
    assert names == {"confusion", "calibration", "precision_recall"}


def test_a_resumed_run_continues_the_path_of_its_coefficients(build: Build, tmp_path: Path) -> None:
    def path(epochs: int, checkpoint: str | None = None) -> list[Any]:
        experiment = build("model=linear_regression", "logger=none", f"trainer.max_epochs={epochs}")
        figures = Figures(every_n_epochs=100)
        experiment.trainer.callbacks.append(figures)
        experiment.trainer.fit(
            experiment.model, datamodule=experiment.data, ckpt_path=checkpoint, weights_only=True
        )
        notes: list[Any] = figures.state_dict()["notes"]["coefficients"]["way"]
        return notes

    whole = path(6)
    first = path(3)
    assert path(6, str(tmp_path / "checkpoints" / "last.ckpt")) == whole
    assert (len(first), len(whole)) == (4, 7)  # the start, and each epoch


@pytest.mark.parametrize("model", EXPECTED)
def test_a_resumed_run_draws_the_same_bytes(model: str, build: Build, tmp_path: Path) -> None:
    def drawn(epochs: int, checkpoint: str | None = None) -> dict[str, bytes]:
        few = (f"model={model}", "logger=none", "scheduler=constant", *SMALL.get(model, ()))
        experiment = build(*few, f"trainer.max_epochs={epochs}")
        experiment.trainer.callbacks.append(Figures(every_n_epochs=2))
        experiment.trainer.fit(
            experiment.model, datamodule=experiment.data, ckpt_path=checkpoint, weights_only=True
        )
        return {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}

    first, whole = drawn(2), drawn(4)
    assert len(whole) == len(EXPECTED[model])
    assert all(whole[name] != first[name] for name in whole)
    drawn(2)
    assert drawn(4, str(tmp_path / "checkpoints" / "last.ckpt")) == whole
