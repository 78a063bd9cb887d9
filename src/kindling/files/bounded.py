"""Read files that anybody may have written: regular files of bounded size and depth, as plain data.

A path given here is opened without following a link in its last part and without blocking, so that
neither a link nor a pipe in a run directory reaches anything outside it.
"""

import contextlib
import itertools
import json
import os
import stat
from pathlib import Path
from typing import Any, TextIO

import yaml

from src.kindling.config.untrusted import MAX_DEPTH, MAX_VALUES
from src.kindling.errors import InputError, first_line
from src.kindling.layout import Plain, with_new_targets

LARGEST = 2**20  # bytes of config.yaml, run.json, and metrics.json; this project writes 2**11
# libyaml is several times as fast, and as safe.
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
# Types of values in run.json; a value of another type was not written by a run, and is left out.
KINDS: dict[str, type] = {
    **dict.fromkeys(("git", "versions", "monitor"), dict),
    **dict.fromkeys(("command", "earlier", "config_dirs"), list),
}
SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file, following no link and waiting for no pipe; return its descriptor.

    Raises:
        OSError: the file cannot be opened, or is a link, pipe, device, or folder.
    """
    if path.is_symlink():  # the system's own message, "Too many levels of ...", says less
        raise OSError(None, "is a link, and is not followed", str(path))
    descriptor = os.open(path, flags | SAFE | getattr(os, "O_BINARY", 0), 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "is not a regular file", str(path))
    return descriptor


def open_append(path: Path) -> TextIO:
    """Open a text file to add to it, as `open_regular` does, creating it if necessary.

    Raises:
        OSError: the file cannot be opened, or is a link, pipe, device, or folder.
    """
    descriptor = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return open(descriptor, "a", encoding="utf-8")


def read_text(path: Path, largest: int = LARGEST) -> str | None:
    """Return the content of a text file; None if there is no such file.

    Raises:
        InputError: it is larger than a run's would be, not UTF-8 text, or not a regular file.
    """
    try:
        with open(open_regular(path), "rb") as file:
            content = file.read(largest + 1)
        if len(content) > largest:
            raise InputError(f"{path} is larger than any file that a run writes")
        return content.decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from None


def reason(error: BaseException) -> str:
    """Return why a file operation failed, without the path that the message begins with."""
    return getattr(error, "strerror", None) or first_line(error)


def read_config(path: Path) -> Plain:
    """Return a configuration file as plain data, with renamed targets replaced.

    Raises:
        InputError: it is missing, is not a mapping in YAML, or is larger than a run's would be.
    """
    if (text := read_text(path)) is None:
        raise InputError(f"{path} cannot be read: there is no such file")
    try:
        _check_depth(text, path)
        content = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}") from None
    config: Plain = with_new_targets(bounded(content, path))
    return config


def _check_depth(text: str, path: Path) -> None:
    """Refuse nesting that would crash libyaml, which builds nested nodes on the C stack."""
    level = 0
    for event in yaml.parse(text, Loader):
        level += isinstance(event, yaml.CollectionStartEvent)
        level -= isinstance(event, yaml.CollectionEndEvent)
        if level > MAX_DEPTH:
            raise InputError(f"{path} holds more than a run would have written")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; an empty dictionary if there is no such file.

    Raises:
        InputError: it cannot be read as JSON.
    """
    try:
        return json.loads(read_text(path) or "{}")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}") from None


def read_record(run: Path) -> Plain:
    """Return run.json of a run directory; empty if there is none.

    Raises:
        InputError: it is not what a run writes.
    """
    path = run / "run.json"
    held = bounded(read_json(path), path)
    return {key: value for key, value in held.items() if isinstance(value, KINDS.get(key, object))}


def record_or_nothing(run: Path) -> Plain:
    """Return run.json of a run directory; empty if there is none that can be read."""
    with contextlib.suppress(InputError):
        return read_record(run)
    return {}


def bounded(content: Any, path: Path) -> Plain:
    """Return plain content within a run's size and depth; other values are converted to text.

    Raises:
        InputError: it is larger or deeper, or not a dictionary.
    """
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold keys and values")
    left = itertools.count(MAX_VALUES, -1)

    def plain(node: Any, level: int) -> Any:
        if next(left) < 0 or level > MAX_DEPTH:  # also if it contains itself
            raise InputError(f"{path} holds more than a run would have written")
        if isinstance(node, dict):
            return {str(key)[:100]: plain(value, level + 1) for key, value in node.items()}
        if isinstance(node, list | tuple | set):
            return [plain(value, level + 1) for value in node]
        return node if isinstance(node, bool | int | float | None) else str(node)[:LARGEST]

    try:
        result: Plain = plain(content, 0)
    except ValueError:  # an integer with more digits than Python converts
        raise InputError(f"{path} holds more than a run would have written") from None
    return result
