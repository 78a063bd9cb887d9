"""Which process of a run this is: its first, or a further rank that another process launched."""

import os
from pathlib import Path

VARIABLE = "KINDLING_RUN_DIRECTORY"  # tells launched ranks where their run is


def export_run(run: Path) -> None:
    """Tell the processes that this one will launch which run directory is theirs."""
    os.environ[VARIABLE] = str(run)


def inherited_run() -> Path | None:
    """Return the directory of the run that launched this process as a further rank, if one did."""
    return Path(os.environ[VARIABLE]) if is_launched() else None


def is_launched() -> bool:
    """Return whether this process is a further rank of a run that another process started."""
    return VARIABLE in os.environ and int(os.environ.get("LOCAL_RANK", "0")) > 0
