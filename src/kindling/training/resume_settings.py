"""The configuration of a resumed run: its own, with the changes of the command line."""

import json
import re
from collections.abc import Sequence
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from src.kindling import layout
from src.kindling.config import targets
from src.kindling.errors import InputError, nearest
from src.kindling.layout import Plain
from src.kindling.training.resume_changes import NOT_OF_THE_RUN


def with_overrides(saved: Plain, overrides: Sequence[str]) -> Plain:
    """Return a run's own configuration with the changes of the command line.

    A key that only the run has, and not its model's default recipe, is set as it is. For the other
    keys, what the recipe derives from them follows (the data's seed from `seed`). An option of a
    group replaces the whole group, except for the trainer's, which hold little more than where to
    run.

    Raises:
        InputError: a key is neither the run's nor its recipe's.
    """
    given = {_key(o): o for o in overrides if _key(o) not in NOT_OF_THE_RUN}
    if not given:
        return saved
    held, options = layout.flat(saved), _options(saved)
    recipe = layout.flat(_composed(options))
    _check_keys(given, options, [*held, *recipe])
    own = {key: o for key, o in given.items() if key in held and key not in recipe}
    others = {key: o for key, o in given.items() if key not in own}
    as_saved = [f"{key}={json.dumps(held[key])}" for key in others if key in held]
    before = layout.flat(_composed([*options, *as_saved]))
    kept_options = [o for o in options if "model" not in given and _key(o) not in given]
    after = layout.flat(_composed([*kept_options, *others.values()]))
    groups = [key for key in others if _is_group(key) and key != "trainer"]
    replaced = tuple(f"{group}." for group in groups)
    gone = before.keys() - after.keys()
    kept = {k: v for k, v in held.items() if k not in gone and not k.startswith(replaced)}
    new = {k: v for k, v in after.items() if v != before.get(k, ...) or k.startswith(replaced)}
    return _nested(kept | new | {key: _value(override) for key, override in own.items()})


def _check_keys(given: dict[str, str], options: list[str], leaves: list[str]) -> None:
    """Refuse keys that are neither among these nor in the options of groups that are given."""
    typed = [key for key, override in given.items() if override[0].isalpha()]
    if all(key in leaves or _is_group(key) for key in typed):
        return
    kept = [option for option in options if _key(option) not in given]
    chosen = [override for key, override in given.items() if _is_group(key)]
    leaves = [*leaves, *layout.flat(_composed([*kept, *chosen]))]
    ends = {leaf: [m.start() for m in re.finditer(r"\.|$", leaf)] for leaf in leaves}
    known = sorted({leaf[:end] for leaf in leaves for end in ends[leaf]})
    unknown = [key for key in typed if not (key in known or "/" in key or _is_group(key))]
    if unknown:
        lines = [f"{key}: there is no such key{nearest(key, known)}" for key in unknown]
        raise InputError("; ".join(lines))


def _is_group(key: str) -> bool:
    return any((folder / key).is_dir() for folder in layout.conf_folders())


def _options(saved: Plain) -> list[str]:
    """Return the options that a run's model and data are of: ["model=fizzbuzz", ...]."""
    found = {group: targets.option(group, saved[group]["_target_"]) for group in ("model", "data")}
    found["model"] = found["model"] or layout.model_stem(saved)  # the error names it
    return [f"{group}={option}" for group, option in found.items() if option]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _value(override: str) -> Any:
    [parsed] = OverridesParser.create().parse_overrides([override])
    return parsed.value()


def _composed(overrides: list[str]) -> Any:
    return OmegaConf.to_container(hydra.compose("train", overrides), resolve=True)


def _nested(flat: Plain) -> Plain:
    whole: Plain = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        node = whole
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return whole
