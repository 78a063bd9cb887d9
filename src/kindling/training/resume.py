"""Plan how a run is resumed: from which checkpoint, with which settings, and where in its history.

Nothing on disk changes before `Resumption.apply`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    state_of,
)
from src.kindling.training.resume_length import check_length

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

    def apply(self, built: "Experiment") -> Path | None:
        """Restore a run's files to the time of the checkpoint, and apply the changed settings.

        Returns:
            The checkpoint to resume from; the Trainer gets its content without reading it again.
        """
        from src.kindling.files.checkpoint import AtomicCheckpointIO

        truncate_history(built.trainer, self.content)
        if self.checkpoint is None:
            return None
        last, content = self.checkpoint.with_name(LAST), self.content
        lost = _forget_lost_best(self.run, content)
        self.notices += lost
        if self.changes:
            apply_changes(self.changes, content, masking.masked(built.config))
        if self.checkpoint != last or self.changes or lost:
            if self.checkpoint != last and last.exists():
                last.replace(last.with_name("damaged.ckpt"))
            AtomicCheckpointIO().save_checkpoint(content, last)
        if isinstance(writer := built.trainer.strategy.checkpoint_io, AtomicCheckpointIO):
            writer.provide(last, content)
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


def truncate_history(trainer: Any, content: Any) -> None:
    """Truncate the history to where it ended in the checkpoint; without one, to nothing."""
    marks = state_of(content, "Checkpointing").get("history", {}) if content else None
    for logger in trainer.loggers:
        name = type(logger).__name__
        if hasattr(logger, "truncate_to") and (marks is None or name in marks):
            logger.truncate_to(marks[name] if marks else None)
