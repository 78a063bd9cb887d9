"""One process at a time trains in a run directory."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from src.kindling.errors import InputError, printable
from src.kindling.files import bounded
from src.kindling.files.atomic_write import remove_leftovers
from src.kindling.process import ranks

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None


class HeldError(InputError):
    """Another process is training in a run directory."""


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep other processes from training in a run directory; the lock dies with its owner.

    Launched ranks need none: their first rank holds it. Windows and network drives without a lock
    service offer no such lock; a warning says so. Leftovers of a killed process are removed.

    Raises:
        HeldError: another process is training in it.
        InputError: .lock cannot be opened.
    """
    if ranks.is_launched() or not HAS_LOCKS:
        yield
        return
    path = run / ".lock"
    descriptor = _locked(path)
    try:
        remove_leftovers(run)
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        if descriptor is not None:
            os.close(descriptor)


def _locked(path: Path) -> int | None:
    """Open and lock a file; None, with a warning, on a file system without locks."""
    while True:
        descriptor = _opened(path)
        try:
            # Unlike an flock lock, it is not inherited by a DataLoader's workers.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise HeldError(f"{path.parent}: another process is training this run") from None
        except OSError as error:
            os.close(descriptor)
            print(
                printable(
                    f"warning: this file system does not support locks ({path}: {error.strerror});"
                    " do not start a second process"
                )
            )
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False)):
                return descriptor
        os.close(descriptor)  # its owner has just removed it; another process may lock a new file


def _opened(path: Path) -> int:
    """Open .lock without truncating it: it may belong to somebody else."""
    try:
        return bounded.open_regular(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise InputError(f"{path} cannot be locked: {bounded.reason(error)}") from None


def is_held(run: Path) -> bool:
    """Return whether another process is training in a run directory; True if that is unknown.

    Not for the process that trains: closing the file would release its own lock.
    """
    if not HAS_LOCKS:
        return True
    try:
        descriptor = bounded.open_regular(run / ".lock")
    except FileNotFoundError:
        return False
    except OSError:  # somebody else's directory
        return True
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        held = False
    except OSError:
        held = True
    os.close(descriptor)
    return held
