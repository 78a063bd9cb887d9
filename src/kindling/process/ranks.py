"""Tell the first process of a run from the ranks that another process launched."""

import contextlib
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from src.kindling.process.environment import variable

VARIABLE = "KINDLING_RUN_DIRECTORY"  # the run directory, for other ranks than 0
FIRST = "KINDLING_FIRST_RANK"  # the first global rank on this host; unset on the host of rank 0


def exported(run: Path) -> AbstractContextManager[None]:
    """Pass the run directory to the processes that this one launches within the block.

    A later command of the same process must not inherit it: its ranks would join this run.
    """
    return variable(VARIABLE, str(run))


def follow(run: Path, first: int = 0) -> None:
    """Take part in a run whose first process is another one that has not launched this one.

    Args:
        run: its directory.
        first: the global rank of the first process on this host.
    """
    os.environ[VARIABLE] = str(run)
    if first:
        os.environ[FIRST] = str(first)


def inherited_run() -> Path | None:
    """Return the run directory of which this process is a further rank, if it is one."""
    return Path(os.environ[VARIABLE]) if is_launched() else None


def is_launched() -> bool:
    """Return whether this process is a further rank of a run that another process started."""
    return VARIABLE in os.environ and number() > 0


def number() -> int:
    """Return the global rank of this process, as far as it is known before ranks meet."""
    return int(os.environ.get(FIRST, "0")) + int(os.environ.get("LOCAL_RANK", "0"))


def per_node(devices: Any) -> int:
    """Return the processes per host that `trainer.devices` asks for; -1 if it leaves that open."""
    number = len(devices) if isinstance(devices, list) else devices
    return number if isinstance(number, int) else -1


def is_torchrun() -> bool:
    """Return whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def has_own_console() -> bool:
    """Return whether this is the first process of another host: nobody else speaks there."""
    return FIRST in os.environ and os.environ.get("LOCAL_RANK", "0") == "0"


def report_failure(line: str) -> None:
    """Leave the line of this rank's failure in the run directory, for the first rank to print."""
    with contextlib.suppress(OSError):  # a full disk: then the first rank says how this one ended
        _failure_file(number()).write_text(line, encoding="utf-8")


def reported_failure(rank: int) -> str | None:
    """Return the line that a rank has left, once; None if it has left none."""
    if VARIABLE not in os.environ:
        return None
    file = _failure_file(rank)
    try:
        line = file.read_text(encoding="utf-8")
        file.unlink()
    except OSError:
        return None
    return line


def _failure_file(rank: int) -> Path:
    return Path(os.environ[VARIABLE], f".rank-{rank}.tmp")  # a stale one is a leftover
