"""Keep two checkpoints of a run: the best so far, and the last."""

import contextlib
import math
import os
import sys
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.trainer.states import TrainerFn
from pydantic import PositiveInt

from src.kindling.files.checkpoint import AtomicCheckpointIO


class Checkpointing(Checkpoint):
    """Write `checkpoints/best.ckpt` and `checkpoints/last.ckpt` in the run directory.

    Both are written after each validation; where nothing is validated, every `every_n_epochs`
    epochs; and at the end of training. A checkpoint that falls on an epoch's end is written when
    the epoch has ended, never inside its last batch: a resumed run then starts at a clean edge.

    Beside what Lightning keeps, each checkpoint of this run holds what else the steps after it
    depend on: the latest metrics (which monitors look at), gradients that wait for the rest of
    their accumulated batches (on one process), and how far the history on disk had come.

    Args:
        monitor: the metric that says what is best; None means the model's own `monitor`, or
            `val/loss`, or `train/loss` where nothing is validated.
        mode: whether the least ("min") or the most ("max") of it is best.
        every_n_epochs: epochs between two checkpoints where nothing is validated.
        save_top_k: how many of the best are kept; those of more than one stand beside `best.ckpt`
            as `step-<optimizer steps>.ckpt`.
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
        self._kept: list[tuple[float, str]] = []  # score and file of the best, where they are many
        self._validated = False
        self._resumed = False
        self._metrics: dict[str, Any] = {}  # both from the checkpoint of a resumed run
        self._gradients: dict[str, Any] = {}

    # Saving -----------------------------------------------------------------------------------

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after a validation amid an epoch; leave the others to the epoch's end."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._validated = True
        else:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if this epoch was validated, its turn has come, or it was the last."""
        validates = sum(trainer.num_val_batches) > 0
        turn = not validates and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if self._validated or turn or is_last_epoch(trainer):
            self._save(trainer)
        elif isinstance(writer := trainer.strategy.checkpoint_io, AtomicCheckpointIO):
            writer.look()
        self._validated = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait until all is written: the test reads the best, on each rank."""
        if isinstance(writer := trainer.strategy.checkpoint_io, AtomicCheckpointIO):
            writer.finish()
        trainer.strategy.barrier("checkpoints")

    def quiet_epochs(self, trainer: Any, steps: int) -> int:
        """Return how many epochs there are to the next one that is saved without a validation."""
        if sum(trainer.num_val_batches) > 0:
            return sys.maxsize
        return self.every_n_epochs - int(trainer.current_epoch) % self.every_n_epochs

    def _save(self, trainer: Any) -> None:
        if trainer.fast_dev_run:  # which promises to leave nothing behind
            return
        validates = sum(trainer.num_val_batches) > 0
        monitor: Any = self.monitor or getattr(trainer.lightning_module, "monitor", None)
        monitor = monitor or ("val/loss" if validates else "train/loss")
        score = trainer.callback_metrics.get(monitor)
        if score is None:  # a run that ended before its first validation: the only one is the best
            best = self.best_score is None
        elif best := self._is_best(float(score)):
            self.best_score = float(score)
        names: list[str] = ["best.ckpt"] if best else []
        lost: list[str] = []
        if score is not None and self.save_top_k > 1:
            kept, lost = self._keep(float(score), f"step-{trainer.global_step:06d}.ckpt")
            names += kept
        # Last, what a run goes on from: one that is killed in between finds the state in which it
        # has yet to save the others, and does it again.
        _save_as(trainer, [*names, "last.ckpt"], lost)

    def _is_best(self, score: float) -> bool:
        if not math.isfinite(score):
            return False
        if self.best_score is None:
            return True
        # Of equals the later one: it has learned for longer.
        return score <= self.best_score if self.mode == "min" else score >= self.best_score

    def _keep(self, score: float, name: str) -> tuple[list[str], list[str]]:
        """Count one among the best, or not; return what is to be saved, and what to be removed."""
        if not math.isfinite(score):
            return [], []
        new, sign = (score, name), 1 if self.mode == "min" else -1
        # Of equals the later one, as for the best.
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
        """Put the history on disk, and into the checkpoint what else a resumed run needs."""
        state = checkpoint["callbacks"][self.state_key]
        state["metrics"] = {name: _plain(value) for name, value in trainer.callback_metrics.items()}
        if trainer.fit_loop.epoch_loop._should_accumulate():  # Lightning says it nowhere else
            gradients = {n: p.grad for n, p in pl_module.named_parameters() if p.grad is not None}
            state["gradients"] = {name: grad.cpu().clone() for name, grad in gradients.items()}
        state["history"] = history(trainer)

    # Going on ---------------------------------------------------------------------------------

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best score of the run that is resumed, and what its next steps depend on."""
        self.best_score, self._resumed = state_dict["best_score"], True
        self._kept = [(score, name) for score, name in state_dict.get("kept", [])]
        self._metrics = state_dict.get("metrics", {})
        self._gradients = state_dict.get("gradients", {})

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Know the latest metrics again; Lightning has just cleared them."""
        for name, value in self._metrics.items():
            held = torch.tensor(value) if isinstance(value, float) else value
            trainer.callback_metrics[name] = held.to(pl_module.device)
        self._metrics = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up gradients that wait for a step, and an early stop that was decided on.

        Not sooner: the loop would then leave out the end of the epoch that was being stopped.
        """
        for name, parameter in pl_module.named_parameters():
            if name in self._gradients:
                parameter.grad = self._gradients[name].to(parameter.device)
        self._gradients = {}
        if self._resumed and not hasattr(trainer.train_dataloader, "load_state_dict"):
            print(
                "warning: the training batches come from a loader that cannot go back to its place:"
                " from here on this run is not the same as one that was never interrupted"
                " (OrderedLoader of src/kindling/loader.py makes it so)",
                file=sys.stderr,
            )
        trainer.should_stop = trainer.should_stop or has_stopped_early(trainer)


def _save_as(trainer: Any, names: list[str], lost: list[str]) -> None:
    """Save one state under several names, and remove what is not kept before the last of them.

    It is serialised once, and written once, while training goes on.
    """
    folder, writer = f"{trainer.default_root_dir}/checkpoints", trainer.strategy.checkpoint_io
    first, *others = [f"{folder}/{name}" for name in names]
    ours = isinstance(writer, AtomicCheckpointIO)
    with writer.aside() if ours else contextlib.nullcontext():
        trainer.save_checkpoint(first)
        for path in others:
            if path == others[-1]:
                for name in lost:
                    trainer.strategy.remove_checkpoint(f"{folder}/{name}")
            if not ours or os.path.isdir(first):  # as strategies that share weights out may write
                trainer.save_checkpoint(path)
            elif trainer.is_global_zero:
                writer.name_checkpoint(path, first)


def _plain(value: torch.Tensor) -> float | torch.Tensor:
    """Return what a checkpoint holds of a metric: as a number it is written 15 us faster."""
    same = value.dtype == torch.get_default_dtype() and value.dim() == 0  # when it comes back
    return value.item() if same else value.detach().cpu().clone()


def history(trainer: Any) -> dict[str, Any]:
    """Put the history on disk; return how far each logger has come, of those that can go back."""
    return {type(log).__name__: log.mark() for log in trainer.loggers if hasattr(log, "mark")}


def has_stopped_early(trainer: Any) -> bool:
    """Say whether early stopping has decided to end this run."""
    stoppers = [c for c in trainer.callbacks if isinstance(c, EarlyStopping)]
    return any(c.stopping_reason != EarlyStoppingReason.NOT_STOPPED for c in stoppers)


def is_last_epoch(trainer: pl.Trainer) -> bool:
    """Say, in `on_train_epoch_end`, whether training ends with this epoch."""
    # Not `fit_loop.done`, which changes the loop's counters when it is asked.
    progress: Any = trainer.fit_loop.epoch_progress.current
    epochs = progress.processed
    ends = trainer.max_epochs is not None and trainer.max_epochs >= 0
    return bool(
        trainer.should_stop
        or (ends and epochs >= (trainer.max_epochs or 0))
        or (trainer.max_steps >= 0 and trainer.global_step >= trainer.max_steps)
    )
