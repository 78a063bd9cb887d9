"""How a command runs: it composes its configuration, and says what goes wrong in one line."""

import functools
import os
import re
import shlex
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src import config, imports, run_directory, sweep
from src.config import CONF, InputError, Plain, first_line, nearest

KEPT_BY_HYDRA = (
    *("hydra.run.", "hydra.sweep.", "hydra.output_subdir.", "hydra.job.chdir."),
    *("hydra.job_logging.", "hydra.hydra_logging.", "hydra/job_logging.", "hydra/hydra_logging."),
)


def command(
    name: str, words: str | None = None
) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make a function of a configuration into a command that composes conf/<name>.yaml.

    Args:
        name: the command's, and its YAML's.
        words: the key whose values may be given without it, as the files of `ls` are.

    What goes wrong is said in one line: exit status 2 for bad input, 1 for a failure while running.
    HYDRA_FULL_ERROR=1, or any `debug=`, shows the traceback as well.
    """

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        full_error = os.environ.get("HYDRA_FULL_ERROR")
        taken: Plain = {}
        failed: list[int] = []  # jobs of a sweep

        @hydra.main(config_path=str(CONF), config_name=name, version_base="1.3")
        def composed(config: DictConfig) -> None:
            debugging = HydraConfig.get().runtime.choices.get("debug") not in (None, "null")
            wanted = "1" if debugging else full_error
            with (
                sweep.job(failed),
                _environment("HYDRA_FULL_ERROR", wanted),
                one_line_errors(),
            ):
                config.update(taken)
                _check_text(config, words)
                task(config)

        @functools.wraps(task)
        def main() -> None:
            with imports.unsearched(), one_line_errors(name):
                _check_flags(sys.argv[1:])
                arguments, found = _taken(name, words, sys.argv[1:])
                if not run_directory.is_child():  # Lightning starts ranks with settings of Hydra's
                    _check_settings(name, arguments)
                _complete_keys_alone(name, words)
                taken.clear()
                taken.update(found)
                failed.clear()
                with ExitStack() as during:
                    if sweep.is_asked_for(arguments):
                        sweep.check(name, arguments, resolved)
                        arguments = during.enter_context(sweep.without_files(arguments))
                    # Hydra then raises instead of exiting.
                    during.enter_context(_environment("HYDRA_FULL_ERROR", "1"))
                    during.enter_context(_typed(arguments))
                    composed()
                sweep.end(failed)

        return main

    return decorate


@contextmanager
def one_line_errors(name: str | None = None) -> Iterator[None]:
    """Turn an exception into one line on standard error and an exit status.

    Args:
        name: the command, where errors of composition are to be explained.
    """
    try:
        yield
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        _exit("interrupted before anything was saved", 130)
    except InputError as error:
        _exit(str(error), 2)
    except (HydraException, OmegaConfBaseException) as error:
        _exit(_explain(error, name, sys.argv[1:]), 2)
    except Exception as error:
        if name is not None:  # Hydra could not compose, and had no error of its own for it
            _exit(_explain(error, name, sys.argv[1:]), 2)
        log = getattr(error, "run_log", None)
        where = f" (traceback: {log})" if log else ""
        _exit(f"{type(error).__name__}: {first_line(error)}{where}", 1)


def _exit(line: str, status: int) -> typing.NoReturn:
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        import traceback

        traceback.print_exc()
    # What a file or an argument brought into the line stays in it, and commands no terminal.
    print("error:", "".join(c if c.isprintable() else " " for c in line)[:2000], file=sys.stderr)
    sys.exit(status)


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    previous = os.environ.get(name)
    try:
        _set_environment(name, value)
        yield
    finally:
        _set_environment(name, previous)


def _set_environment(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _check_flags(arguments: list[str]) -> None:
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
            f"unknown flag {flag}: settings are key=value, as {flag.strip('-')}={value}"
        )
    asked = parser.parse_args(arguments)
    for flag, value in (("--config-name", asked.config_name), ("--config-path", asked.config_path)):
        if value is not None:
            raise InputError(f"{flag}: a command has one configuration; --config-dir adds options")
    if asked.experimental_rerun is not None:
        raise InputError("--experimental-rerun reads a pickle, which can run code: use resume=RUN")


def _check_settings(name: str, arguments: list[str]) -> None:
    """Refuse overrides that let Hydra keep files, or that take away what a run is made of.

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
    return {*own, *shared, *_defaults(name), "trainer"} - {
        "hydra",
        "defaults",
        "debug",
        "experiment",
    }


def _check_text(config: DictConfig, words: str | None) -> None:
    """Refuse a folder or a run that is no name; of a key that takes words, each must be one.

    Raises:
        InputError: naming the key.
    """
    plain: Any = OmegaConf.to_container(config)
    if "trainer" in plain and plain["resume"] is None:
        return  # a new run's settings are checked together
    for key in {"log_dir", "run", words} & plain.keys():
        value = plain[key]
        several = key == words and isinstance(value, list)
        if not all(isinstance(v, str) and v for v in (value if several else [value])):
            raise InputError(f"{key}={'null' if value is None else value}: must be a name")


def _taken(name: str, words: str | None, arguments: list[str]) -> tuple[list[str], Plain]:
    """Take from a command line what Hydra would not understand.

    That is words which are no key=value, and values of a key that is called as a group is: Hydra
    would look for an option of it (`model=fizzbuzz`, where the command has no such choice to make).

    Returns:
        What is left for Hydra, and the values that were taken, by key.

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
        elif key in own and key in _groups():
            try:
                taken[key] = yaml.safe_load(value)
            except (yaml.YAMLError, ValueError, RecursionError) as error:
                raise InputError(f"{argument}: not readable ({first_line(error)})") from None
        else:
            continue
        left.remove(argument)
    return left, taken


def _complete_keys_alone(name: str, words: str | None) -> None:
    """Leave what Hydra would not understand out of the line that a shell wants completed."""
    if words is None or not (line := os.environ.get("COMP_LINE", "")):
        return
    script, *typed = line.split()
    last = typed.pop() if typed and not line[-1].isspace() else ""
    os.environ["COMP_LINE"] = " ".join([script, *_taken(name, words, typed)[0], last])


@contextmanager
def _typed(arguments: list[str]) -> Iterator[None]:
    """Let Hydra see these arguments as those of the command line."""
    before = sys.argv[1:]
    sys.argv[1:] = arguments
    try:
        yield
    finally:
        sys.argv[1:] = before


def _refuse(message: str) -> typing.NoReturn:
    raise InputError(f"{message} (flags such as -m go before or after all settings, not between)")


def line(name: str, **settings: str) -> str:
    """Return what to type for a command with these settings, quoted for Hydra and for a shell."""
    words = ["python", "-m", f"src.{name}"]
    for key, value in settings.items():
        if not re.fullmatch(r"[\w./@%+-]+", value, re.ASCII):
            value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        words.append(f"{key}={value}")
    return shlex.join(words)


def resolved(config: DictConfig) -> Plain:
    """Return the configuration as plain data with every interpolation carried out.

    Raises:
        InputError: an interpolation names a key that is not there.
    """
    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise InputError(_explain(error, None, [])) from error
    assert isinstance(container, dict)
    return typing.cast(Plain, container)


# What went wrong while composing ------------------------------------------------------------------


def _explain(error: Exception, name: str | None, arguments: list[str]) -> str:
    """Say in one line what Hydra or OmegaConf found wrong, with the nearest valid choice."""
    if isinstance(error, OverrideParseException):
        reason = first_line(error)
        return (
            f"{error.override}: not readable as key=value ({reason}); quote what is no plain word"
        )
    if name and (problems := _unknown(name, arguments)):
        return "; ".join(problems)
    if found := re.search(r"Interpolation key '([^']+)' not found", str(error)):
        return f"{found.group(1)} is needed and missing: the model and the data do not go together"
    return first_line(error)


def _groups() -> list[str]:
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _defaults(name: str) -> dict[str, Any]:
    """Return what a command's YAML chooses for each of its groups."""
    entries = yaml.safe_load((CONF / f"{name}.yaml").read_text())["defaults"]
    return {
        group: option
        for entry in entries
        if isinstance(entry, dict)
        for group, option in entry.items()
    }


def _option_problems(name: str, argument: str) -> list[str]:
    """Say what is wrong with `group=option` or `group=[option,option]`; nothing for a plain key."""
    group, _, value = argument.partition("=")
    if group not in _groups():
        return []
    default, options = _defaults(name).get(group), _options(group)
    if value in ("", "null"):
        return [f"{argument}: an option is needed{nearest('', options)}"] if default else []
    if value.startswith("[") and not isinstance(default, list):
        return [f"{argument}: one option is needed, not a list{nearest('', options)}"]
    missing = [option for option in value.strip("[]").split(",") if option not in options]
    return [f"{group}={o}: there is no such option{nearest(o, options)}" for o in missing]


def _unknown(name: str, arguments: list[str]) -> list[str]:
    """Say which options and keys the arguments name that are not there."""
    problems = [problem for a in arguments for problem in _option_problems(name, a)]
    groups = _groups()
    chosen = [
        a for a in arguments if a.partition("=")[0] in groups and not _option_problems(name, a)
    ]
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            content = OmegaConf.to_container(hydra.compose(name, chosen))
    except (HydraException, OmegaConfBaseException):  # a choice that does not compose is told alone
        return problems
    known = [*groups, *_flat_keys(content)]
    keys = {a: a.partition("=")[0] for a in arguments if "=" in a and a[0].isalpha()}
    unknown = [a for a, key in keys.items() if key not in known and not key.startswith("hydra")]
    problems += [f"{keys[a]}: there is no such key{nearest(keys[a], known)}" for a in unknown]
    rest = [a for a in keys if a not in unknown and not _option_problems(name, a)]
    return problems + (_wrong_values(name, rest) if problems else [])


def _wrong_values(name: str, arguments: list[str]) -> list[str]:
    """Say which values are wrong among arguments that compose, as far as it can be read quickly."""
    if name != "train" or {"--multirun", "-m"} & {*sys.argv}:  # a sweep's values are lists
        return []
    with suppress(HydraException, OmegaConfBaseException, InputError):
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            settings = resolved(hydra.compose(name, arguments))
        return config.problems(settings, quick=True)
    return []


def _flat_keys(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat_keys(value, f"{prefix}{key}.")
