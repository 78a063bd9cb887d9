"""Averaged weights: `train` tests those that its best checkpoint holds, as `evaluate` does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from torch import nn

from src.kindling import restore
from src.kindling.build import Experiment
from src.kindling.training import fit, summary
from tests.kindling.examples.models import quadrants
from tests.kindling.examples.net import TwoLayers

SHORT = ("trainer.max_epochs=3", "trainer.check_val_every_n_epoch=1", "logger=none")


def fit_and_test(built: Experiment, folder: Path, callback: Any) -> dict[str, float]:
    """Train with a further callback; return the metrics of the test."""
    built.trainer.callbacks.insert(0, callback)  # type: ignore[attr-defined]
    metrics = fit.fit_and_test(built, folder, None, [])
    return {name: value for name, value in metrics.items() if name.startswith("test/")}


def evaluated(folder: Path) -> tuple[dict[str, float], Any]:
    """Return the metrics of the best checkpoint as `evaluate` computes them, and its model."""
    settings, data, model = restore.load(folder / "checkpoints" / "best.ckpt")
    trainer = restore.build_tester(settings, "cpu", folder)
    trainer.test(model, datamodule=data, verbose=False)
    return summary.metrics(trainer), model


def test_train_tests_the_exponential_average(
    build: Callable[..., Experiment], tmp_path: Path
) -> None:
    built = build("scheduler=constant", *SHORT)
    tested = fit_and_test(built, tmp_path, EMAWeightAveraging(decay=0.9))
    metrics, model = evaluated(tmp_path)
    assert tested == metrics
    assert all(map(torch.equal, model.parameters(), built.model.parameters()))
    content = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    raw, average = content["current_model_state"], content["state_dict"]
    assert not any(torch.equal(raw[name], average[name]) for name in raw)


class Normalized(TwoLayers):
    """With BatchNorm, whose statistics are measured for the average in a last epoch."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.output = nn.Sequential(nn.BatchNorm1d(self.output.in_features), self.output)


@pytest.mark.parametrize("net", [TwoLayers, Normalized])
def test_the_best_checkpoint_is_the_average_of_the_last_epochs(
    net: Any,
    build: Callable[..., Experiment],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quadrants, "TwoLayers", net)
    built = build("scheduler=constant", *SHORT)
    weights: list[Any] = []

    class Noted(StochasticWeightAveraging):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            weights.append([p.detach().clone() for p in pl_module.parameters()])
            super().on_train_epoch_start(trainer, pl_module)

    tested = fit_and_test(built, tmp_path, Noted(0.01, swa_epoch_start=2))
    metrics, model = evaluated(tmp_path)
    assert tested == metrics
    for own, *others in zip(model.parameters(), *weights[1:3], strict=True):
        torch.testing.assert_close(own, torch.stack(others).mean(0))
