"""What may be rebuilt from a file that anybody may have written: a checkpoint, a run directory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from src.kindling.config import signatures
from src.kindling.config.settings import adapter
from src.kindling.errors import InputError, short_repr
from src.kindling.layout import CONF, Plain

PLAIN = (dict, list, tuple, str, bool, int, float, type(None))
GROUPS = ("model", "data", "optimizer", "scheduler", "trainer")  # nothing runs without these
MOST, DEEPEST = 10_000, 20  # values, and levels, of a configuration: one of this project has 100, 4


def check(settings: Any, source: Path) -> Plain:
    """Return a configuration that was read from a checkpoint or run directory, if it is harmless.

    What tells Hydra what to build (`_target_` and other keys with an underscore) must stand in the
    same group of this project's own conf/, letter for letter: a name that only begins like one can
    lead anywhere (`project.module.torch.load`). The rest must be plain values with nothing left to
    interpolate. Nothing is imported before that is known.

    Raises:
        InputError: naming what is not allowed.
    """
    if not isinstance(settings, dict):
        raise InputError(f"{source} holds no configuration")
    told = allowed_targets()
    for count, (place, value) in enumerate(_nodes(settings)):
        if count > MOST or len(place) > DEEPEST:  # also what contains itself
            raise InputError(f"{source} holds a configuration that is too large to be one")
        if problem := _violation(place, value, told):
            raise InputError(f"{source} {problem}")
    for group in GROUPS:
        if not isinstance(settings.get(group), dict) or "_target_" not in settings[group]:
            raise InputError(f"{source} says no _target_ for {group}")
    return settings


def allowed_targets() -> set[tuple[str, str, Any]]:
    """Return what conf/ tells Hydra to build, by group: ("model", "_target_", "a.b.Net").

    Raises:
        InputError: conf/ names no `_target_`, so it is not this project's.
    """
    found = set()
    for path in CONF.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        top = None if "@package _global_" in text else path.parent.name
        for place, value in _nodes(yaml.safe_load(text)):
            if place and str(place[-1]).startswith("_"):
                found.add((top or place[0], place[-1], value))
    if "_target_" not in {key for _, key, _ in found}:
        raise InputError(f"no _target_ found in {CONF}")
    return found


def _violation(place: tuple[Any, ...], value: Any, told: set[tuple[str, str, Any]]) -> str | None:
    """Say what is wrong with one node of a configuration, at the keys that lead to it."""
    key = place[-1] if place else ""
    if isinstance(key, str) and key.startswith("_"):
        known = isinstance(value, str | bool) and (place[0], key, value) in told
        if not known:
            shown = short_repr(value)
            return f"names {shown} as {key} of {place[0]}, as no file in conf/ does: not built"
    if isinstance(value, dict):
        odd = [k for k in value if not (isinstance(k, str) and k.isprintable() and len(k) < 100)]
        return f"has a key that is no name: {short_repr(odd[0])}" if odd else None
    if isinstance(value, str) and "${" in value:
        return f"holds {short_repr(value)}, which is not carried out"
    return None if isinstance(value, PLAIN) else f"holds a {type(value).__name__}, no plain value"


def _nodes(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield all that a configuration holds, itself first, with the keys that lead to it."""
    yield place, node
    if isinstance(node, dict | list | tuple):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _nodes(value, (*place, key))


# Sizes --------------------------------------------------------------------------------------------


def arguments(kind: type[Any], held: Any, source: Path) -> Plain:
    """Return a constructor's arguments that a checkpoint holds, if its annotations allow them.

    Raises:
        ValueError: naming the argument that does not fit.
    """
    if not isinstance(held, dict):
        raise ValueError(f"{source} holds no arguments of a {kind.__name__}")
    expected = signatures.from_object(kind).parameters
    for name, value in held.items():
        fits = adapter(expected[name].annotation if name in expected else Any)
        try:
            if fits is not None:
                fits.validate_python(value, strict=True)
        except ValueError:  # pydantic's own is one
            shown = f"{short_repr(name)}: {short_repr(value)}"
            raise ValueError(f"{source} holds {shown}, which no {kind.__name__} takes") from None
    return held
