"""Keep two checkpoints of a run: the best so far, and the last."""

import math
import sys
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.trainer.states import TrainerFn
from pydantic import PositiveInt


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
        self._validated = False

    def _save(self, trainer: Any) -> None:
        if trainer.fast_dev_run:  # which promises to leave nothing behind
            return
        folder = f"{trainer.default_root_dir}/checkpoints"
        validates = sum(trainer.num_val_batches) > 0
        monitor: Any = self.monitor or getattr(trainer.lightning_module, "monitor", None)
        monitor = monitor or ("val/loss" if validates else "train/loss")
        score = trainer.callback_metrics.get(monitor)
        if score is None:  # a run that ended before its first validation: the only one is the best
            best = self.best_score is None
        elif best := self._is_best(float(score)):
            self.best_score = float(score)
        if best:
            trainer.save_checkpoint(f"{folder}/best.ckpt")
        if score is not None and self.save_top_k > 1:
            self._keep(trainer, folder, float(score))
        trainer.save_checkpoint(f"{folder}/last.ckpt")

    def _is_best(self, score: float) -> bool:
        if not math.isfinite(score):
            return False
        if self.best_score is None:
            return True
        # Of equals the later one: it has learned for longer.
        return score <= self.best_score if self.mode == "min" else score >= self.best_score

    def _keep(self, trainer: Any, folder: str, score: float) -> None:
        """Save one of the best, and remove what is none any more."""
        if not math.isfinite(score):
            return
        new = (score, f"step-{trainer.global_step:06d}.ckpt")
        sign = 1 if self.mode == "min" else -1  # of equals the later one, as for the best
        ranked = sorted([new, *reversed(self._kept)], key=lambda entry: sign * entry[0])
        best, rest = ranked[: self.save_top_k], ranked[self.save_top_k :]
        self._kept = [entry for entry in [*self._kept, new] if entry in best]
        if new in best:
            trainer.save_checkpoint(f"{folder}/{new[1]}")
            for _, name in rest:
                trainer.strategy.remove_checkpoint(f"{folder}/{name}")

    def state_dict(self) -> dict[str, Any]:
        """Return the best scores so far, for the checkpoint."""
        return {"best_score": self.best_score, "kept": [list(entry) for entry in self._kept]}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the history on disk, and into the checkpoint what else a resumed run needs."""
        state = checkpoint["callbacks"][self.state_key]
        state["metrics"] = {
            name: value.detach().cpu().clone() for name, value in trainer.callback_metrics.items()
        }
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
            trainer.callback_metrics[name] = value.to(pl_module.device)
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
                " (OrderedLoader of src/data/loader.py makes it so)",
                file=sys.stderr,
            )
        trainer.should_stop = trainer.should_stop or has_stopped_early(trainer)


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
