"""What may be rebuilt from a file that anybody may have written: a checkpoint, a run directory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from src.config import CONF, InputError, Plain


def trusted(config: Any, source: Path) -> Plain:
    """Return a configuration that was read from a checkpoint or run directory, if it is harmless.

    Every `_target_` in it must stand in this project's own conf/, letter for letter (a name that
    only begins like one can lead anywhere: `src.models.torch.load`), and nothing may be left to
    interpolate. Nothing is imported before that is known.

    Raises:
        InputError: naming what is not allowed.
    """
    if not isinstance(config, dict):
        raise InputError(f"{source} holds no configuration")
    allowed = allowed_targets()
    try:
        leaves = list(_leaves(config))
    except RecursionError:
        raise InputError(f"{source} holds a configuration that contains itself") from None
    for key, value in leaves:
        if key == "_target_" and not (isinstance(value, str) and value in allowed):
            raise InputError(f"{source} names {value!r}, which is not in conf/: it is not built")
        if isinstance(value, str) and "${" in value:
            raise InputError(f"{source} holds {value!r}, which is not carried out")
    return config


def allowed_targets() -> set[str]:
    """Return every `_target_` that stands in conf/.

    Raises:
        InputError: conf/ names none, so it is not this project's.
    """
    targets = {
        value
        for path in CONF.rglob("*.yaml")
        for key, value in _leaves(yaml.safe_load(path.read_text()) or {})
        if key == "_target_"
    }
    if not targets:
        raise InputError(f"no _target_ found in {CONF}")
    return targets


def _leaves(node: Any) -> Iterator[tuple[Any, Any]]:
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        if isinstance(value, dict | list | tuple) and key != "_target_":
            yield from _leaves(value)
        else:
            yield key, value
