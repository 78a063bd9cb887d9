"""Plan how a run is resumed: from which checkpoint, with which settings, and where in its history.

Nothing on disk changes before `Resumption.apply`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.kindling import layout
from src.kindling.config import masking
from src.kindling.errors import InputError, first_line
from src.kindling.files import bounded
from src.kindling.layout import BEST, LAST, PREVIOUS, Plain
from src.kindling.training.resume_changes import (
    Changes,
    apply_changes,
    changes,
    check_allowed,
    check_possible,
    early_stoppings,
    state_of,
)

if TYPE_CHECKING:
    from src.kindling.build import Experiment

CANDIDATES = (LAST, PREVIOUS, BEST)  # checkpoints to resume from, the newest first


@dataclass
class Resumption:
    """How a run is resumed.

    Attributes:
        run: its directory.
        checkpoint: the file to resume from; None if the run was killed before its first one.
        content: what that file holds, read once; empty after `apply`.
        changes: the settings that differ from those that the checkpoint was trained with.
        notices: lines for the user.
    """

    run: Path
    checkpoint: Path | None
    content: Any
    changes: Changes
    notices: list[str]

    def check_fit(self, built: "Experiment") -> None:
        """Refuse a checkpoint whose weights or optimizer states do not fit the configuration.

        Raises:
            InputError: naming what does not fit.
        """
        from src.kindling.training import resume_fit

        if self.checkpoint is not None:
            resume_fit.check_fit(self.checkpoint, self.content, built.model, built.trainer)

    def apply(self, built: "Experiment") -> Path | None:
        """Restore a run's files to the time of the checkpoint, and apply the changed settings.

        Returns:
            The checkpoint to resume from; the Trainer gets its content without reading it again.
        """
        truncate_history(built.trainer, self.content)
        if self.checkpoint is None:
            return None
        last, content = self.checkpoint.with_name(LAST), self.content
        lost = _forget_lost_best(self.run, content)
        self.notices += lost
        if self.changes:
            apply_changes(self.changes, content, masking.masked(built.config))
        if self.checkpoint != last or self.changes or lost:
            _save(content, last, damaged=self.checkpoint != last)
        _hand_over(content, last, built.trainer)
        self.content = {}  # not kept in memory during training
        return last


def plan(run: Path, settings: Plain, allow_changes: bool) -> Resumption:
    """Plan how to resume a run with these settings; its checkpoint is read here, once.

    Raises:
        InputError: no checkpoint is whole, or a change is not allowed or not possible.
    """
    checkpoint, content, notices = newest_whole(run)
    trained_with = content.get("config") if content else bounded.read_config(run / "config.yaml")
    found = changes(trained_with, settings)
    if checkpoint:
        check_length(run, content, settings, found)
    check_allowed(run, found, allow_changes)
    if checkpoint:
        check_possible(found)
    return Resumption(run, checkpoint, content or {}, found, notices)


# The checkpoint -----------------------------------------------------------------------------------


def newest_whole(run: Path) -> tuple[Path | None, Any, list[str]]:
    """Return the newest undamaged checkpoint of a run, its content, and notices for the user.

    None if there is no checkpoint at all: the run was killed before its first one.

    Raises:
        InputError: there are checkpoints, and all are damaged.
    """
    from src.kindling.files.checkpoint import load_checkpoint

    notices: list[str] = []
    present = [path for name in CANDIDATES if (path := run / "checkpoints" / name).is_file()]
    for path in present:
        try:
            content = load_checkpoint(path)
        except (OSError, ValueError) as error:
            notices.append(first_line(error))
            continue
        if notices or path.name != CANDIDATES[0]:
            notices.append(f"continuing from {path}, of step {content.get('global_step')}")
        return path, content, notices
    if present:
        more = "; and no other is whole" if len(notices) > 1 else ""
        raise InputError(f"{notices[0]}{more}")
    return None, None, [f"{run} has no checkpoint yet: it starts from its first step"]


def _forget_lost_best(run: Path, content: Any) -> list[str]:
    """Forget a best checkpoint that is damaged or gone; return a notice if it is."""
    from src.kindling.files.checkpoint import check_whole

    state = state_of(content, "Checkpointing")
    if state.get("best_score") is None:
        return []
    try:
        check_whole(run / "checkpoints" / BEST)
    except (OSError, ValueError) as error:
        state["best_score"] = None
        return [f"{first_line(error)}: the best one from now on takes its place"]
    return []


def _save(content: Any, last: Path, damaged: bool) -> None:
    from src.kindling.files.checkpoint import AtomicCheckpointIO

    if damaged and last.exists():
        last.replace(last.with_name("damaged.ckpt"))
    AtomicCheckpointIO().save_checkpoint(content, last)


def _hand_over(content: Any, last: Path, trainer: Any) -> None:
    from src.kindling.files.checkpoint import AtomicCheckpointIO

    if isinstance(writer := trainer.strategy.checkpoint_io, AtomicCheckpointIO):
        writer.provide(last, content)


def truncate_history(trainer: Any, content: Any) -> None:
    """Truncate the history to where it ended in the checkpoint; without one, to nothing."""
    marks = state_of(content, "Checkpointing").get("history", {}) if content else None
    for logger in trainer.loggers:
        name = type(logger).__name__
        if hasattr(logger, "truncate_to") and (marks is None or name in marks):
            logger.truncate_to(marks[name] if marks else None)


# How long it may become ---------------------------------------------------------------------------


def check_length(run: Path, content: Any, settings: Plain, found: Changes) -> None:
    """Refuse to make a run shorter than it is, or longer than early stopping lets it be.

    Raises:
        InputError: naming the setting, and for early stopping the command that works.
    """
    epochs, done = settings["trainer"]["max_epochs"], epochs_done(content)
    if isinstance(epochs, int) and 0 <= epochs < done:
        raise InputError(f"trainer.max_epochs={epochs}: {run} has completed {done} epochs already")
    if "trainer.max_epochs" in found and done:
        _check_schedules(run, content, epochs, done)
    patience = settings["callbacks"].get("early_stopping", {}).get("patience")
    for state in early_stoppings(content):
        if not state.get("stopping_reason") or "trainer.max_epochs" not in found:
            continue
        if patience is not None and patience <= state["wait_count"]:
            longer = {"trainer.max_epochs": str(epochs)} | longer_patience(patience)
            raise InputError(
                f"trainer.max_epochs={epochs}: early stopping ended {run} after {done} epochs; with"
                f" more patience it continues: "
                f"{layout.command_line('train', resume=str(run), **longer)}"
            )


def _check_schedules(run: Path, content: Any, epochs: Any, done: int) -> None:
    """Refuse more steps than a schedule of torch's OneCycleLR has, which raises at the next one."""
    steps = content.get("global_step", 0) / done * epochs
    for state in content.get("lr_schedulers", []):
        if 0 < state.get("total_steps", steps) < steps:
            raise InputError(
                f"trainer.max_epochs={epochs}: the OneCycleLR of {run} ends after"
                f" {state['total_steps']} steps; init_from= starts a longer run from these weights"
            )


def longer_patience(patience: int) -> dict[str, str]:
    """Return the overrides with which a run continues that early stopping has ended."""
    more = str(2 * max(patience, 1))
    return {"callbacks.early_stopping.patience": more, "allow_changes": "true"}


def epochs_done(content: Any) -> int:
    """Return how many epochs were completed at a checkpoint.

    Raises:
        InputError: it does not say, so it is not from a training run.
    """
    try:
        return int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    except (LookupError, TypeError, ValueError):
        raise InputError(
            "the checkpoint holds only weights: init_from= starts a run from them"
        ) from None
