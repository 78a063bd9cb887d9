"""Which runs the jobs of a `--multirun` have, until all are done: the same command continues it.

`<log_dir>/sweep/<hash of the command line>/<number of the job>` is a link to the run of a job.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from src.kindling.errors import printable
from src.kindling.process.environment import variable

VARIABLE = "KINDLING_SWEEP"  # tells the processes of a launcher which sweep their jobs are of


def links(log_dir: str, job: int | None) -> list[Path]:
    """Return the link to the run of a job of this process's sweep; none for any other run."""
    name = os.environ.get(VARIABLE)
    return [] if job is None or name is None else [Path(log_dir, "sweep", name, str(job))]


@contextmanager
def kept(words: Sequence[str], log_dirs: Iterable[str]) -> Iterator[list[Path]]:
    """Name the sweep of a command line in this block, and say so if it continues one.

    Args:
        words: the command line, but for its log_dir.
        log_dirs: where its jobs keep their runs.

    Yields:
        The folders of its links.
    """
    name = hashlib.sha256(repr(list(words)).encode()).hexdigest()[:12]
    folders = [Path(log_dir, "sweep", name) for log_dir in sorted(set(log_dirs))]
    for folder in folders:
        if folder.is_dir():
            line = f"continuing the sweep of {folder}; without this folder it starts from its first"
            print(printable(f"{line} job"), flush=True)
    with variable(VARIABLE, name):
        yield folders


def remove(folders: Iterable[Path]) -> None:
    """Forget a sweep whose jobs are all done: the same command then starts another."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another sweep is not complete
            folder.parent.rmdir()
