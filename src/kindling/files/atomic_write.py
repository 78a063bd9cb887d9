"""Write files whole or not at all; imports no torch, so that commands start fast."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".*.tmp"  # a killed process leaves at most one such file


def write_atomically(
    target: Path, content: bytes | memoryview, previous: Path | None = None
) -> None:
    """Replace a file atomically and durably: readers and crashes see the old file or the new one.

    A link in place of the file is replaced, not followed.

    Args:
        target: the file.
        content: its new content.
        previous: a name in the same folder under which the old file is kept; None drops it.

    Raises:
        OSError: the directory cannot be written to, or the disk is full; the old file stays.
    """
    with _temporary(target) as name:
        # With the permissions that the umask allows: these files are meant to be shared.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with open(os.open(name, flags, 0o666), "wb", buffering=0) as file:
            left = memoryview(content)
            while left:  # a write may be partial
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        _replace(name, target, previous)


def write_text(path: Path, text: str) -> None:
    """Replace a file by new text, as `write_atomically` does."""
    write_atomically(path, text.encode())


def name_atomically(target: Path, source: Path, previous: Path | None = None) -> None:
    """Replace a file atomically by a hard link to another one.

    Replacing either name later does not change the other. On a file system without hard links the
    content is written a second time.

    Args:
        target: the file.
        source: a whole file in the same folder.
        previous: a name in the same folder under which the old file is kept; None drops it.

    Raises:
        OSError: the directory cannot be written to, or the disk is full; the old file stays.
    """
    with _temporary(target) as name:
        try:
            os.link(source, name)
        except OSError:
            linked = False
        else:
            linked = True
            _replace(name, target, previous)
    if not linked:
        write_atomically(target, source.read_bytes(), previous)


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[str]:
    """Choose a temporary name in the folder of a file; remove the temporary file on failure."""
    # Not named after the target: TensorBoard would take it for an event file.
    name = f"{target.parent}/.{secrets.token_hex(4)}.tmp"
    try:
        with naming(target):
            yield name
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Add the file to an error of writing that names none, such as that of a full disk.

    Raises:
        OSError: the error of the block, with the file.
    """
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _replace(name: str, target: Path, previous: Path | None) -> None:
    """Rename a file over another, and fsync the folder."""
    if previous is not None:
        _keep(target, previous)
    os.replace(name, target)
    Path(name).unlink(missing_ok=True)  # rename(2) does nothing if both are hard links to one file
    if os.name == "posix":  # the rename itself is durable once the directory is on disk
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _keep(target: Path, previous: Path) -> None:
    """Give a file a second name, which stays when the first is replaced.

    With hard links both names always exist. Without them the file is renamed: until the new one
    takes its place, only the second name exists.
    """
    if not target.exists():
        return
    previous.unlink(missing_ok=True)
    try:
        os.link(target, previous)
    except OSError:
        os.replace(target, previous)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder or below it."""
    for path in folder.rglob(TEMPORARY):
        with contextlib.suppress(OSError):
            path.unlink()
