"""Tell the first process of a run from the ranks that another process launched."""

import contextlib
import os
from pathlib import Path

VARIABLE = "KINDLING_RUN_DIRECTORY"  # the run directory, for launched ranks


def export_run(run: Path) -> None:
    """Pass the run directory to the processes that this one will launch."""
    os.environ[VARIABLE] = str(run)


def inherited_run() -> Path | None:
    """Return the run directory of the process that launched this one as another rank, if any."""
    return Path(os.environ[VARIABLE]) if is_launched() else None


def is_launched() -> bool:
    """Return whether another process of the same run launched this one."""
    return VARIABLE in os.environ and int(os.environ.get("LOCAL_RANK", "0")) > 0


def report_failure(line: str) -> None:
    """Leave the line of this rank's failure in the run directory, for the first rank to print."""
    with contextlib.suppress(OSError):  # a full disk: then the first rank says how this one ended
        _failure_file(int(os.environ["LOCAL_RANK"])).write_text(line, encoding="utf-8")


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
    return Path(os.environ[VARIABLE], f".rank-{rank}")
