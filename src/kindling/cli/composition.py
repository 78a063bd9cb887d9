"""Compose a configuration with Hydra, and explain errors in one line."""

import importlib.util
import os
import re
import shlex
import sys
import typing
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.kindling import layout
from src.kindling.config.hydra_calls import BASE
from src.kindling.errors import InputError, first_line, nearest
from src.kindling.layout import CONF, Plain, command_yaml, conf_folders

NO_MODEL = ", and this project has none yet: make new NAME=my_model KIND=classifier writes one"
SEVERAL_VALUES = r"(?:Ambiguous value for argument|Sweep parameters) '([^']+)'"


def initialized() -> AbstractContextManager[None]:
    """Let `hydra.compose` compose from conf/ and the user's own folders; in a command it can."""
    if GlobalHydra.instance().is_initialized():
        return nullcontext()
    return typing.cast(AbstractContextManager[None], hydra.initialize_config_dir(str(CONF), **BASE))


def resolved(config: DictConfig) -> Plain:
    """Return the configuration as a dictionary, with every interpolation resolved.

    Raises:
        InputError: an interpolation refers to a missing key.
    """
    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise InputError(explain(error, None, [])) from error
    assert isinstance(container, dict)
    return typing.cast(Plain, container)


# The user's own folders -----------------------------------------------------------------------


class OwnFolders(SearchPathPlugin):
    """Adds the user's own folders to everything that Hydra composes in this process."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders, so that an option of the same name in conf/ takes precedence."""
        for folder in layout.own_folders():
            search_path.append("a folder of the user's", f"file://{folder}")


Plugins.instance().register(OwnFolders)
# Hydra copies its sources for each composition, and for --help for each of 120 groups: a quarter
# of a second for the store, which is only read.
vars(ConfigStore.instance())["__deepcopy__"] = lambda memo: ConfigStore.instance()


def own_folders(name: str, arguments: list[str]) -> list[Path]:
    """Return the folders that the command line, or else the command's YAML, adds to conf/.

    Raises:
        InputError: a folder does not exist.
    """
    parsed = get_args_parser().parse_args(arguments)
    named = [("--config-dir", parsed.config_dir)] if parsed.config_dir else []
    named += [("hydra.searchpath", place) for place in _searchpath(name, parsed.overrides)]
    return [_folder(key, place) for key, place in named]


def _searchpath(name: str, overrides: list[str]) -> list[str]:
    typed = [o for o in overrides if o.lstrip("+").startswith("hydra.searchpath=")]
    if typed:
        places: Any = OverridesParser.create().parse_overrides(typed[:1])[0].value()
    else:
        places = command_yaml(name).get("hydra", {}).get("searchpath", [])
    return [place for place in places if isinstance(place, str)] if isinstance(places, list) else []


def _folder(key: str, place: str) -> Path:
    """Return the absolute path of a folder given as `file://...`, `pkg://...` or a path."""
    folder: str | None = place.removeprefix("file://")
    if place.startswith("pkg://"):
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(place.removeprefix("pkg://").replace("/", "."))
            folder = next(iter((spec and spec.submodule_search_locations) or ()), None)
    if not folder or not os.path.isdir(folder):
        raise InputError(f"{key}={place}: there is no such folder")
    return Path(os.path.abspath(folder))


# Errors of composition ----------------------------------------------------------------------------


def explain(error: Exception, name: str | None, arguments: list[str]) -> str:
    """Explain an error of Hydra or OmegaConf in one line, with the nearest valid choice."""
    if isinstance(error, OverrideParseException):
        key, equals, value = str(error.override).partition("=")
        value = os.path.expanduser(value)  # a shell leaves `key=~/a` as it is
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        quoted = shlex.quote(f'{key}="{escaped}"')
        line = f"{error.override}: cannot be parsed as key=value ({first_line(error)})"
        return f"{line}; quoted: {quoted}" if equals else line
    if found := re.search(SEVERAL_VALUES, str(error)):
        return _several_values(found.group(1))
    if name and (problems := unknown(name, arguments)):
        return "; ".join(problems)
    if found := re.search(r"Interpolation key '([^']+)' not found", str(error)):
        return (
            f"{found.group(1)}: missing, but the configuration refers to it;"
            " the model and the data do not match"
        )
    if found := re.search(r"An item is already at '([^']+)'", str(error)):
        return f"{found.group(1)}: the configuration has this key: leave out the +"
    if "specify 'model'" in str(error):
        models = option_names("model")
        return f"model is missing{nearest('', models) if models else NO_MODEL}"
    return first_line(error)


def _several_values(override: str) -> str:
    key, _, values = override.partition("=")
    return f"{override}: several values need --multirun; a list is written {key}=[{values}]"


def group_names() -> list[str]:
    """Return the groups of conf/ and of the user's own folders; those of conf/ may be nested."""
    paths = [path for folder in conf_folders() for path in folder.iterdir()]
    names = {path.name for path in paths if path.is_dir() and path.name[0] not in "._"}
    nested = {path.parent.relative_to(CONF).as_posix() for path in CONF.glob("*/*/*.yaml")}
    return sorted(names | nested)


def option_names(group: str) -> list[str]:
    """Return the options of a group."""
    return sorted({p.stem for folder in conf_folders() for p in (folder / group).glob("*.yaml")})


def default_options(name: str) -> dict[str, Any]:
    """Return the default option of each group in a command's YAML."""
    entries = [e for e in command_yaml(name)["defaults"] if isinstance(e, dict)]
    return {group: option for entry in entries for group, option in entry.items()}


def option_problems(name: str, argument: str) -> list[str]:
    """Return the problems of `group=option` or `group=[option,option]`; an empty list for a key."""
    group, _, value = argument.partition("=")
    if group not in group_names():
        return []
    default, options = default_options(name).get(group), option_names(group)
    if default and value.lower() in {"", "null", "none"} - {*options}:  # not a misspelled option
        return [f"{argument}: an option is needed{nearest('', options)}"]
    if value in ("", "null"):
        return []
    if value.startswith("[") and not isinstance(default, list):
        return [f"{argument}: one option is needed, not a list{nearest('', options)}"]
    missing = [option for option in value.strip("[]").split(",") if option not in options]
    return [f"{group}={o}: there is no such option{nearest(o, options)}" for o in missing]


def unknown(name: str, arguments: list[str]) -> list[str]:
    """Return one line per option or key in the arguments that does not exist."""
    problems = [problem for a in arguments for problem in option_problems(name, a)]
    groups = group_names()
    chosen = [
        a for a in arguments if a.partition("=")[0] in groups and not option_problems(name, a)
    ]
    try:
        with initialized():
            content = OmegaConf.to_container(hydra.compose(name, chosen))
    except (HydraException, OmegaConfBaseException):  # reported by itself
        return problems
    known = [*groups, *flat_keys(content)]
    set_or_removed = [a for a in arguments if a[:1] == "~" or ("=" in a and a[0].isalpha())]
    keys = {a: a.removeprefix("~").partition("=")[0] for a in set_or_removed}
    unknown = [a for a, key in keys.items() if key not in known and not key.startswith("hydra")]
    problems += [f"{keys[a]}: there is no such key{nearest(keys[a], known)}" for a in unknown]
    rest = [a for a in keys if a not in unknown and not option_problems(name, a)]
    return problems + (wrong_values(name, rest) if problems else [])


def wrong_values(name: str, arguments: list[str]) -> list[str]:
    """Return the invalid values among arguments that compose, without importing any code."""
    if name != "train" or {"--multirun", "-m"} & {*sys.argv}:  # a sweep's values are lists
        return []
    from src.kindling.config.settings import problems

    with suppress(HydraException, OmegaConfBaseException, InputError):
        with initialized():
            settings = resolved(hydra.compose(name, arguments))
        return problems(settings, quick=True)
    return []


def flat_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of nested settings, including those of the groups."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flat_keys(value, f"{prefix}{key}.")
