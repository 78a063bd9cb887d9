"""Parse a command line: flags, settings, and words that are not key=value."""

import functools
import os
import re
import typing

import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from src.kindling.cli.composition import default_options, group_names
from src.kindling.errors import InputError, first_line
from src.kindling.layout import Plain, command_yaml

# Keys that a resumed run reads from the command, not from its own configuration.
COMMAND_KEYS = ("resume", "allow_changes", "log_dir", "init_from", "debug")
RESUMED_MODEL = "model=that_of_the_resumed_run"  # an option without content, and so for its data
HYDRA_FILES = (
    *("hydra.run.", "hydra.sweep.", "hydra.output_subdir.", "hydra.job.chdir."),
    *("hydra.job_logging.", "hydra.hydra_logging.", "hydra/job_logging.", "hydra/hydra_logging."),
)


def check_flags(arguments: list[str]) -> None:
    """Refuse flags that are not Hydra's: settings here are `key=value`."""
    _check_spaces(arguments)
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign] # argparse itself would print its usage
    flags = {flag for action in parser._actions for flag in action.option_strings}
    for position, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if not flag.startswith("-") or flag in flags or re.fullmatch(r"-\d.*", flag):
            continue
        after = [word for word in arguments[position + 1 :][:1] if "=" not in word]
        value = value or next(iter(after), "VALUE")
        raise InputError(
            f"{flag}: there is no such flag; settings are key=value: {flag.strip('-')}={value}"
        )
    parsed = parser.parse_args(arguments)
    names = ("--config-name", parsed.config_name), ("--config-path", parsed.config_path)
    for flag, value in names:
        if value is not None:
            raise InputError(f"{flag}: a command has one configuration; --config-dir adds options")
    if parsed.experimental_rerun is not None:
        raise InputError("--experimental-rerun loads a pickle, which can run code: use resume=RUN")


def flags_first(arguments: list[str]) -> list[str]:
    """Return a command line with its flags before its settings, so that settings can be appended.

    argparse takes settings in one place alone, and Lightning appends its own for each rank.
    """
    parsed = get_args_parser().parse_args(arguments)
    count = len(parsed.overrides)
    for place in range(len(arguments) - count + 1):
        # --info would take the first setting for its value.
        if arguments[place : place + count] == parsed.overrides and parsed.info is None:
            return [*arguments[:place], *arguments[place + count :], *parsed.overrides]
    return arguments


def _check_spaces(arguments: list[str]) -> None:
    """Refuse what a shell or a script's line ends have made of `key=value`."""
    for place, argument in enumerate(arguments):
        before, after = arguments[:place][-1:], arguments[place + 1 :][:1]
        if argument.endswith("\r"):
            word = argument.rstrip("\r") or (before or [""])[0]
            raise InputError(
                f"{word}: a carriage return follows; the script has the line ends of Windows:"
                r" sed -i 's/\r$//' SCRIPT removes them"
            )
        split = [argument, *after]
        if argument.startswith("="):
            split = [
                *(w for w in before if "=" not in w),
                argument,
                *(after if argument == "=" else []),
            ]
        elif not (re.fullmatch(r"[\w.+/@-]+=", argument) and after and "=" not in after[0]):
            continue
        whole = f", without spaces: {''.join(split)}" if len(split) > 1 else ""
        raise InputError(f"{' '.join(split)}: a setting is key=value{whole}")


def split_resumed(name: str, arguments: list[str]) -> tuple[list[str], list[str]]:
    """Separate the settings that change a resumed run from those of the command.

    They override the run's own configuration, which Hydra does not compose: its keys may be missing
    from the default recipe, whose model may be gone.

    Returns:
        The arguments for Hydra, and the settings of the run (none without `resume=`).
    """
    words = get_args_parser().parse_args(arguments).overrides
    resume = [word for word in words if word.startswith("resume=")]
    if name != "train" or resume in ([], ["resume=null"]):
        return arguments, []
    own = [w for w in words if w.lstrip("+~").partition("=")[0] not in COMMAND_KEYS]
    own = [word for word in own if not word.startswith(("hydra", "+hydra", "~hydra"))]
    _store_resumed_model()
    return [*(word for word in arguments if word not in own), RESUMED_MODEL], own


@functools.cache  # Hydra 1.4 refuses to store it twice
def _store_resumed_model() -> None:
    for group in ("model", "data"):
        ConfigStore.instance().store(RESUMED_MODEL.removeprefix("model="), {}, group)


def check_settings(name: str, arguments: list[str]) -> None:
    """Refuse overrides that make Hydra write files, or that remove a part that every run needs."""
    for argument in arguments:
        key = argument.partition("=")[0]
        if f"{key.strip('+~')}.".startswith(HYDRA_FILES):
            raise InputError(f"{key}: Hydra writes no files here; log_dir= is the folder of runs")
        if key.startswith("~") and key[1:] in _top_level(name):
            raise InputError(f"{key}: every run needs {key[1:]}; give it another value instead")


def _top_level(name: str) -> set[str]:
    own, shared = command_yaml(name), command_yaml("command")
    optional = {"hydra", "defaults", "debug", "experiment"}
    return {*own, *shared, *default_options(name), "trainer"} - optional


def split(name: str, words: str | None, arguments: list[str]) -> tuple[list[str], Plain]:
    """Remove the arguments that Hydra cannot parse from a command line, and return their values.

    These are words that are not key=value, and values of a key that is also the name of a group, in
    a command without that group: for `model=fizzbuzz`, Hydra would look for an option.

    Returns:
        The arguments for Hydra, and the removed values by key.

    Raises:
        InputError: a value cannot be parsed, or words are given both with and without their key.
    """
    if words is None:
        return arguments, {}
    own = command_yaml(name)
    overrides = get_args_parser().parse_args(arguments).overrides
    remaining, values = list(arguments), Plain()
    for argument in overrides:
        key, equals, value = argument.partition("=")
        if not equals or os.path.exists(argument):  # a folder may be called a=b
            values.setdefault(words, []).append(argument)
        elif key == words and any("=" not in other for other in overrides):
            raise InputError(f"{argument}: use {words}= for all of them or for none")
        elif key in own and key in group_names():
            values[key] = _parse(argument, value)
        else:
            continue
        remaining.remove(argument)
    return remaining, values


def added(name: str, arguments: list[str]) -> list[str]:
    """Return the arguments, with Hydra's `+` before each key that the command's YAML lacks.

    A value of such a key that Hydra cannot read is text: `prompt=what's up?` needs no quotes.
    """
    known = {*_top_level(name), *group_names(), "hydra"}
    parsed = get_args_parser().parse_args(arguments)
    if parsed.shell_completion:  # its words are Hydra's own: `-sc install=bash`
        return arguments
    words = parsed.overrides
    keys = {word: re.split("[.@=/]", word)[0] for word in words if word[:1].isalpha()}
    new = {word for word, key in keys.items() if key not in known}
    return [_readable(f"+{word}") if word in new else word for word in arguments]


def quoted(arguments: list[str]) -> list[str]:
    """Return the arguments, with quotes around values that Hydra cannot parse: `log_dir=Läufe`."""
    return [
        _readable(word) if re.match(r"[\w.+]+=", word) and not word.isascii() else word
        for word in arguments
    ]


def _readable(argument: str) -> str:
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        key, _, value = argument.partition("=")
        quoted = re.sub(r"(\\*)'", r"\1\1\\'", value)
        ending = re.search(r"\\*$", value)
        return f"{key}='{quoted}{ending[0] if ending else ''}'"
    return argument


def _parse(argument: str, value: str) -> typing.Any:
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{argument}: cannot be parsed ({first_line(error)})") from None


def strip_completion_line(name: str, words: str | None) -> None:
    """Remove words that Hydra cannot parse from the line that a shell wants completed."""
    if words is None or not (line := os.environ.get("COMP_LINE", "")):
        return
    script, *typed = line.split()
    last = typed.pop() if typed and not line[-1].isspace() else ""
    os.environ["COMP_LINE"] = " ".join([script, *split(name, words, typed)[0], last])


def _refuse(message: str) -> typing.NoReturn:
    raise InputError(f"{message} (put flags such as -m before or after all settings, not between)")
