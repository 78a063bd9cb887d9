"""Compose a configuration with Hydra, and explain in one line what went wrong."""

import re
import sys
import typing
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import hydra
import yaml
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.kindling.config.settings import problems
from src.kindling.errors import InputError, first_line, nearest
from src.kindling.layout import CONF, Plain


def resolved(config: DictConfig) -> Plain:
    """Return the configuration as plain data with every interpolation carried out.

    Raises:
        InputError: an interpolation names a key that is not there.
    """
    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise InputError(explain(error, None, [])) from error
    assert isinstance(container, dict)
    return typing.cast(Plain, container)


# What went wrong while composing ------------------------------------------------------------------


def explain(error: Exception, name: str | None, arguments: list[str]) -> str:
    """Say in one line what Hydra or OmegaConf found wrong, with the nearest valid choice."""
    if isinstance(error, OverrideParseException):
        reason = first_line(error)
        return (
            f"{error.override}: not readable as key=value ({reason}); quote what is no plain word"
        )
    if name and (problems := unknown(name, arguments)):
        return "; ".join(problems)
    if found := re.search(r"Interpolation key '([^']+)' not found", str(error)):
        return f"{found.group(1)} is needed and missing: the model and the data do not go together"
    return first_line(error)


def group_names() -> list[str]:
    """Return the groups of conf/."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


def option_names(group: str) -> list[str]:
    """Return the options of a group of conf/."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def default_options(name: str) -> dict[str, Any]:
    """Return what a command's YAML chooses for each of its groups."""
    entries = yaml.safe_load((CONF / f"{name}.yaml").read_text())["defaults"]
    return {
        group: option
        for entry in entries
        if isinstance(entry, dict)
        for group, option in entry.items()
    }


def option_problems(name: str, argument: str) -> list[str]:
    """Say what is wrong with `group=option` or `group=[option,option]`; nothing for a plain key."""
    group, _, value = argument.partition("=")
    if group not in group_names():
        return []
    default, options = default_options(name).get(group), option_names(group)
    if value in ("", "null"):
        return [f"{argument}: an option is needed{nearest('', options)}"] if default else []
    if value.startswith("[") and not isinstance(default, list):
        return [f"{argument}: one option is needed, not a list{nearest('', options)}"]
    missing = [option for option in value.strip("[]").split(",") if option not in options]
    return [f"{group}={o}: there is no such option{nearest(o, options)}" for o in missing]


def unknown(name: str, arguments: list[str]) -> list[str]:
    """Say which options and keys the arguments name that are not there."""
    problems = [problem for a in arguments for problem in option_problems(name, a)]
    groups = group_names()
    chosen = [
        a for a in arguments if a.partition("=")[0] in groups and not option_problems(name, a)
    ]
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            content = OmegaConf.to_container(hydra.compose(name, chosen))
    except (HydraException, OmegaConfBaseException):  # a choice that does not compose is told alone
        return problems
    known = [*groups, *flat_keys(content)]
    keys = {a: a.partition("=")[0] for a in arguments if "=" in a and a[0].isalpha()}
    unknown = [a for a, key in keys.items() if key not in known and not key.startswith("hydra")]
    problems += [f"{keys[a]}: there is no such key{nearest(keys[a], known)}" for a in unknown]
    rest = [a for a in keys if a not in unknown and not option_problems(name, a)]
    return problems + (wrong_values(name, rest) if problems else [])


def wrong_values(name: str, arguments: list[str]) -> list[str]:
    """Say which values are wrong among arguments that compose, as far as it can be read quickly."""
    if name != "train" or {"--multirun", "-m"} & {*sys.argv}:  # a sweep's values are lists
        return []
    with suppress(HydraException, OmegaConfBaseException, InputError):
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            settings = resolved(hydra.compose(name, arguments))
        return problems(settings, quick=True)
    return []


def flat_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted key of each setting, those of whole groups among them."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flat_keys(value, f"{prefix}{key}.")
