"""Where calls end, and that calls of several epochs leave what epochs one by one do."""

import math
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from src.kindling.process import signals
from tests.kindling.speed.small import BATCHES, Net, Rows, differing, fit, left, said

pytestmark = pytest.mark.filterwarnings("ignore")


class Calls(Callback):
    """Note the steps after each call; needs no call of its own."""

    def __init__(self, every: float = math.inf, epochs: float = math.inf) -> None:
        self.ends: list[int] = []
        self.every, self.epochs, self.seen = every, epochs, []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.ends.append(trainer.global_step)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.seen.append(trainer.current_epoch)

    def steps_until_next(self, trainer: Any) -> float:
        return self.every - trainer.global_step % self.every if self.every < math.inf else math.inf

    def epochs_until_next(self, trainer: Any, steps: int) -> float:
        return self.epochs - trainer.current_epoch % self.epochs if self.epochs < 9 else math.inf


def ends(folder: Path, steps: int, calls: Calls | None = None, **options: Any) -> list[int]:
    calls = calls or Calls()
    fit(folder, steps, callbacks=[calls], **options)
    return calls.ends


def test_a_call_ends_where_somebody_asked_for_something(tmp_path: Path) -> None:
    quiet: dict[str, Any] = {"limit_val_batches": 0}
    assert ends(tmp_path, 3, **quiet)[:6] == [3, 6, 7, 10, 13, 14]
    assert ends(tmp_path, 7, **quiet) == [7, 14, 21, 28]
    assert ends(tmp_path, 14, **quiet) == ends(tmp_path, 20, **quiet) == [14, 28]
    assert ends(tmp_path, 1000, **quiet) == [28]
    assert ends(tmp_path, 1000, max_steps=17, **quiet) == [17]
    assert ends(tmp_path, 1000, Calls(every=5), **quiet) == [5, 10, 15, 20, 25, 28]
    ragged = [4, 5, 7, 10, 11, 14, 15, 18, 20, 21, 25, 28]  # a call ends where it would have anyway
    assert ends(tmp_path, 4, Calls(every=5), **quiet) == ragged
    assert ends(tmp_path, 1000, Calls(epochs=3), **quiet) == [21, 28]
    assert ends(tmp_path, 1000, check_val_every_n_epoch=2) == [14, 28]
    assert ends(tmp_path, 1000, val_check_interval=5) == [5, 12, 19, 26, 28]
    by_batch = {"val_check_interval": 10, "check_val_every_n_epoch": None}
    assert ends(tmp_path, 1000, **by_batch) == [10, 20, 28]
    assert ends(tmp_path, 3, accumulate_grad_batches=2, **quiet)[:4] == [3, 4, 7, 8]


@pytest.mark.parametrize("last", [17, 5])
def test_max_steps_ends_a_call_at_its_step(tmp_path: Path, last: int) -> None:
    one, several = (left(fit(tmp_path, steps, max_steps=last)) for steps in (1, 1000))
    assert differing(several, one) == []


@pytest.mark.parametrize("last", [10, 13])  # in an epoch, and at its end
def test_should_stop_ends_a_call_at_its_step(tmp_path: Path, last: int) -> None:
    class Stops(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.trainer.should_stop = self.trainer.global_step == last
            return super().training_step(batch, batch_idx)

    trainers = []
    for steps in (1, 1000):
        pl.seed_everything(0, verbose=False)
        trainers.append(fit(tmp_path, steps, Stops(), limit_val_batches=0))
    one, several = trainers
    assert several.global_step == one.global_step == last + 1
    assert differing(left(several), left(one)) == []


def test_a_class_that_overrides_a_hook_is_called_again_in_each_epoch(tmp_path: Path) -> None:
    class Heir(Calls):
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            """Be called."""

    heir = Heir()
    assert ends(tmp_path, 1000, heir, limit_val_batches=0) == [7, 14, 21, 28]
    assert heir.seen == [0, 1, 2, 3]


class Logging(Net):
    """Net that logs at each step and epoch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return {"loss": loss, "more": 1}


class Plateau(Net):
    """Net with a plateau that Lightning steps after each epoch."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 1.0)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        every = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)
        return [optimizer], [
            {"scheduler": plateau, "monitor": "val", "interval": "epoch"},
            {"scheduler": every, "interval": "epoch"},
            {"scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99),
             "interval": "step", "frequency": 3},
        ]  # fmt: skip


class Groups(Net):
    """Net with two param groups."""

    def configure_optimizers(self) -> Any:
        groups = [
            {"params": self.body.parameters(), "lr": 0.1},
            {"params": [*self.head.parameters()]},
        ]
        return torch.optim.AdamW(groups, 0.01)


class Two(Net):
    """Net with two optimizers, which it steps by itself."""

    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    def configure_optimizers(self) -> Any:
        parts = (self.body, self.head)
        return [torch.optim.SGD(part.parameters(), 0.1) for part in parts]


class Manual(Net):
    """Net that steps its one optimizer by itself."""

    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.manual_backward(super().training_step(batch, batch_idx))
        if batch_idx % 2:
            self.optimizers().step()
            self.optimizers().zero_grad()


class Skips(Net):
    """Net that leaves out every third batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx % 3 == 0 else super().training_step(batch, batch_idx)


class Draws(Net):
    """Net that draws from NumPy's and Python's generators."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * (np.random.rand() + random.random())


class One(Net):
    """Net whose step takes the batch alone."""

    def training_step(self, batch: Any) -> Any:
        return super().training_step(batch, 0)


class Augmented(Rows):
    """Rows with noise from three generators, drawn while batches are fetched."""

    def train_dataloader(self) -> Any:
        return Noisy(super().train_dataloader())

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] + torch.rand(1) + np.random.rand(), batch[1]


class Noisy:
    """A loader of the user's own."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for x, y in self.loader:
            yield x + np.random.rand() + random.random(), y


CASES: list[tuple[Any, Any, dict[str, Any], bool]] = [  # module, data, options, one step per call
    (Net, Rows, {}, False),
    (Logging, Rows, {"log_every_n_steps": 3}, False),
    (Logging, Rows, {"limit_val_batches": 0}, False),
    (Logging, Rows, {"log_every_n_steps": 1, "accumulate_grad_batches": 2}, False),
    (Plateau, Rows, {}, False),
    (Plateau, Rows, {"check_val_every_n_epoch": 1, "accumulate_grad_batches": 2}, False),
    (Groups, Rows, {"gradient_clip_val": 0.1, "limit_train_batches": 5}, False),
    (Two, Rows, {"limit_val_batches": 0}, True),
    (Manual, Rows, {"limit_val_batches": 0}, True),
    (Skips, Rows, {}, False),
    (Draws, Augmented, {"check_val_every_n_epoch": 3}, False),
    (One, Rows, {"check_val_every_n_epoch": 3}, False),
    (Net, Rows, {"profiler": "simple"}, True),
    (Net, Rows, {"reload_dataloaders_every_n_epochs": 1}, True),
    (Net, Rows, {"precision": "bf16-mixed", "overfit_batches": 3}, False),
    (Net, Rows, {"min_epochs": 6, "max_epochs": 6, "val_check_interval": 0.4}, False),
]


@pytest.mark.parametrize(("module", "data", "options", "aside"), CASES)
def test_weights_counters_history_and_metrics_are_those_of_one_step_per_call(
    module: Any,
    data: Any,
    options: dict[str, Any],
    aside: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    states = []
    for steps in (1, 3, 16, 1000):
        pl.seed_everything(0, verbose=False)
        states.append(left(fit(tmp_path, steps, module(), data(), **options)))
    assert [differing(state, states[0]) for state in states[1:]] == [[], [], []]
    assert states[0]["loops"]["epoch_progress"]["total"]["completed"] >= 4
    lines = said(capsys)
    assert len(lines) == 3 * aside
    assert all(line.endswith("one step per call, the same weights") for line in lines)


class StoppedError(Exception):
    """The run ends here."""


class Save(Callback):
    """Save and stop at a step."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise StoppedError

    def steps_until_next(self, trainer: Any) -> float:
        left_of_it = self.step - trainer.global_step
        return left_of_it if left_of_it > 0 else math.inf


class InOrder(Rows):
    """Rows in one order, from a loader that knows its place."""

    def train_dataloader(self) -> Any:
        from src.kindling.loader import EpochSampler, OrderedLoader

        return OrderedLoader(self.rows, 10, sampler=EpochSampler(len(self.rows), shuffle=True))


@pytest.mark.parametrize(("stopped", "resumed"), [(1, 16), (16, 1), (3, 1000)])
@pytest.mark.parametrize("step", [9, 14, 20])
def test_a_run_resumes_anywhere_with_another_number_of_steps_per_call(
    step: int, stopped: int, resumed: int, tmp_path: Path
) -> None:
    quiet: dict[str, Any] = {"limit_val_batches": 0}
    whole = fit(tmp_path / "whole", 1, data=InOrder(), **quiet)
    path = tmp_path / "stopped.ckpt"
    with pytest.raises(StoppedError):
        fit(tmp_path / "half", stopped, data=InOrder(), callbacks=[Save(step, path)], **quiet)
    rest = fit(tmp_path / "rest", resumed, data=InOrder(), checkpoint=path, **quiet)
    for name in ("weights", "optimizers"):
        assert left(rest)[name] == left(whole)[name]
    assert rest.global_step == whole.global_step == 4 * BATCHES


def test_a_signal_ends_a_call_with_its_epoch(tmp_path: Path) -> None:
    calls = Calls()
    with mock.patch.object(signals, "pending_signal", return_value=signal.SIGTERM):
        fit(tmp_path, 1000, callbacks=[calls], limit_val_batches=0)
    assert calls.ends == [7, 14, 21, 28]
