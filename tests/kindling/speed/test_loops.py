"""The lean loops against Lightning's own: the same hooks at the same counts, in the same order."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from src.kindling.build import Experiment
from src.kindling.speed import loops

pytestmark = pytest.mark.usefixtures("own_models")

Build = Callable[..., Experiment]
POINTS = ("train_epoch_start", "train_batch_start", "train_batch_end", "validation_start")


class Witness(Callback):
    """Note at each hook what a callback can know: steps, epoch, the counts of a checkpoint."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        for point in (*POINTS, "validation_end", "before_optimizer_step", "train_epoch_end"):
            setattr(self, f"on_{point}", self.noting(point))

    def noting(self, point: str) -> Callable[..., None]:
        def note(trainer: Any, module: Any, *arguments: Any) -> None:
            fit, batches = trainer.fit_loop, trainer.fit_loop.epoch_loop
            state = fit.epoch_progress.state_dict(), batches.batch_progress.state_dict()
            logged = sorted(trainer.callback_metrics)
            axis = batches._batches_that_stepped
            last = trainer.is_last_batch
            self.seen.append(
                (point, trainer.global_step, trainer.current_epoch, axis, last, logged, state)
            )

        return note


def watched(build: Build, *overrides: str) -> tuple[list[Any], list[torch.Tensor]]:
    experiment = build("model.hidden_features=8", "trainer.max_epochs=4", "logger=none", *overrides)
    witness = Witness()
    experiment.trainer.callbacks.insert(0, witness)
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    return witness.seen, [p.detach() for p in experiment.model.parameters()]


@pytest.mark.parametrize(
    "overrides",
    [
        ("steps_per_execution=3", "trainer.check_val_every_n_epoch=2"),
        ("steps_per_execution=2", "trainer.val_check_interval=2", "trainer.log_every_n_steps=3"),
        ("steps_per_execution=4", "trainer.max_steps=10"),
        ("callbacks=none", "steps_per_execution=3"),
    ],
    ids=" ".join,
)
def test_callbacks_see_what_lightnings_own_loops_show(
    build: Build, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: list[bool] = []
    train = loops.EpochLoop._train
    monkeypatch.setattr(
        loops.EpochLoop, "_train", lambda *args: (plain.append(True), train(*args))[1]
    )
    lean, weights = watched(build, *overrides)
    assert plain  # it was these loops that ran
    monkeypatch.setattr(loops, "_is_plain", lambda trainer: False)
    own, expected = watched(build, *overrides)
    assert lean == own
    assert len(plain) < len(own)
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))


class Small(Callback):
    """Note what becomes of a number below float32's normal ones."""

    found = torch.nan

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.found = (torch.tensor(1e-39) * 1).item()


@pytest.mark.parametrize("steps", [1, 4])
def test_numbers_too_small_to_matter_are_zeros_while_it_trains(build: Build, steps: int) -> None:
    experiment = build(
        "model.hidden_features=8", f"steps_per_execution={steps}", "trainer.fast_dev_run=1"
    )
    experiment.trainer.callbacks.append(small := Small())
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    assert small.found == 0
    assert (torch.tensor(1e-39) * 1).item() > 0
