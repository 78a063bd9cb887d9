"""How a command runs: it composes its configuration, and says what goes wrong in one line."""

import functools
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config import CONF, InputError, Plain, first_line, nearest


def command(name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make a function of a configuration into a command that composes conf/<name>.yaml.

    What goes wrong is said in one line: exit status 2 for bad input, 1 for a failure while running.
    HYDRA_FULL_ERROR=1, or any `debug=`, shows the traceback as well.
    """

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        full_error = os.environ.get("HYDRA_FULL_ERROR")

        @hydra.main(config_path=str(CONF), config_name=name, version_base="1.3")
        def composed(config: DictConfig) -> None:
            debugging = HydraConfig.get().runtime.choices.get("debug") not in (None, "null")
            wanted = "1" if debugging else full_error
            with _environment("HYDRA_FULL_ERROR", wanted), one_line_errors():
                task(config)

        @functools.wraps(task)
        def main() -> None:
            with one_line_errors(name):
                _check_flags(sys.argv[1:])
                with _environment("HYDRA_FULL_ERROR", "1"):  # Hydra then raises instead of exiting
                    composed()

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
        log = getattr(error, "run_log", None)
        where = f" (traceback: {log})" if log else ""
        _exit(f"{type(error).__name__}: {first_line(error)}{where}", 1)


def _exit(line: str, status: int) -> typing.NoReturn:
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        import traceback

        traceback.print_exc()
    print(f"error: {line}", file=sys.stderr)
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
        flag, _, value = argument.partition("=")
        if not flag.startswith("-") or flag in known or re.fullmatch(r"-\d.*", flag):
            continue
        value = value or next(iter(arguments[position + 1 :]), "VALUE")
        raise InputError(
            f"unknown flag {flag}: settings are key=value, as {flag.strip('-')}={value}"
        )
    parser.parse_args(arguments)


def _refuse(message: str) -> typing.NoReturn:
    raise InputError(f"{message} (flags such as -m go before or after all settings, not between)")


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
    text = str(error)
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, option = found.groups()
        options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        if options:
            return f"{group}={option}: there is no such option{nearest(option, options)}"
    found = re.search(r"Could not (?:override|append to config.*) '([^']+)'", text)
    found = found or re.search(r"(?:Could not override|Key) '([^']+)'", text)
    if found and name:
        key = found.group(1)
        return f"{key}: there is no such key{nearest(key, _known_keys(name, arguments))}"
    if found := re.search(r"Interpolation key '([^']+)' not found", text):
        return f"{found.group(1)} is needed and missing: the model and the data do not go together"
    return first_line(error)


def _known_keys(name: str, arguments: list[str]) -> list[str]:
    """List the keys that a command's configuration has, given the groups that were chosen."""
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    chosen = [text for text in arguments if text.partition("=")[0] in groups]
    for overrides in (chosen, []):
        try:
            config = hydra.compose(name, overrides)
        except Exception:
            with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
                try:
                    config = hydra.compose(name, overrides)
                except HydraException:
                    continue
        return [*groups, *_flat_keys(OmegaConf.to_container(config))]
    return groups


def _flat_keys(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat_keys(value, f"{prefix}{key}.")
