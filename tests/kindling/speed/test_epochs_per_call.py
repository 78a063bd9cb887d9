"""Executions of several epochs against epochs one by one: the same bits, counts and points."""

import csv
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from src.kindling.build import Experiment
from src.kindling.callbacks.checkpointing import Checkpointing
from src.kindling.files.checkpoint import load_checkpoint
from src.kindling.loader import TensorLoader
from src.kindling.process import signals
from tests.kills import TIMES, unlike
from tests.kindling.examples.data.quadrants import QuadrantsData
from tests.kindling.examples.models.quadrants import Quadrants

pytestmark = pytest.mark.usefixtures("own_models")

Build = Callable[..., Experiment]
# Three steps an epoch, of which the last batch is smaller.
SHORT = (
    "model=quadrants",
    "model.hidden_features=16",
    "data.batch_size=300",
    "trainer.max_epochs=16",
    "trainer.check_val_every_n_epoch=6",
    "trainer.log_every_n_steps=14",
    "logger=csv",
)
EPOCH, SPAN = "steps_per_execution=3", "steps_per_execution=15"


class Executions(Callback):
    """Note after each execution how many steps there were, and what it returned."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.batches: list[int] = []

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.steps.append(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.steps.append(trainer.global_step)
        if isinstance(batch, list):
            self.batches.append(len(batch))
            assert len(outputs["losses"]) == trainer.global_step - self.steps[-2]
            assert 0 < outputs["batches"] <= len(batch)  # fewer where max_steps came in between
            assert outputs["loss"].isfinite()


def fit(
    build: Build, *overrides: str, callback: Callback | None = None, resume: Path | None = None
) -> tuple[Experiment, Executions]:
    """Train anew, or go on; return what was trained and the executions that it took."""
    experiment, executions = build(*SHORT, *overrides), Executions()
    if resume is None:
        Path(experiment.trainer.default_root_dir, "metrics.csv").unlink(missing_ok=True)
    experiment.trainer.callbacks += [executions, *([callback] if callback else [])]
    experiment.trainer.fit(experiment.model, datamodule=experiment.data, ckpt_path=resume)
    return experiment, executions


def weights(experiment: Experiment) -> list[torch.Tensor]:
    return [p.detach() for p in experiment.model.parameters()]


def counts(experiment: Experiment) -> Any:
    """Return what the last checkpoint says, but for times and the steps an execution."""
    folder = Path(experiment.trainer.default_root_dir, "checkpoints")
    content = load_checkpoint(folder / "last.ckpt")
    del content["config"]["steps_per_execution"]
    for state in content["callbacks"].values():
        state.pop("seconds", None)
        for name in TIMES:
            state.get("metrics", {}).pop(name, None)
    return content


def points(experiment: Experiment) -> list[dict[str, str]]:
    """Return the history, but for times."""
    for logger in experiment.trainer.loggers:
        logger.save()
    with Path(experiment.trainer.default_root_dir, "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    return [{name: row[name] for name in row if name not in TIMES} for row in rows]


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.dropout=0.3", "data.shuffle=false"),
        ("trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.1"),
        ("trainer.max_steps=31", "trainer.max_epochs=-1", "scheduler=cosine"),
        ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=1"),
        ("data.val_fraction=0", "data.batch_size=320", "scheduler=plateau"),
        ("trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=12"),
        ("trainer.precision=bf16-mixed", "callbacks.checkpointing.every_n_epochs=5"),
    ],
    ids=",".join,
)
def test_weights_counters_and_history_are_those_of_epochs_one_by_one(
    build: Build, overrides: tuple[str, ...]
) -> None:
    experiment, each = fit(build, EPOCH, *overrides)
    expected, history = counts(experiment), points(experiment)
    experiment, executions = fit(build, SPAN, *overrides)
    assert [*unlike(counts(experiment), expected, "")] == []
    assert points(experiment) == history
    one, _ = fit(build, "steps_per_execution=1", *overrides)
    assert all(map(torch.equal, weights(experiment), weights(one)))
    assert executions.steps[-1] == each.steps[-1] == one.trainer.global_step
    foreign = "callbacks=early_stopping" in overrides  # looks at each epoch's end, for all we know
    assert (len(executions.steps) < len(each.steps)) != foreign


def test_augmented_data_draws_the_same_numbers(build: Build) -> None:
    def noisy(data: Any, batches: Any, loader: int) -> Any:
        if not isinstance(batches, list):  # of a validation
            return batches
        return [(x + torch.rand(1) + np.random.rand() + random.random(), y) for x, y in batches]

    with mock.patch.object(QuadrantsData, "on_after_batch_transfer", noisy):
        expected, _ = fit(build, EPOCH)
        found, executions = fit(build, SPAN)
    assert max(executions.batches) > 3
    assert all(map(torch.equal, weights(found), weights(expected)))


class NoisyLoader(TensorLoader):
    """Augment the batches while they are fetched."""

    def __iter__(self) -> Iterator[Any]:
        for batches in super().__iter__():
            yield [(x + np.random.rand(), y) for x, y in batches] if self.group > 1 else batches


def test_a_loader_that_augments_draws_the_same_numbers(build: Build) -> None:
    with mock.patch("src.kindling.data.TensorLoader", NoisyLoader):
        expected, _ = fit(build, EPOCH)
        found, executions = fit(build, SPAN)
    assert max(executions.batches) > 3
    assert all(map(torch.equal, weights(found), weights(expected)))
    plain, _ = fit(build, SPAN)
    assert not torch.equal(weights(found)[0], weights(plain)[0])


def test_an_execution_ends_where_there_is_something_to_do(build: Build) -> None:
    # The first epoch is Lightning's own. A point every 14 steps is logged at the end of an epoch,
    # which is an execution by itself; validated are epochs 6 and 12; no more than five epochs fit.
    _, executions = fit(build, SPAN)
    assert executions.steps == [0, 3, 12, 15, 18, 27, 30, 36, 42, 45, 48]


def test_callbacks_and_modules_are_called_in_each_epoch_but_if_they_say_otherwise(
    build: Build,
) -> None:
    class Nosy(Callback):
        """Look at each epoch."""

        def __init__(self) -> None:
            self.epochs: list[int] = []

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            self.epochs.append(trainer.current_epoch)

    class Heir(Checkpointing):
        """Have a hook that what was inherited does not know of."""

        on_train_epoch_start = Nosy.on_train_epoch_end
        epochs: list[int]

    class Patient(Nosy):
        """Look at every fourth epoch's end."""

        def quiet_epochs(self, trainer: Any, steps: int) -> int:
            assert steps == 3
            return 4 - int(trainer.current_epoch) % 4

    heir = Heir()
    heir.epochs = []
    for nosy in (Nosy(), heir):
        _, executions = fit(build, SPAN, callback=nosy)
        assert nosy.epochs == list(range(16))
        assert len(executions.batches) == 16
    patient = Patient()
    _, executions = fit(build, SPAN, callback=patient)
    assert {3, 7, 11, 15} <= set(patient.epochs)
    assert len(patient.epochs) == len(executions.batches) < 16


def test_what_is_logged_of_steps_is_the_mean_of_each_epoch(build: Build) -> None:
    def logging(module: Any, batch: Any) -> Any:
        loss = original(module, batch)
        module.log("own", loss, on_step=False, on_epoch=True, batch_size=1)
        return loss

    original = Quadrants.training_loss
    with mock.patch.object(Quadrants, "training_loss", logging):
        expected, _ = fit(build, EPOCH)
        history = points(expected)
        found, executions = fit(build, SPAN)
    assert len([row for row in history if row["own"]]) == 16
    assert points(found) == history
    assert len(executions.batches) == 16


def test_a_signal_ends_an_execution_with_its_epoch_and_the_run_goes_on(
    build: Build,
) -> None:
    straight, _ = fit(build, EPOCH)
    expected = counts(straight)
    experiment = build(*SHORT, SPAN)
    trainer = experiment.trainer

    def noted() -> int:
        return signal.SIGTERM if trainer.global_step > 6 else 0

    with (
        mock.patch.object(signals, "pending_signal", noted),
        pytest.raises(signals.Stopped) as stopped,
    ):
        trainer.fit(experiment.model, datamodule=experiment.data)
    assert stopped.value.how == "stopped and saved after step 9"
    last = Path(experiment.trainer.default_root_dir, "checkpoints", "last.ckpt")
    resumed, executions = fit(build, SPAN, resume=last)
    assert max(executions.batches) > 3
    assert all(map(torch.equal, weights(resumed), weights(straight)))
    assert [*unlike(counts(resumed), expected, "")] == []
