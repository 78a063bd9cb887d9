"""Keep two checkpoints of a run: the best so far, and the last."""

import contextlib
import math
import os
import sys
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader
from pydantic import PositiveInt

from src.kindling.callbacks import step_state
from src.kindling.callbacks.averaging import ends_with_average
from src.kindling.callbacks.loop import (
    call_after_hooks,
    count_an_ended_epoch_once,
    is_last_epoch,
)
from src.kindling.files.checkpoint import AtomicCheckpointIO


class Checkpointing(Checkpoint):
    """Write `checkpoints/best.ckpt` and `checkpoints/last.ckpt` in the run directory.

    Both are written after each validation, or every `every_n_epochs` epochs if nothing is
    validated, and at the end of training: after all hooks, whoever wrote them. A checkpoint at the
    end of an epoch is written after the epoch has ended, never inside its last batch, so that a
    resumed run starts between epochs.

    In addition to Lightning's content, each checkpoint holds what the following steps depend on:
    the latest metrics (for monitors), gradients of an unfinished accumulation (on one process),
    which parameters and BatchNorm statistics are frozen, and the length of the history on disk.

    Args:
        monitor: the metric that decides which checkpoint is best; None means the model's own
            `monitor`, or else `val/loss`, or `train/loss` if nothing is validated.
        mode: whether its lowest ("min") or highest ("max") value is best.
        every_n_epochs: epochs between two checkpoints if nothing is validated.
        save_top_k: how many of the best are kept; if more than one, each is also in the same
            folder as `step-<optimizer steps>.ckpt`.
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        every_n_epochs: PositiveInt = 50,
        save_top_k: PositiveInt = 1,
    ) -> None:
        self.monitor, self.mode, self.every_n_epochs = monitor, mode, every_n_epochs
        self.save_top_k = save_top_k
        self.best_score: float | None = None
        self._kept: list[tuple[float, str]] = []  # scores and files of the best, if save_top_k > 1
        self._validated = False
        self._restored: dict[str, Any] = {}  # what a resumed run's checkpoint holds

    # Saving -----------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Save after all hooks."""
        call_after_hooks(trainer)

    def after_validation(self, trainer: pl.Trainer, ends: bool) -> None:
        """Save after a validation in the middle of an epoch; otherwise wait for the epoch's end."""
        if ends:
            self._validated = True
        else:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise what a write in the background has raised."""
        if isinstance(writer := trainer.strategy.checkpoint_io, AtomicCheckpointIO):
            writer.raise_failures()

    def after_epoch(self, trainer: pl.Trainer) -> None:
        """Save if this epoch was validated, is due, or is the last."""
        validates = sum(trainer.num_val_batches) > 0
        turn = not validates and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if self._validated or turn or is_last_epoch(trainer):
            self._save(trainer)
        self._validated = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait until everything is written: the test reads the best checkpoint, on each rank.

        An average over the last epochs is the best, whatever their scores.
        """
        if ends_with_average(trainer) and not getattr(trainer, "fast_dev_run", False):
            _save_as(trainer, ["best.ckpt"], [])
        if isinstance(writer := trainer.strategy.checkpoint_io, AtomicCheckpointIO):
            writer.finish()
        trainer.strategy.barrier("checkpoints")

    def epochs_until_next(self, trainer: Any, steps: int) -> int:
        """Return the number of epochs up to the next save without a validation."""
        if sum(trainer.num_val_batches) > 0:
            return sys.maxsize
        return self.every_n_epochs - int(trainer.current_epoch) % self.every_n_epochs

    def _save(self, trainer: Any) -> None:
        if trainer.fast_dev_run:  # leaves nothing behind, as Lightning promises
            return
        validates = sum(trainer.num_val_batches) > 0
        score = trainer.callback_metrics.get(self.metric(trainer.lightning_module, validates))
        if score is None:  # the run ended before its first validation: its only one is the best
            best = self.best_score is None
        elif best := self._is_best(float(score)):
            self.best_score = float(score)
        names: list[str] = ["best.ckpt"] if best else []
        lost: list[str] = []
        if score is not None and self.save_top_k > 1:
            kept, lost = self._keep(float(score), f"step-{trainer.global_step:06d}.ckpt")
            names += kept
        # last.ckpt comes last: a run killed in between resumes from a state in which the others are
        # still to be saved, and saves them again.
        _save_as(trainer, [*names, "last.ckpt"], lost)

    def metric(self, model: Any, validates: bool) -> str:
        """Return the name of the metric that decides which checkpoint is best."""
        default = "val/loss" if validates else "train/loss"
        return str(self.monitor or getattr(model, "monitor", None) or default)

    def _is_best(self, score: float) -> bool:
        if not math.isfinite(score):
            return False
        if self.best_score is None:
            return True
        # On ties prefer the later checkpoint.
        return score <= self.best_score if self.mode == "min" else score >= self.best_score

    def _keep(self, score: float, name: str) -> tuple[list[str], list[str]]:
        """Rank a checkpoint among the best; return the names to save and the names to remove."""
        if not math.isfinite(score):
            return [], []
        new, sign = (score, name), 1 if self.mode == "min" else -1
        # On ties prefer the later one, as for the best.
        ranked = sorted([new, *reversed(self._kept)], key=lambda entry: sign * entry[0])
        best, rest = ranked[: self.save_top_k], ranked[self.save_top_k :]
        self._kept = [entry for entry in [*self._kept, new] if entry in best]
        return ([name], [other for _, other in rest]) if new in best else ([], [])

    def state_dict(self) -> dict[str, Any]:
        """Return the best scores so far, for the checkpoint."""
        return {"best_score": self.best_score, "kept": [list(entry) for entry in self._kept]}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Flush the history to disk, and add to the checkpoint what else a resumed run needs."""
        checkpoint["callbacks"][self.state_key] |= {
            **step_state.saved(trainer, pl_module),
            "history": history(trainer),
        }

    # Resuming ---------------------------------------------------------------------------------

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Prepare the loop for its counters, which Lightning loads later."""
        if trainer.state.fn == TrainerFn.FITTING:
            count_an_ended_epoch_once(trainer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score of a resumed run, and what its next steps depend on."""
        self.best_score, self._restored = state_dict["best_score"], state_dict
        self._kept = [(score, name) for score, name in state_dict.get("kept", [])]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the latest metrics, which Lightning has just cleared."""
        step_state.restore_metrics(trainer, self._restored)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore gradients of an unfinished accumulation, and a decision to stop early.

        Any sooner, the loop would skip the end of the epoch that was being stopped. What is frozen
        is restored too: BaseFinetuning freezes the backbone of a resumed run a second time, and
        does not unfreeze it where the epoch for that has passed.
        """
        step_state.restore(pl_module, self._restored)
        _announce_inexact(trainer, bool(self._restored))
        self._restored = {}
        trainer.should_stop = trainer.should_stop or has_stopped_early(trainer)


def monitor(trainer: Any, model: Any, validates: bool) -> dict[str, str]:
    """Return by what a run's best checkpoint is chosen, for run.json: its `metric` and `mode`."""
    callbacks = [c for c in trainer.callbacks if isinstance(c, Checkpointing)]
    by = callbacks[0] if callbacks else Checkpointing()
    return {"metric": by.metric(model, validates), "mode": by.mode}


def _save_as(trainer: Any, names: list[str], lost: list[str]) -> None:
    """Save one state under several names, and before the last one remove what is not kept.

    It is serialized once and written once, in the background.
    """
    folder, writer = f"{trainer.default_root_dir}/checkpoints", trainer.strategy.checkpoint_io
    first, *others = [f"{folder}/{name}" for name in names]
    ours = isinstance(writer, AtomicCheckpointIO)
    with writer.in_background() if ours else contextlib.nullcontext():
        trainer.save_checkpoint(first)
        for path in others:
            if path == others[-1]:
                for name in lost:
                    trainer.strategy.remove_checkpoint(f"{folder}/{name}")
            if not ours or os.path.isdir(first):  # as strategies that shard weights may write
                trainer.save_checkpoint(path)
            elif trainer.is_global_zero:
                writer.name_checkpoint(path, first)


def _announce_inexact(trainer: Any, resumed: bool) -> None:
    """Warn, at the start, that an interruption would change the run, or has changed it."""
    loaders = CombinedLoader(trainer.train_dataloader).flattened
    exact = all(hasattr(loader, "load_state_dict") for loader in loaders)
    if exact or not trainer.is_global_zero or trainer.fast_dev_run:
        return
    runs = "this run differs" if resumed else "if this run is interrupted, it will differ"
    print(
        "warning: the training loader cannot resume at its position (a stream cannot; torchdata's"
        f" StatefulDataLoader can): {runs} from one that was never interrupted",
        file=sys.stderr,
    )


def history(trainer: Any) -> dict[str, Any]:
    """Flush the history to disk; return the position of each logger that can be truncated to it."""
    loggers = [logger for logger in trainer.loggers if hasattr(logger, "position")]
    return {type(logger).__name__: logger.position() for logger in loggers}


def has_stopped_early(trainer: Any) -> bool:
    """Return whether early stopping has decided to end this run."""
    stoppers = [c for c in trainer.callbacks if isinstance(c, EarlyStopping)]
    return any(c.stopping_reason != EarlyStoppingReason.NOT_STOPPED for c in stoppers)
