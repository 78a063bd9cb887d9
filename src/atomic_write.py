"""Files that are written whole or not at all; without torch, so that a command starts fast."""

import contextlib
import os
import tempfile
from pathlib import Path

TEMPORARY = ".*.tmp"  # what a kill leaves behind, at most one such file


def write_atomically(
    target: Path, content: bytes | memoryview, previous: Path | None = None
) -> None:
    """Replace a file by new content so that a reader, or a crash, sees the old or the new whole.

    Args:
        target: the file.
        content: what it shall hold.
        previous: the name that the old file keeps, beside the target; None lets it go.

    Raises:
        OSError: the directory cannot be written to, or the disk is full; the old file stays.
    """
    # Not named after the target: TensorBoard would take it for an event file.
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp makes files private; these are meant to be shared
        if previous is not None:
            _keep(target, previous)
        os.replace(name, target)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        # A full disk does not say where it is.
        if isinstance(error, OSError) and error.errno and not error.filename:
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
    if os.name == "posix":  # the rename itself is durable once the directory is on disk
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _keep(target: Path, previous: Path) -> None:
    """Give a file a second name, which stays when the first is replaced; at no instant has it none.

    Where the file system has no hard links the file is renamed: until the new one takes its place,
    it has the second name alone.
    """
    if not target.exists():
        return
    previous.unlink(missing_ok=True)
    try:
        os.link(target, previous)
    except OSError:
        os.replace(target, previous)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process has left in a folder or below it."""
    for path in folder.rglob(TEMPORARY):
        with contextlib.suppress(OSError):
            path.unlink()
