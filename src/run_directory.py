"""A run directory: where one run, and no other, keeps what it made."""

import contextlib
import functools
import json
import math
import os
import platform
import secrets
import shutil
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import yaml

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from src import stopping
from src.atomic_write import remove_leftovers, write_atomically
from src.config import InputError, first_line

PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "tensorboard", "numpy")
VARIABLE = "KINDLING_RUN_DIRECTORY"  # tells the processes that a run starts where it is


def new_path(log_dir: str, command: str, model: str) -> Path:
    """Choose `<log_dir>/<command>/<model>/<date_time>-<unique>`; nothing is made yet.

    A process that another run started (a rank of data-parallel training) gets that run's.
    """
    if is_child():
        return Path(os.environ[VARIABLE])
    unique = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(4)}"
    return Path(log_dir) / command / model / unique


def create(run: Path) -> None:
    """Make the directory, for this run alone, and tell the processes that it will start.

    Raises:
        InputError: the place cannot be written to.
    """
    if is_child():
        return
    try:
        run.mkdir(parents=True)  # fails if it exists: a run never shares
    except OSError as error:
        raise InputError(f"{run} cannot be made: {error.strerror or error}") from None
    announce(run)


@contextlib.contextmanager
def held(run: Path) -> Iterator[None]:
    """Keep other processes from training in a run directory; the lock dies with its owner.

    Further ranks of a run need none: their first rank holds it. Windows has no such lock, nor has a
    network drive without a lock service: there two processes are told nothing of each other. What a
    killed process has left behind is removed.

    Raises:
        InputError: another process trains in it.
    """
    if is_child() or fcntl is None:
        yield
        return
    path = run / ".lock"
    file = _locked(path)
    try:
        remove_leftovers(run)
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        if file is not None:
            file.close()


def _locked(path: Path) -> Any:
    """Open and lock a file; None, with a warning, where the file system has no locks."""
    while True:
        file = path.open("w")
        try:
            # Of this process alone, unlike flock's, which a loader's worker would go on holding.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise InputError(f"{path.parent}: another process is training this run") from None
        except OSError as error:
            print(f"warning: {path} is no lock here ({error.strerror}): start no second process")
            file.close()
            return None
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()  # the owner before has just removed it: another process may lock a new one


def is_writable(run: Path) -> bool:
    """Say whether this process may write in a run directory."""
    folders = [run, *(p for p in (run / "checkpoints", run / "tensorboard") if p.is_dir())]
    return all(os.access(folder, os.W_OK) for folder in folders)


def copy(run: Path, target: Path) -> None:
    """Copy what a run goes on from; links and whatever else lies there stay where they are.

    Raises:
        InputError: the place cannot be written to.
    """
    create(target)
    for folder in (run, run / "checkpoints", run / "tensorboard"):
        to = target / folder.relative_to(run)
        to.mkdir(exist_ok=True)
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_file() and not path.is_symlink() and path.name != ".lock":
                shutil.copyfile(path, to / path.name)


def announce(run: Path) -> None:
    """Tell the processes that this run will start where it is."""
    os.environ[VARIABLE] = str(run)


def started() -> Path | None:
    """Return the directory of the run that started this process as a further rank, if one did."""
    return Path(os.environ[VARIABLE]) if is_child() else None


def is_child() -> bool:
    """Say whether this process is a further rank of a run that another process started."""
    return VARIABLE in os.environ and int(os.environ.get("LOCAL_RANK", "0")) > 0


def find(run: str, log_dir: str) -> Path:
    """Return the directory of a run: `latest` of `log_dir`, or a path.

    Raises:
        InputError: there is none.
    """
    if "://" in run:
        raise InputError(f"{run}: only runs and checkpoints on this machine are read")
    path = Path(log_dir) / "latest" if run == "latest" else Path(run)
    if run == "latest" and not _exists(path):
        raise InputError(f"{path}: there is no run yet; `python -m src.train` makes one")
    if not _exists(path):
        raise InputError(f"{run}: there is no such run directory")
    if path.is_symlink():  # what is said later should name the run itself
        path = Path(os.path.normpath(path.parent / os.readlink(path)))
    if not (path / "config.yaml").is_file():
        raise InputError(f"{run} is no run directory: it has no config.yaml")
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long for any file
        return False


def find_checkpoint(run: str, log_dir: str) -> Path:
    """Return a checkpoint: the file itself, or a run's best one, or else its last.

    Raises:
        InputError: there is none.
    """
    if run.endswith(".ckpt") and "://" not in run:
        if not _exists(Path(run)) or not Path(run).is_file():
            raise InputError(f"{run}: there is no such checkpoint file")
        return Path(run)
    folder = find(run, log_dir) / "checkpoints"
    for name in ("best.ckpt", "last.ckpt"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder.parent} has no checkpoint: it was stopped before its first one")


def point_latest_at(run: Path, log_dir: str) -> None:
    """Make `<log_dir>/latest` a relative link to a run, replacing the old one in one move."""
    point_at(run, Path(log_dir) / "latest")


def point_at(run: Path, link: Path) -> None:
    """Make a relative link to a run, replacing what the link was in one move."""
    temporary = link.with_name(f".{link.name}-{secrets.token_hex(3)}")
    try:
        temporary.symlink_to(os.path.relpath(run, link.parent), target_is_directory=True)
        os.replace(temporary, link)
    except OSError as error:  # Windows lets only some users make links
        temporary.unlink(missing_ok=True)
        print(f"warning: {link} was not renewed ({error}); name runs by their directory")


def write_config(run: Path, config: dict[str, Any]) -> None:
    """Write config.yaml: plain YAML, nothing left to interpolate."""
    _write(run / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def read_config(run: Path) -> Any:
    """Read config.yaml back as plain data.

    Raises:
        InputError: it is no YAML.
    """
    try:
        return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise InputError(f"{run}/config.yaml cannot be read: {first_line(error)}") from None


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all; a number that is none is null, as JSON has no nan."""
    _write(path, json.dumps(_strict(content), indent=2, allow_nan=False) + "\n")


def _strict(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _strict(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_strict(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())


@contextlib.contextmanager
def recorded(run: Path, device: str, **more: Any) -> Iterator[dict[str, Any]]:
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
    with _log(run / "run.log") as log:
        write_json(run / "run.json", record)

        def end(failure: str | None) -> bool:  # the process ends without unwinding
            log.write(f"{failure}\n" if failure else "")
            log.flush()
            status = "failed" if failure else "stopped"
            write_json(run / "run.json", record | {"status": status, "end": now()})
            return False

        try:
            with _copied(log), stopping.last_act(end):
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
            stopping.ended()
            # A full disk must not hide the first error; a signal has nothing more to stop.
            with contextlib.suppress(OSError), stopping.last_act(lambda failure: True):
                write_json(run / "run.json", record)


@contextlib.contextmanager
def _log(path: Path) -> Iterator[TextIO]:
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
    try:
        before = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(before, dict):
        return []
    earlier = before.get("earlier")
    told = {key: before.get(key) for key in ("command", "git", "start", "end", "status")}
    return [*(earlier if isinstance(earlier, list) else []), told]


def is_finished(run: Path) -> bool:
    """Say whether run.json says that the run came to its end."""
    try:
        return bool(json.loads((run / "run.json").read_text())["status"] == "finished")
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def now() -> str:
    """Return the local time with its offset, ISO 8601, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def git_state() -> dict[str, Any] | None:
    """Return the commit and whether files differ from it; None outside a git checkout."""
    root = Path(__file__).resolve().parent.parent
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
