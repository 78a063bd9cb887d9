"""Check `_target_`s: a run may use those in conf/ and in the folders that the user adds to it."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from src.kindling.errors import InputError, first_line
from src.kindling.layout import CONF, Plain, conf_texts

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast


def allowed_targets() -> set[tuple[str, str, Any]]:
    """Return the instructions to Hydra in conf/, by group: ("model", "_target_", "a.b.Net").

    Folders that the command adds to conf/ are included.

    Raises:
        InputError: conf/ contains no `_target_`, so it is not this project's.
    """
    found = set()
    for tops, _, place, value in _instructions():
        found |= {(top, place[-1], value) for top in tops or place[:1]}
    if "_target_" not in {key for _, key, _ in found}:
        raise InputError(f"{CONF}: no YAML contains a _target_")
    return found


def option(group: str, target: str) -> str | None:
    """Return the option of a group whose YAML gives the group this `_target_`; None if none does.

    Where several do, it is the one that has the stem of the target's module, if one has.
    """
    found = [
        path.stem
        for tops, path, place, value in _instructions(f"{group}/*.yaml")
        if value == target and place == (("_target_",) if tops else (group, "_target_"))
    ]
    stem = target.split(".")[-2] if "." in target else target
    return stem if stem in found else next(iter(found), None)


Instruction = tuple[tuple[str, ...], Path, tuple[Any, ...], Any]


def _instructions(pattern: str = "**/*.yaml") -> Iterator[Instruction]:
    """Yield what YAMLs tell Hydra to build: the groups by folders, the file, the keys, the value.

    An option may lie in a folder of a group (conf/callbacks/mine/ema.yaml), or in a group of conf/
    for another (conf/tuned/optimizer). A YAML that sets keys of the whole configuration has none.
    """
    for folder, path, text in conf_texts(pattern):
        tops = () if "@package _global_" in text else path.relative_to(folder).parts[:-1]
        try:
            yield from ((tops, path, *found) for found in _of_file(text))
        except (yaml.YAMLError, ValueError) as error:
            raise InputError(f"{path}: {first_line(error)}") from None


@functools.lru_cache(maxsize=1024)  # each run of a sweep or a study reads all of conf/
def _of_file(text: str) -> list[tuple[tuple[Any, ...], Any]]:
    """Return the instructions of a YAML: the keys that lead to each, and its value."""
    return [
        (place, value)
        for place, value in nodes(yaml.load(text, Loader=LOADER))
        if is_instruction(place) and isinstance(value, str | bool)
    ]


def is_instruction(place: tuple[Any, ...]) -> bool:
    """Return whether the keys lead to an instruction to Hydra, such as `_target_`."""
    return bool(place) and isinstance(place[-1], str) and place[-1].startswith("_")


def problems(settings: Plain) -> list[str]:
    """Return the settings that would keep a run's files from being read back, one line each.

    A stored configuration may use only the targets in conf/: a run with a `_target_` from the
    command line would train once, and could then be neither resumed nor evaluated.
    """
    allowed = allowed_targets()
    return [
        f"{_dotted(place)}={value}: not in any YAML of conf/{place[0]}/, so the run could not be"
        f" resumed or evaluated: add it to a YAML in conf/{place[0]}/, or in --config-dir=FOLDER"
        for place, value in nodes(settings)
        if is_instruction(place) and not is_allowed(place, value, allowed)
    ]


def is_allowed(place: tuple[Any, ...], value: Any, allowed: set[tuple[str, str, Any]]) -> bool:
    """Return whether conf/ has exactly the same instruction in this group."""
    return isinstance(value, str | bool) and (place[0], place[-1], value) in allowed


def nodes(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield every value of a configuration, itself first, with the keys that lead to it."""
    yield place, node
    if isinstance(node, dict | list | tuple):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from nodes(value, (*place, key))


def _dotted(place: tuple[Any, ...]) -> str:
    return ".".join(map(str, place))
