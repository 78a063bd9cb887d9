"""The pictures of the models are drawn during training, and continue in a resumed run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from src.kindling.build import Experiment
from src.kindling.callbacks.figures import Figures, pictures_of
from tests.conftest import ROOT, options
from tests.kindling.figures.test_pictures import check

Build = Callable[..., Experiment]
MODELS = options("model") if (ROOT / "conf" / "model").is_dir() else []  # all deleted, none new yet
SMALL = {
    "two_layer_net": ("data.rows=64", "data.in_features=20", "model.hidden_features=8"),
    "fizzbuzz": ("model.hidden_features=16",),
}
EXPECTED = {
    "linear_regression": {"fit", "coefficients"},
    "two_layer_net": {"predicted_against_true", "error_by_output", "first_layer"},
    "fizzbuzz": {"board", "confusion", "calibration", "precision_recall"},
}


@pytest.mark.parametrize("model", MODELS)
def test_a_picture_shows_the_moment_and_describes_it_in_words(model: str, build: Build) -> None:
    experiment = build(f"model={model}", "logger=none", *SMALL.get(model, ()))
    pictures = pictures_of(experiment.model)
    names = {picture.name for picture in pictures}
    assert names == EXPECTED.get(model, names)
    check(experiment, pictures)


@pytest.mark.parametrize("model", [model for model in MODELS if model in EXPECTED])
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
