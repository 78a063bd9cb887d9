"""What stands on a command line: flags, settings, and words that are not key=value."""

import os
import re
import typing

import yaml
from hydra._internal.utils import get_args_parser

from src.kindling.cli.composition import default_options, group_names
from src.kindling.errors import InputError, first_line
from src.kindling.layout import CONF, Plain

OF_THE_COMMAND = ("resume", "allow_changes", "log_dir", "init_from", "debug")
KEPT_BY_HYDRA = (
    *("hydra.run.", "hydra.sweep.", "hydra.output_subdir.", "hydra.job.chdir."),
    *("hydra.job_logging.", "hydra.hydra_logging.", "hydra/job_logging.", "hydra/hydra_logging."),
)


def check_flags(arguments: list[str]) -> None:
    """Refuse flags that are not Hydra's: settings here are `key=value`.

    Raises:
        InputError: naming the flag, and the `key=value` that was probably meant.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign] # argparse itself would print its usage
    known = {flag for action in parser._actions for flag in action.option_strings}
    for position, argument in enumerate(arguments):
        if argument.startswith("="):
            raise InputError(f"{argument}: a setting is key=value")
        flag, _, value = argument.partition("=")
        if not flag.startswith("-") or flag in known or re.fullmatch(r"-\d.*", flag):
            continue
        value = value or next(iter(arguments[position + 1 :]), "VALUE")
        raise InputError(
            f"{flag}: there is no such flag; settings are key=value: {flag.strip('-')}={value}"
        )
    asked = parser.parse_args(arguments)
    for flag, value in (("--config-name", asked.config_name), ("--config-path", asked.config_path)):
        if value is not None:
            raise InputError(f"{flag}: a command has one configuration; --config-dir adds options")
    if asked.experimental_rerun is not None:
        raise InputError("--experimental-rerun reads a pickle, which can run code: use resume=RUN")


def of_a_resumed_run(name: str, arguments: list[str]) -> tuple[list[str], list[str]]:
    """Separate the settings that change a resumed run from those of the command.

    They belong to the run's own configuration, which Hydra does not know: a key of it may not be in
    the default recipe.

    Returns:
        The arguments for Hydra, and the settings of the run; none without `resume=`.
    """
    words = get_args_parser().parse_args(arguments).overrides
    given = [word for word in words if word.startswith("resume=")]
    if name != "train" or given in ([], ["resume=null"]):
        return arguments, []
    own = [w for w in words if w.lstrip("+~").partition("=")[0] not in OF_THE_COMMAND]
    own = [word for word in own if not word.startswith(("hydra", "+hydra", "~hydra"))]
    return [word for word in arguments if word not in own], own


def check_settings(name: str, arguments: list[str]) -> None:
    """Refuse overrides that make Hydra keep files, or remove what a run is made of.

    Raises:
        InputError: naming the override.
    """
    for argument in arguments:
        key = argument.partition("=")[0]
        if f"{key.strip('+~')}.".startswith(KEPT_BY_HYDRA):
            raise InputError(f"{key}: Hydra keeps no files here; log_dir= says where runs are kept")
        if key.startswith("~") and key[1:] in _top_level(name):
            raise InputError(f"{key}: nothing runs without {key[1:]}; give it another value")


def _top_level(name: str) -> set[str]:
    own, shared = (yaml.safe_load((CONF / f"{n}.yaml").read_text()) for n in (name, "command"))
    optional = {"hydra", "defaults", "debug", "experiment"}
    return {*own, *shared, *default_options(name), "trainer"} - optional


def split(name: str, words: str | None, arguments: list[str]) -> tuple[list[str], Plain]:
    """Take from a command line what Hydra would not understand.

    That is words which are not key=value, and values of a key that is also the name of a group:
    Hydra would look for an option (`model=fizzbuzz`, where the command has no such choice to make).

    Returns:
        The arguments that are left for Hydra, and the values that were taken, by key.

    Raises:
        InputError: a value is not readable, or words are given both ways.
    """
    if words is None:
        return arguments, {}
    own = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    overrides = get_args_parser().parse_args(arguments).overrides
    left, taken = list(arguments), Plain()
    for argument in overrides:
        key, equals, value = argument.partition("=")
        if not equals or os.path.exists(argument):  # a folder may be called a=b
            taken.setdefault(words, []).append(argument)
        elif key == words and any("=" not in other for other in overrides):
            raise InputError(f"{argument}: name all with {words}=, or all without it")
        elif key in own and key in group_names():
            taken[key] = _read(argument, value)
        else:
            continue
        left.remove(argument)
    return left, taken


def _read(argument: str, value: str) -> typing.Any:
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{argument}: not readable ({first_line(error)})") from None


def complete_keys_alone(name: str, words: str | None) -> None:
    """Leave what Hydra would not understand out of the line that a shell wants completed."""
    if words is None or not (line := os.environ.get("COMP_LINE", "")):
        return
    script, *typed = line.split()
    last = typed.pop() if typed and not line[-1].isspace() else ""
    os.environ["COMP_LINE"] = " ".join([script, *split(name, words, typed)[0], last])


def _refuse(message: str) -> typing.NoReturn:
    raise InputError(f"{message} (flags such as -m go before or after all settings, not between)")
