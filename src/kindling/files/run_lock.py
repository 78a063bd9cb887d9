"""One process at a time trains in a run directory."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.kindling.errors import InputError
from src.kindling.files.atomic_write import remove_leftovers
from src.kindling.files.run_directory import is_launched_rank

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep other processes from training in a run directory; the lock dies with its owner.

    Further ranks of a run need none: their first rank holds it. Windows has no such lock, nor has a
    network drive without a lock service: there two processes are told nothing of each other. What a
    killed process has left behind is removed.

    Raises:
        InputError: another process trains in it.
    """
    if is_launched_rank() or fcntl is None:
        yield
        return
    path = run / ".lock"
    file = _locked(path)
    try:
        remove_leftovers(run)
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        if file is not None:
            file.close()


def _locked(path: Path) -> Any:
    """Open and lock a file; None, with a warning, where the file system has no locks."""
    while True:
        file = path.open("w")
        try:
            # Of this process alone, unlike flock's, which a loader's worker would go on holding.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise InputError(f"{path.parent}: another process is training this run") from None
        except OSError as error:
            print(f"warning: {path} is no lock here ({error.strerror}): start no second process")
            file.close()
            return None
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()  # the owner before has just removed it: another process may lock a new one
