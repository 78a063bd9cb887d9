"""A run directory: where one run, and no other, keeps its files."""

import contextlib
import functools
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from src.kindling.errors import InputError, nearest_path, printable
from src.kindling.files import bounded, run_lock, run_log, run_record
from src.kindling.files.atomic_write import write_text
from src.kindling.layout import BEST, LAST, Plain, command_line
from src.kindling.process import ranks

FOLDERS = ("checkpoints", "figures", "tensorboard", "workers")  # the last one of a study
FILES = ("config.yaml", "run.json", "run.log", "metrics.csv", "metrics.json", ".lock", BEST, LAST)
Recorded = Callable[..., AbstractContextManager[Plain]]


def new_path(log_dir: str, command: str, model: str) -> Path:
    """Choose `<log_dir>/<command>/<model>/<date_time>-<unique>` without creating it.

    A launched rank gets the directory of its run.
    """
    if run := ranks.inherited_run():
        return run
    unique = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(4)}"
    return Path(log_dir) / command / model / unique


# Opening one --------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(run: Path, settings: Plain, links: Iterable[Path] = (), **facts: Any) -> Iterator[Plain]:
    """Create a run directory; lock it, link to it, and record the run until the block ends.

    A launched rank does none of this: it only leaves the traceback of its failure in run.log.

    Args:
        run: the directory, which must not exist.
        settings: the content of config.yaml.
        links: links to point to this run, such as `<log_dir>/latest`.
        facts: additional content of run.json.

    Yields:
        The content of run.json; additions are written at the end.

    Raises:
        InputError: the directory cannot be created.
    """
    create(run)
    with run_lock.locked(run), _recorded(run, settings, links, **facts) as record:
        yield record


@contextlib.contextmanager
def reopened(run: Path) -> Iterator[Recorded]:
    """Lock an existing run directory; nothing in it changes before the record begins.

    Yields:
        A function of `settings` and further facts: the context manager of the record, as `opened`.

    Raises:
        InputError: another process is training in it.
    """
    with run_lock.locked(run):
        yield functools.partial(_recorded, run)


@contextlib.contextmanager
def _recorded(
    run: Path, settings: Plain, links: Iterable[Path] = (), **facts: Any
) -> Iterator[Plain]:
    if ranks.is_launched():
        with run_log.recorded_by_first(run):
            yield {}
        return
    write_config(run, settings)
    for link in links:
        link_to(run, link)
    with ranks.exported(run), run_record.record_run(run, **facts) as record:
        yield record


def create(run: Path) -> None:
    """Create a run directory for this run alone; launched ranks use the one of their run.

    Raises:
        InputError: it exists, or the place cannot be written to.
    """
    if ranks.is_launched():
        return
    try:
        run.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{run} cannot be created: {bounded.reason(error)}") from None


def is_writable(run: Path) -> bool:
    """Return whether this process may write in a run directory."""
    folders = [run, *(p for p in (run / "checkpoints", run / "tensorboard") if p.is_dir())]
    return all(os.access(folder, os.W_OK) for folder in folders)


def copy(run: Path, target: Path) -> None:
    """Copy the files that a run is resumed from; other folders are left out.

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


def check_parts(run: Path) -> None:
    """Refuse a run directory that has a link, pipe, device, or folder among its files.

    A run writes none of these. Through a link, a command would read or write outside the directory.
    """
    for path in _parts(run):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:  # a file that the run has replaced meanwhile
            continue
        if stat.S_ISLNK(mode):
            raise InputError(
                f"{path} is a link, and links in here are not followed; `cp -rL` copies a directory"
                " that you trust without them"
            )
        if not (stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and path.name not in FILES)):
            raise InputError(f"{path} is not a regular file, and is not opened")


def _parts(run: Path) -> Iterator[Path]:
    yield from run.iterdir()
    for name in FOLDERS:  # links among them are refused above, before they are entered
        for folder, folders, files in os.walk(run / name):
            yield from (Path(folder, part) for part in [*folders, *files])


# Finding one --------------------------------------------------------------------------------------


def find(run: str, log_dir: str) -> Path:
    """Return the directory of a run: `latest` of `log_dir`, or a path.

    Raises:
        InputError: there is none, or it holds what no run writes (`check_parts`).
    """
    if "://" in run:
        raise InputError(f"{run}: only runs and checkpoints on this machine are read")
    path = latest(Path(log_dir)) if run == "latest" else Path(run)
    if not exists(path):
        near = nearest_path(Path(log_dir, run)) or nearest_path(Path(run))
        raise InputError(f"{run}: there is no such run directory{near}")
    if path.is_symlink():  # later messages should name the run itself
        path = target(path)
    if not (path / "config.yaml").exists():
        raise InputError(f"{run} is not a run directory: it has no config.yaml")
    check_parts(path)
    return path


def target(link: Path) -> Path:
    """Return the run directory that a link of `link_to` leads to."""
    return Path(os.path.normpath(link.parent / os.readlink(link)))


def latest(log_dir: Path) -> Path:
    """Return `<log_dir>/latest`, or the newest training run where there is no such link.

    Raises:
        InputError: there is no run.
    """
    link = log_dir / "latest"
    if exists(link):
        return link
    runs = [] if link.is_symlink() else [p.parent for p in log_dir.glob("train/*/*/config.yaml")]
    if not runs:
        train = command_line("train", log_dir=str(log_dir))
        raise InputError(f"{link}: there is no run yet; `{train}` makes one")
    return max(runs, key=run_record.started)


def exists(path: Path) -> bool:
    """Return whether a file or folder exists; False for a name too long for any file."""
    try:
        return path.exists()
    except OSError:
        return False


def find_checkpoint(run: str, log_dir: str) -> Path:
    """Return a checkpoint: the file itself, or a run's best one, or else its last.

    Raises:
        InputError: there is none.
    """
    if run.endswith(".ckpt") and "://" not in run:
        path = Path(run)
        if not exists(path) or not path.is_file():
            raise InputError(f"{run}: there is no such checkpoint file{nearest_path(path)}")
        if (owner := path.absolute().parent.parent / "config.yaml").exists():
            check_parts(owner.parent)
        return path
    folder = find(run, log_dir) / "checkpoints"
    for name in (BEST, LAST):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder.parent} has no checkpoint: it was stopped before its first one")


# Links and config.yaml ----------------------------------------------------------------------------


def link_to(run: Path, link: Path) -> None:
    """Make a relative link to a run, replacing an existing link in one step."""
    temporary = link.with_name(f".{link.name}-{secrets.token_hex(3)}")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary.symlink_to(os.path.relpath(run, link.parent), target_is_directory=True)
        os.replace(temporary, link)
    except OSError as error:  # Windows lets only some users make links
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
            # A link to another run would be wrong; without a link, `latest` finds the newest run.
            if link.is_symlink():
                link.unlink()
        why = bounded.reason(error)
        print(printable(f"warning: {link} was not updated ({why}); name runs by their directory"))


def write_config(run: Path, config: Plain) -> None:
    """Write config.yaml, plain YAML."""
    text = yaml.dump(config, Dumper=bounded.Dumper, sort_keys=False, allow_unicode=True)
    write_text(run / "config.yaml", text)
