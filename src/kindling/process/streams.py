"""Reopen closed standard streams (`>&- 2>&-`); escape characters that standard output lacks."""

import os
import sys


def reopen_closed() -> None:
    """Connect closed standard streams to the null device.

    Python sets such a stream to None, and the next file that is opened would get its descriptor:
    library output would end up in that file.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            _occupy(descriptor)
            stream = open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def escape_unencodable() -> None:
    """Print what a strict standard output cannot encode, such as a path in another encoding."""
    if getattr(sys.stdout, "errors", None) == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def reader_has_left() -> bool:
    """Return whether standard output is a pipe that nobody reads any more (`| head -1`)."""
    if os.name != "posix":
        return True
    import select

    look = select.poll()
    look.register(1, 0)  # only errors and hang-ups
    return bool(look.poll(0))


def _occupy(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
