"""A run directory: where one run, and no other, keeps what it made."""

import os
import secrets
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from src.kindling.errors import InputError
from src.kindling.files.atomic_write import write_atomically

VARIABLE = "KINDLING_RUN_DIRECTORY"  # tells the processes that a run starts where it is


def new_path(log_dir: str, command: str, model: str) -> Path:
    """Choose `<log_dir>/<command>/<model>/<date_time>-<unique>`; nothing is made yet.

    A process that another run started (a rank of data-parallel training) gets that run's.
    """
    if is_launched_rank():
        return Path(os.environ[VARIABLE])
    unique = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(4)}"
    return Path(log_dir) / command / model / unique


def create(run: Path) -> None:
    """Make the directory, for this run alone, and tell the processes that it will start.

    Raises:
        InputError: the place cannot be written to.
    """
    if is_launched_rank():
        return
    try:
        run.mkdir(parents=True)  # fails if it exists: a run never shares
    except OSError as error:
        raise InputError(f"{run} cannot be made: {error.strerror or error}") from None
    export_to_ranks(run)


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


def export_to_ranks(run: Path) -> None:
    """Tell the processes that this run will start where it is."""
    os.environ[VARIABLE] = str(run)


def inherited_run() -> Path | None:
    """Return the directory of the run that started this process as a further rank, if one did."""
    return Path(os.environ[VARIABLE]) if is_launched_rank() else None


def is_launched_rank() -> bool:
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
    if run == "latest" and not exists(path):
        raise InputError(f"{path}: there is no run yet; `python -m src.train` makes one")
    if not exists(path):
        raise InputError(f"{run}: there is no such run directory")
    if path.is_symlink():  # what is said later should name the run itself
        path = Path(os.path.normpath(path.parent / os.readlink(path)))
    if not (path / "config.yaml").is_file():
        raise InputError(f"{run} is no run directory: it has no config.yaml")
    return path


def exists(path: Path) -> bool:
    """Return whether a file is there; a name too long for any file is not."""
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
        if not exists(Path(run)) or not Path(run).is_file():
            raise InputError(f"{run}: there is no such checkpoint file")
        return Path(run)
    folder = find(run, log_dir) / "checkpoints"
    for name in ("best.ckpt", "last.ckpt"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder.parent} has no checkpoint: it was stopped before its first one")


def link_latest(run: Path, log_dir: str) -> None:
    """Make `<log_dir>/latest` a relative link to a run, replacing the old one in one move."""
    link_to(run, Path(log_dir) / "latest")


def link_to(run: Path, link: Path) -> None:
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
    write_text(run / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    write_atomically(path, text.encode())
