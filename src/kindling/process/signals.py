"""Ctrl-C, SIGTERM and SIGUSR1, from a command's first import to its last line.

A signal ends a command at once, in one line, except while training takes its steps: then it is
noted, and `callbacks/signals.py` stops the run after the step that is under way. Python's own way,
an exception wherever the program happens to be, ends in tracebacks, and imports swallow it.
"""

import atexit
import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

STATUS = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 0}  # exit status; Windows lacks the last one
SIGNALS = [getattr(signal, name) for name in STATUS if hasattr(signal, name)]
PATIENCE = 1.0  # seconds that the main thread may be deaf, waiting in a library, to a signal

_noted: list[int] = []  # the signals that have come
_stepping = False  # someone looks at `noted()` after each step
# Is given what failed, or None where a signal has come; returns whether it has said how that ended.
LastAct = Callable[[str | None], bool]
_last_acts: list[LastAct] = []  # what is done and said before the process ends without unwinding
_ended = False  # a run has come to its end
_ending = threading.Lock()


def install_handlers() -> None:
    """Take over the signals for the rest of this process; commands do, notebooks do not."""
    for number in SIGNALS:
        signal.signal(number, _arrived)
    atexit.register(_end)
    if os.name != "posix":
        return
    # The byte is written the moment that a signal comes, even while the main thread waits in a
    # library (for another rank, say) and Python's own handler cannot run.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True).start()
    # A loader's worker process lives on until the loader ends it: Ctrl-C reaches it too.
    os.register_at_fork(after_in_child=_hand_back)


def _end() -> None:
    """Let what the command has come to stand: Python's own end would die of a signal."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _hand_back() -> None:
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)


def pending_signal() -> int:
    """Return the number of the signal that asks the run to stop after this step; 0 for none."""
    return _noted[0] if _noted else 0


def status(number: int) -> int:
    """Return the exit status of a run that a signal has stopped."""
    return STATUS[signal.Signals(number).name]


class Stopped(SystemExit):
    """A run was stopped by a signal, in order.

    Args:
        number: the signal; its exit status becomes the process's.
        how: what was stopped and saved, for the user.
    """

    def __init__(self, number: int, how: str) -> None:
        super().__init__(status(number))
        self.how = how


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Only note a first signal; whoever asks for this looks at `noted()` after each step.

    Takes the signals over where `listen` has not; a second Ctrl-C is then a KeyboardInterrupt.
    """
    global _stepping
    main = threading.current_thread() is threading.main_thread()
    before: dict[int, Any] = {}
    if main and signal.getsignal(signal.SIGINT) is not _arrived:
        _noted.clear()
        before = {number: signal.signal(number, _only_noted) for number in SIGNALS}
    _stepping = True
    try:
        yield
    finally:
        _stepping = False
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def at_exit(act: LastAct) -> Iterator[None]:
    """Have something done or said, should the process end at once meanwhile; the newest first."""
    _last_acts.append(act)
    try:
        yield
    finally:
        _last_acts.remove(act)


def mark_finished() -> None:
    """Say that a run has come to its end: a signal from now on is not too early for it."""
    global _ended
    _ended = True


def _only_noted(number: int, frame: FrameType | None) -> None:
    _noted.append(number)
    if number == signal.SIGINT and len(_noted) > 1:
        raise KeyboardInterrupt


def _arrived(number: int, frame: FrameType | None) -> None:
    _noted.append(number)
    again = len(_noted) > 1  # then a stop is under way already, and only Ctrl-C hastens it
    if number == signal.SIGINT if again else not _stepping:
        exit_for_signal(number)


def _watch(reader: int) -> None:
    """Do what `_arrived` would, where the main thread does not come to it."""
    came = 0
    while True:
        number = os.read(reader, 1)[0]
        if number not in SIGNALS:
            continue
        came += 1
        time.sleep(PATIENCE)
        deaf = len(_noted) < came
        if deaf and (number == signal.SIGINT if came > 1 else not _stepping):
            exit_for_signal(number)
        if _ending.locked():  # and cannot end: the reader of its output has stopped, say
            time.sleep(2 * PATIENCE)
            os._exit(status(number))


def exit_for_signal(number: int) -> None:
    """End the process at once because of a signal."""
    exit_now(status(number), signal_number=number)


def exit_now(code: int, failure: str | None = None, signal_number: int = 0) -> None:
    """End the process without unwinding, which nothing can swallow, after the last acts.

    Args:
        code: its exit status.
        failure: what went wrong, in a line; None where a signal has come.
        signal_number: that signal.
    """
    if not _ending.acquire(blocking=False):  # it is on its way out
        return
    said = os.environ.get("LOCAL_RANK", "0") != "0"  # the first rank speaks for all
    if failure is not None:
        said = _tried(lambda: say(f"error: {failure}", sys.__stderr__))
    for act in reversed(_last_acts):
        said = _tried(functools.partial(act, failure)) or said
    if not said:
        _tried(lambda: say_nothing_is_saved(signal_number))
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        sys.stdout.flush()
    os._exit(code)


def _tried(act: Callable[[], bool]) -> bool:
    # The signal may have come amid a print, which cannot be entered twice; a disk may be full.
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        return act()
    return False


def say_nothing_is_saved(number: int) -> bool:
    """Say that a signal came before a run, or after it; one that asks for a requeue is no error."""
    prefix = "error: " if status(number) else ""
    when = "" if _ended else " before anything was saved"
    return say(f"{prefix}interrupted{when}", sys.__stderr__)


def say(line: str, stream: Any = None) -> bool:
    """Print a line, even from amid another print; return that it is said."""
    stream = stream or sys.stdout
    try:
        print(line, file=stream, flush=True)
    except RuntimeError:
        os.write(2 if stream is sys.__stderr__ else 1, f"{line}\n".encode())
    return True
