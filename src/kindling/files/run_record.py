"""run.json and run.log: how a run was started, what it printed, and how it ended."""

import contextlib
import functools
import json
import math
import os
import platform
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from src.kindling import layout
from src.kindling.files import bounded
from src.kindling.files.run_directory import write_text
from src.kindling.process import signals

PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "tensorboard", "numpy")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all; a number that is none is null, as JSON has no nan."""
    write_text(path, json.dumps(json_safe(content), indent=2, allow_nan=False) + "\n")


def json_safe(content: Any) -> Any:
    """Return the content with NaN and infinity as null, which JSON lacks."""
    if isinstance(content, dict):
        return {key: json_safe(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [json_safe(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


@contextlib.contextmanager
def record_run(run: Path, device: str, **more: Any) -> Iterator[dict[str, Any]]:
    """Keep run.json and run.log while a run goes on, and say in run.json how it ended.

    Args:
        run: the run directory.
        device: what it runs on.
        more: what else run.json shall say.

    Yields:
        The content of run.json; what is put in stays in.
    """
    record: dict[str, Any] = {
        "command": [sys.executable, *sys.orig_argv[1:]],
        "config_dirs": [str(folder) for folder in layout.own_folders()],
        "git": git_state(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": device,
        "start": now(),
        "end": None,
        "status": "running",
        **more,
    }
    if earlier := _earlier(run):
        record["earlier"] = earlier
    with _open_log(run / "run.log") as log:
        write_json(run / "run.json", record)

        def end(failure: str | None) -> bool:  # the process ends without unwinding
            log.write(f"{failure}\n" if failure else "")
            log.flush()
            status = "failed" if failure else "stopped"
            write_json(run / "run.json", record | {"status": status, "end": now()})
            return False

        try:
            with _copied(log), signals.at_exit(end):
                yield record
            record["status"] = "finished"
        except SystemExit:
            record["status"] = "stopped"
            raise
        except BaseException as error:
            record["status"] = "failed"
            error.run_log = run / "run.log"  # type: ignore[attr-defined]
            with contextlib.suppress(OSError):
                traceback.print_exc(file=log)
            raise
        finally:
            record["end"] = now()
            signals.mark_finished()
            # A full disk must not hide the first error; a signal has nothing more to stop.
            with contextlib.suppress(OSError), signals.at_exit(lambda failure: True):
                write_json(run / "run.json", record)


@contextlib.contextmanager
def _open_log(path: Path) -> Iterator[TextIO]:
    """Open run.log, which also gets what fails in a thread, and whose disk may fill up."""
    log = path.open("a", encoding="utf-8")
    console, threading.excepthook = threading.excepthook, functools.partial(_failed_aside, log)
    try:
        yield log
    finally:
        threading.excepthook = console
        with contextlib.suppress(OSError):  # nor must it here
            log.close()


def _failed_aside(log: TextIO, failed: Any) -> None:
    """Write a thread's traceback to the log alone, where TensorBoard's could not write.

    Its writer tells the main thread of it, which then says so in one line.
    """
    with contextlib.suppress(OSError):
        traceback.print_exception(failed.exc_value, file=log)
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)


@contextlib.contextmanager
def recorded_by_first(run: Path) -> Iterator[None]:
    """Leave a further rank's traceback in run.log, and the rest to rank 0, which speaks for all.

    Raises:
        SystemExit: with status 1, where the rank has failed.
    """
    try:
        yield
    except Exception:
        with (run / "run.log").open("a", encoding="utf-8") as log:
            rank = os.environ.get("LOCAL_RANK", "?")
            log.write(f"rank {rank}:\n{traceback.format_exc()}")
        raise SystemExit(1) from None


def _earlier(run: Path) -> list[Any]:
    """Return how a run that is resumed was started before, the first time first."""
    if not (before := bounded.record_or_nothing(run)):
        return []
    earlier = before.get("earlier")
    told = {key: before.get(key) for key in ("command", "git", "start", "end", "status")}
    return [*(earlier if isinstance(earlier, list) else []), told]


def is_finished(run: Path) -> bool:
    """Say whether run.json says that the run came to its end."""
    return bounded.record_or_nothing(run).get("status") == "finished"


def now() -> str:
    """Return the local time with its offset, ISO 8601, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def git_state() -> dict[str, Any] | None:
    """Return the commit and whether files differ from it; None outside a git checkout."""
    root = Path(__file__).resolve().parents[3]
    try:
        commit, dirty = (
            subprocess.run(
                # To look takes no lock: the user's own git may be at work, and this may be killed.
                ["git", "--no-optional-locks", *arguments],
                cwd=root,
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(dirty)}


class _Copy:
    """A stream that writes to two files."""

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        self._log.write(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._log.flush()
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _copied(log: TextIO) -> Iterator[None]:
    """Copy to the log what goes to standard output and standard error."""
    out, err = _Copy(sys.stdout, log), _Copy(sys.stderr, log)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield
