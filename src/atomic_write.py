"""Files that are written whole or not at all; without torch, so that a command starts fast."""

import os
import tempfile
from pathlib import Path


def write_atomically(target: Path, content: bytes | memoryview) -> None:
    """Replace a file by new content so that a reader, or a crash, sees the old or the new whole.

    Raises:
        OSError: the directory cannot be written to, or the disk is full; the old file stays.
    """
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp makes files private; these are meant to be shared
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the rename itself is durable once the directory is on disk
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
