"""A validation in the lean loop against one in Lightning's: the same hooks, counts and values."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from src.data.fizzbuzz import FizzBuzzData
from src.kindling.build import Experiment
from src.kindling.model import BaseModule
from src.kindling.speed.validation_loop import POINTS, ValidationLoop
from tests.kindling.callbacks.test_training_metrics import Kept

Build = Callable[..., Experiment]
WORDS = (
    "model.hidden_features=8",
    "model.dropout=0.5",
    "data.batch_size=16",  # three batches of 46 rows
    "steps_per_execution=20",
    "trainer.max_epochs=4",
    "trainer.check_val_every_n_epoch=2",
    "logger=none",
)


class Witness(Callback):
    """Note at each hook what a callback can know, and what a checkpoint would hold."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        for point in (f"on_validation_{point}" for point in POINTS):
            setattr(self, point, self.noting(point))
        self.on_train_epoch_end = self.noting("on_train_epoch_end")

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Leave a part in evaluation mode: it stays so."""
        module.net.output.eval()

    def noting(self, point: str) -> Callable[..., None]:
        def note(trainer: Any, module: Any, *arguments: Any) -> None:
            loop = trainer.fit_loop.epoch_loop.val_loop
            modes = [part.training for part in module.modules()]
            known = {
                name: value.item()
                for name, value in trainer.callback_metrics.items()
                if not name.startswith("train/")
            }
            counts = loop.batch_progress.state_dict(), trainer.is_last_batch, loop._has_run
            within = torch.is_grad_enabled(), module._current_fx_name, modes
            numbers = [argument for argument in arguments if isinstance(argument, int)]
            self.seen.append((point, trainer.global_step, numbers, counts, within, known))

        return note


def watched(build: Build, *overrides: str) -> tuple[list[Any], list[Any]]:
    """Fit; return what a callback saw, and what a logger was told of validations."""
    experiment, witness, kept = build(*WORDS, *overrides), Witness(), Kept()
    experiment.trainer.callbacks.insert(0, witness)
    experiment.trainer.loggers = [kept]
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    assert not experiment.trainer.fit_loop.epoch_loop.val_loop.plain  # another fit may be of others
    points = [(step, list(m.items())) for step, m in kept.points if "train/loss" not in m]
    return witness.seen, points


def talk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the module log by itself, wherever it can."""
    step, end = BaseModule.validation_step, BaseModule.on_validation_epoch_end

    def validation_step(self: Any, batch: Any, batch_idx: int) -> Any:
        step(self, batch, batch_idx)
        self.log("val/of_batches", batch[0].sum(), on_step=True, on_epoch=True)
        self.log("val/rows", float(len(batch[0])), reduce_fx="sum")
        return {"rows": len(batch[0])}

    def epoch_end(self: Any) -> None:
        self.log("val/at_end", 3.5)
        end(self)

    def batch_end(self: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.log("val/after", float(outputs["rows"]))

    def on_end(self: Any) -> None:
        self.told = getattr(self, "told", 0) + 1

    monkeypatch.setattr(BaseModule, "validation_step", validation_step)
    monkeypatch.setattr(BaseModule, "on_validation_epoch_end", epoch_end)
    monkeypatch.setattr(BaseModule, "on_validation_batch_end", batch_end)
    monkeypatch.setattr(BaseModule, "on_validation_end", on_end)


@pytest.mark.parametrize("talks", [False, True], ids=["our log", "self.log"])
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("trainer.limit_val_batches=2", "trainer.num_sanity_val_steps=1"),
        ("trainer.val_check_interval=40", "trainer.check_val_every_n_epoch=1"),
    ],
    ids=["whole", "limited", "amid an epoch"],
)
def test_a_validation_is_what_lightning_makes_of_it(
    build: Build, overrides: tuple[str, ...], talks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if talks:
        talk(monkeypatch)
    lean: list[int] = []
    step = ValidationLoop._step
    monkeypatch.setattr(ValidationLoop, "_step", lambda *a: (lean.append(1), step(*a))[1])
    seen, points = watched(build, *overrides)
    assert len(lean) >= 4
    count = len(lean)
    monkeypatch.setattr(ValidationLoop, "bind", lambda self: None)
    expected_seen, expected_points = watched(build, *overrides)
    assert len(lean) == count
    assert seen == expected_seen
    assert points == expected_points
    assert ("val/at_end" in str(points)) == talks


def test_a_loader_of_somebody_elses_is_lightnings(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loader(self: Any) -> Any:
        return DataLoader(list(zip(*self.split("val"), strict=True)), batch_size=20)

    monkeypatch.setattr(FizzBuzzData, "val_dataloader", loader)
    monkeypatch.setattr(ValidationLoop, "_step", None)
    seen, _ = watched(build)
    assert len([point for point, *_ in seen if point == "on_validation_batch_end"]) == 6
