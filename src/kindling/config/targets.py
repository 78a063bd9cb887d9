"""Which `_target_`s a run may name: those that conf/, or a folder of the user's own, names too."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from src.kindling.errors import InputError, first_line
from src.kindling.layout import CONF, Plain, conf_folders

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times faster


def allowed_targets() -> set[tuple[str, str, Any]]:
    """Return what conf/ tells Hydra to build, by group: ("model", "_target_", "a.b.Net").

    Folders that the command adds to conf/ count as conf/.

    Raises:
        InputError: conf/ names no `_target_`, so it is not this project's.
    """
    found = set()
    for top, _, place, value in _instructions("**/*.yaml"):
        found.add((top or place[0], place[-1], value))
    if "_target_" not in {key for _, key, _ in found}:
        raise InputError(f"{CONF}: no YAML names a _target_")
    return found


def option(group: str, target: str) -> str | None:
    """Return the option of a group whose YAML gives the group this `_target_`; None if none does.

    Where several do, it is the one that has the stem of the target's module, if one has.
    """
    found = [
        path.stem
        for top, path, place, value in _instructions(f"{group}/*.yaml")
        if value == target and place == (("_target_",) if top else (group, "_target_"))
    ]
    stem = target.split(".")[-2] if "." in target else target
    return stem if stem in found else next(iter(found), None)


def _instructions(pattern: str) -> Iterator[tuple[str | None, Path, tuple[Any, ...], Any]]:
    """Yield what YAMLs tell Hydra to build: the group by its folder, the file, the keys, the value.

    The group is None where the YAML sets keys of the whole configuration.
    """
    for folder in conf_folders():
        for path in sorted(folder.glob(pattern)):
            text = path.read_text(encoding="utf-8")
            top = None if "@package _global_" in text else path.parent.name
            for place, value in nodes(_content(text, path)):
                if is_instruction(place) and isinstance(value, str | bool):
                    yield top, path, place, value


def _content(text: str, path: Path) -> Any:
    try:
        return yaml.load(text, Loader=LOADER)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: {first_line(error)}") from None


def is_instruction(place: tuple[Any, ...]) -> bool:
    """Return whether the keys lead to what Hydra takes for itself, such as `_target_`."""
    return bool(place) and isinstance(place[-1], str) and place[-1].startswith("_")


def problems(settings: Plain) -> list[str]:
    """Return what a run's settings name that its files could not be read back with.

    A stored configuration is rebuilt only from what conf/ names: a `_target_` that was typed on the
    command line would train once, and could then neither be resumed nor evaluated.
    """
    allowed = allowed_targets()
    return [
        f"{_dotted(place)}={value}: no YAML in conf/{place[0]}/ names it, so the run could not be"
        f" resumed or evaluated: write it to a YAML in conf/{place[0]}/, or in --config-dir=FOLDER"
        for place, value in nodes(settings)
        if is_instruction(place) and not is_allowed(place, value, allowed)
    ]


def is_allowed(place: tuple[Any, ...], value: Any, allowed: set[tuple[str, str, Any]]) -> bool:
    """Return whether conf/ gives this group the same instruction, letter for letter."""
    return isinstance(value, str | bool) and (place[0], place[-1], value) in allowed


def nodes(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield all that a configuration holds, itself first, with the keys that lead to it."""
    yield place, node
    if isinstance(node, dict | list | tuple):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from nodes(value, (*place, key))


def _dotted(place: tuple[Any, ...]) -> str:
    return ".".join(map(str, place))
