"""How a command runs: it composes its configuration, and says what goes wrong in one line."""

import functools
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.kindling.cli import sweep
from src.kindling.cli.composition import default_options, explain, group_names, resolved
from src.kindling.errors import InputError, first_line
from src.kindling.files import run_directory
from src.kindling.layout import CONF, Plain
from src.kindling.process import garbage

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
            with garbage.gc_paused(), one_line_errors(name):
                _check_flags(sys.argv[1:])
                arguments, found = _taken(name, words, sys.argv[1:])
                if (
                    not run_directory.is_launched_rank()
                ):  # Lightning starts ranks with settings of Hydra's
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
        _exit(explain(error, name, sys.argv[1:]), 2)
    except Exception as error:
        if name is not None:  # Hydra could not compose, and had no error of its own for it
            _exit(explain(error, name, sys.argv[1:]), 2)
        log = getattr(error, "run_log", None)
        where = f" (traceback: {log})" if log else ""
        _exit(f"{type(error).__name__}: {first_line(error)}{where}", 1)


def _exit(line: str, status: int) -> typing.NoReturn:
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        import traceback

        traceback.print_exc()
    # What a file or an argument brought into the line stays in it, and commands no terminal.
    print(
        "error:",
        "".join(c if c.isprintable() else " " for c in line)[:2000],
        file=sys.stderr,
    )
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
    return {*own, *shared, *default_options(name), "trainer"} - {
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
        elif key in own and key in group_names():
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
