"""run.json: how a run was started, and how it ended."""

import contextlib
import functools
import json
import math
import platform
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from src.kindling import layout
from src.kindling.config import masking
from src.kindling.files import bounded, run_lock, run_log
from src.kindling.files.atomic_write import write_text
from src.kindling.process import signals

PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "tensorboard", "numpy")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically; NaN and infinity become null, since JSON has neither."""
    write_text(path, json.dumps(json_safe(content), indent=2, allow_nan=False) + "\n")


def json_safe(content: Any) -> Any:
    """Return nested dictionaries and lists with None in place of NaN and infinity."""
    if isinstance(content, dict):
        return {key: json_safe(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [json_safe(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


# Writing ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def record_run(run: Path, device: str, **facts: Any) -> Iterator[dict[str, Any]]:
    """Keep run.json and run.log during a run, and record in run.json how it ended.

    Args:
        run: the run directory.
        device: the device that it runs on.
        facts: further content of run.json.

    Yields:
        The content of run.json; additions are written at the end.
    """
    record = _begun(device) | facts
    if earlier := _earlier(run):
        record["earlier"] = earlier
    with run_log.opened(run / "run.log") as log:
        write_json(run / "run.json", record)
        at_once = functools.partial(_ended_at_once, run, record, log)
        try:
            with run_log.copied(log), signals.at_exit(at_once):
                yield record
            record["status"] = "finished"
        except BaseException as error:
            record["status"] = status_after(error)
            if record["status"] == "failed":
                error.run_log = run / "run.log"  # type: ignore[attr-defined]
                with contextlib.suppress(OSError):
                    log.write(masking.redacted(traceback.format_exc()))
            raise
        finally:
            record["end"] = now()
            signals.mark_finished()
            # A full disk must not hide the first error, and a signal must not print a line.
            with contextlib.suppress(OSError), signals.at_exit(signals.silent):
                write_json(run / "run.json", record)


def status_after(error: BaseException) -> str:
    """Return the status of a run that an exception ends: its `run_status`, if it has one."""
    stopped = "stopped" if isinstance(error, SystemExit) else "failed"
    return str(getattr(error, "run_status", stopped))


def _begun(device: str) -> dict[str, Any]:
    return {
        "command": masking.masked_words([sys.executable, *sys.orig_argv[1:]]),
        "config_dirs": [str(folder) for folder in layout.own_folders()],
        "git": git_state(),
        "python": platform.python_version(),
        "versions": _versions(),
        "platform": platform.platform(),
        "device": device,
        "start": now(),
        "end": None,
        "status": "running",
    }


@functools.cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def _ended_at_once(run: Path, record: dict[str, Any], log: TextIO, failure: str | None) -> bool:
    """Record the end of a process that exits without unwinding; see `signals.at_exit`."""
    log.write(masking.redacted(f"{failure}\n") if failure else "")
    log.flush()
    status = "failed" if failure else "stopped"
    write_json(run / "run.json", record | {"status": status, "end": now()})
    return False


def _earlier(run: Path) -> list[Any]:
    """Return how a resumed run was started before, the first time first."""
    before = bounded.record_or_nothing(run)
    if not before:
        return []
    last = {key: before.get(key) for key in ("command", "git", "start", "end", "status")}
    if last["status"] == "running":  # this process holds the lock now
        last["status"] = "killed"
    return [*before.get("earlier", []), last]


# Reading ------------------------------------------------------------------------------------------


def status(run: Path, record: dict[str, Any]) -> str:
    """Return how a run ended: finished, stopped, failed, or killed; running if it has not ended.

    A killed process could not record its end: its run.json says `running`, and nobody holds the
    lock.
    """
    recorded = str(record.get("status", "unknown"))
    return "killed" if recorded == "running" and not run_lock.is_held(run) else recorded


def is_finished(run: Path) -> bool:
    """Return whether run.json says that the run came to its end."""
    return bounded.record_or_nothing(run).get("status") == "finished"


def folders_advice(source: Path) -> str:
    """Say how to add the folders that a run was trained with, as its run.json names them.

    Args:
        source: the run's config.yaml, or a checkpoint of it.

    Returns:
        The end of an error line; empty if there are none.
    """
    for run in (source.parent, source.parent.parent):
        if words := folder_words(run):
            return f"; if that folder is yours, add {words}, which the run was trained with"
    return ""


def folder_words(run: Path) -> str:
    """Return the arguments that add the folders that a run was trained with, quoted for a shell.

    A run.json from elsewhere is not a reason to trust a folder; none inside the run is named.
    """
    listed = bounded.record_or_nothing(run).get("config_dirs", [])
    given = [folder for folder in listed if isinstance(folder, str) and folder.isprintable()]
    folders = [f for f in given if not Path(f).resolve().is_relative_to(run.resolve())]
    return shlex.join(layout.folder_arguments(folders))


def started(run: Path) -> tuple[float, str]:
    """Return a key that sorts run directories by their start, whatever the time zone of each.

    The directory's name settles a tie; without a readable run.json, the time of config.yaml counts.
    """
    try:
        start = datetime.fromisoformat(str(bounded.record_or_nothing(run)["start"])).timestamp()
    except (LookupError, ValueError, OverflowError, OSError):
        start = (run / "config.yaml").stat(follow_symlinks=False).st_mtime
    return start, run.name


def now() -> str:
    """Return the local time with its UTC offset, in ISO 8601, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def git_state() -> dict[str, Any] | None:
    """Return the commit and whether files differ from it; None outside a git checkout."""
    try:
        commit, dirty = (
            subprocess.run(
                # Without git's lock: the user's git may be running, and this process may be killed.
                ["git", "--no-optional-locks", *arguments],
                cwd=layout.CONF.parent,
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(dirty)}
