"""run.log: what a run has printed, and the tracebacks of what failed."""

import contextlib
import errno
import functools
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from src.kindling.config import masking
from src.kindling.errors import first_line
from src.kindling.files import bounded
from src.kindling.files.atomic_write import naming
from src.kindling.process import ranks

READER_GONE = (errno.EPIPE, errno.EIO)  # of standard output: `| head -1`, a closed terminal


@contextlib.contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Open run.log, which also gets the traceback of a thread that fails."""
    log = bounded.open_append(path)
    console, threading.excepthook = threading.excepthook, functools.partial(_log_failure, log)
    try:
        yield log
    finally:
        threading.excepthook = console
        with contextlib.suppress(OSError):  # a full disk
            log.close()


def _log_failure(log: TextIO, failed: Any) -> None:
    """Write the traceback of a failed thread to the log and, unless it is an OSError, the console.

    TensorBoard's writer passes an OSError to the main thread, which reports it in one line.
    """
    with contextlib.suppress(OSError, ValueError):  # a full disk; a thread that outlives the run
        log.write(masking.redacted("".join(traceback.format_exception(failed.exc_value))))
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)


@contextlib.contextmanager
def recorded_by_first(run: Path) -> Iterator[None]:
    """Leave a launched rank's traceback in run.log, and its error line for rank 0 to print.

    Raises:
        SystemExit: with status 1, if the rank has failed.
    """
    try:
        yield
    except Exception as error:
        ranks.report_failure(f"{type(error).__name__}: {first_line(error)}")
        with bounded.open_append(run / "run.log") as log:
            log.write(masking.redacted(f"rank {ranks.number()}:\n{traceback.format_exc()}"))
        if ranks.has_own_console():
            raise
        raise SystemExit(1) from None


class _Copy:
    """A stream that writes to the console and to run.log; it outlives the console's reader."""

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        shown = masking.redacted(text)
        with naming("run.log"):
            self._log.write(shown)
        with _reader_may_leave(self._stream):
            self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        with naming("run.log"):
            self._log.flush()
        with _reader_may_leave(self._stream):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _reader_may_leave(stream: TextIO) -> Iterator[None]:
    """Redirect a stream to the null device once its reader has gone (`| head -1`)."""
    try:
        yield
    except OSError as error:
        if error.errno not in READER_GONE:
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # its buffer is flushed once more when Python exits
        os.close(nowhere)


@contextlib.contextmanager
def copied(log: TextIO) -> Iterator[None]:
    """Copy standard output and standard error to the log."""
    out, err = _Copy(sys.stdout, log), _Copy(sys.stderr, log)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            out.flush()
            err.flush()
