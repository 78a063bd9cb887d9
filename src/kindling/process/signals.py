"""SIGINT, SIGTERM, SIGHUP, and SIGUSR1, from a command's first import to its last line.

A signal ends a command at once with one line, except during training steps: then it is recorded,
and `callbacks/signals.py` stops the run after the current step. Python's default, an exception
wherever the program happens to be, ends in tracebacks, and imports swallow it.
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
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from src.kindling.process import ranks

# Exit status by signal; Windows lacks the last two.
STATUS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 0}
SIGNALS = [getattr(signal, name) for name in STATUS if hasattr(signal, name)]
PATIENCE = 1.0  # seconds for which the main thread may wait in a library, deaf to a signal

# Takes the error line, or None after a signal; returns whether it has told the user.
ExitAct = Callable[[str | None], bool]


@dataclass
class _State:
    """The signals of this process so far, and what to do when it ends."""

    arrived: list[int] = field(default_factory=list)  # the signals so far
    deferred: bool = False  # training checks `pending_signal` after each step
    acts: list[ExitAct] = field(default_factory=list)  # done if the process exits at once
    run_ended: bool = False
    exiting: threading.Lock = field(default_factory=threading.Lock)


_state = _State()


def install_handlers(last: ExitAct | None = None) -> None:
    """Take over the signals for the rest of this process; commands do, notebooks do not.

    Args:
        last: called last if the process exits at once.
    """
    for number in _unignored():
        signal.signal(number, _arrived)
    atexit.register(_ignore)
    _state.acts += [last] if last else []
    if os.name != "posix":
        return
    # The byte is written as soon as a signal arrives, even while the main thread waits in a
    # library (for another rank, say) and Python's own handler cannot run.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True).start()
    # A loader's worker process lives until the loader ends it: Ctrl-C reaches it too.
    os.register_at_fork(after_in_child=_restore_in_worker)


def _unignored() -> list[int]:
    """Return the signals to handle: all except SIGHUP under nohup."""
    hangup = getattr(signal, "SIGHUP", None)
    kept = hangup is not None and signal.getsignal(hangup) == signal.SIG_IGN
    return [number for number in SIGNALS if not (kept and number == hangup)]


def _ignore() -> None:
    """Ignore signals during interpreter shutdown, so that the exit status stands."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _restore_in_worker() -> None:
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)


def pending_signal() -> int:
    """Return the number of the signal that asks the run to stop after this step; 0 for none."""
    return _state.arrived[0] if _state.arrived else 0


def status(number: int) -> int:
    """Return the exit status of a run that a signal has stopped."""
    return STATUS[signal.Signals(number).name]


class Stopped(SystemExit):
    """A signal stopped a run in an orderly way.

    Args:
        number: the signal; its exit status becomes the process's.
        how: what was stopped and saved, for the user.
    """

    def __init__(self, number: int, how: str) -> None:
        super().__init__(status(number))
        self.how = how


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Only record a first signal; the caller checks `pending_signal` after each step.

    Takes over the signals if `install_handlers` has not; a second Ctrl-C is then a
    KeyboardInterrupt.
    """
    main = threading.current_thread() is threading.main_thread()
    before: dict[int, Any] = {}
    if main and signal.getsignal(signal.SIGINT) is not _arrived:
        _state.arrived.clear()
        before = {number: signal.signal(number, _record) for number in _unignored()}
    _state.deferred = True
    try:
        yield
    finally:
        _state.deferred = False
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def at_exit(act: ExitAct) -> Iterator[None]:
    """Register a function to call if the process exits at once; the last registered runs first.

    Args:
        act: takes the error line, or None after a signal; returns whether it has told the user.
    """
    _state.acts.append(act)
    try:
        yield
    finally:
        _state.acts.remove(act)


def silent(failure: str | None) -> bool:
    """Do nothing: for `at_exit`, if the user has already been told."""
    return True


def mark_finished() -> None:
    """Record that a run has ended: a signal from now on is not an early stop."""
    _state.run_ended = True


def _record(number: int, frame: FrameType | None) -> None:
    _state.arrived.append(number)
    if number == signal.SIGINT and len(_state.arrived) > 1:
        raise KeyboardInterrupt


def _arrived(number: int, frame: FrameType | None) -> None:
    _state.arrived.append(number)
    if _ends_at_once(number, len(_state.arrived)):
        exit_for_signal(number)


def _ends_at_once(number: int, count: int) -> bool:
    """Return whether a signal, the count-th of this process, ends it without waiting for a step."""
    if count > 1:  # already stopping; only Ctrl-C makes it stop at once
        return number == signal.SIGINT
    return not _state.deferred


def _watch(reader: int) -> None:
    """Do what `_arrived` would while the main thread does not run Python code."""
    count = 0
    while True:
        number = os.read(reader, 1)[0]
        if number not in SIGNALS:
            continue
        count += 1
        time.sleep(PATIENCE)
        is_deaf = len(_state.arrived) < count
        if is_deaf and _ends_at_once(number, count):
            exit_for_signal(number)
        if _state.exiting.locked():  # blocked: nobody reads its output, say
            time.sleep(2 * PATIENCE)
            os._exit(status(number))


def exit_for_signal(number: int) -> None:
    """End the process at once because of a signal."""
    _state.arrived = _state.arrived or [number]  # the main thread may not have recorded it yet
    exit_now(status(number), signal_number=number)


def exit_now(code: int, failure: str | None = None, signal_number: int = 0) -> None:
    """End the process without unwinding, which nothing can swallow, after the registered acts.

    Args:
        code: its exit status.
        failure: what went wrong, in one line; None after a signal.
        signal_number: that signal.
    """
    if not _state.exiting.acquire(blocking=False):  # already exiting
        return
    told = ranks.number() > 0 and not ranks.has_own_console()  # rank 0 prints for all
    if failure is not None:
        told = _tried(lambda: say(f"error: {failure}", sys.__stderr__))
    for act in reversed(_state.acts):
        told = _tried(functools.partial(act, failure)) or told
    if not told:
        _tried(lambda: say_nothing_is_saved(signal_number))
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        sys.stdout.flush()
    os._exit(code)


def _tried(act: Callable[[], bool]) -> bool:
    # The signal may have interrupted a print, which is not reentrant; a disk may be full.
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        return act()
    return False


def say_nothing_is_saved(number: int) -> bool:
    """Report a signal that came before or after a run; a requeue is not an error."""
    prefix = "error: " if status(number) else ""
    when = "" if _state.run_ended else " before anything was saved"
    return say(f"{prefix}interrupted{when}", sys.__stderr__)


def say(line: str, stream: Any = None) -> bool:
    """Print a line, even from within another print; return that the user has been told."""
    stream = stream or sys.stdout
    try:
        print(line, file=stream, flush=True)
    except RuntimeError:
        os.write(2 if stream is sys.__stderr__ else 1, f"{line}\n".encode())
    return True
