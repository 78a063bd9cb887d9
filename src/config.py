"""What a configuration may be: how a command composes it, checks it, and says what is wrong.

The schema is the code itself: a key is right if the constructor that its `_target_` names takes it,
and a value is right if it fits that argument's annotation.
"""

import difflib
import functools
import importlib
import inspect
import json
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError

CONF = Path(__file__).resolve().parent.parent / "conf"
Plain = dict[str, Any]
NO_USERS_BUSINESS = ("is_instance_of", "needs_python_object")  # objects, where text was given


class InputError(Exception):
    """What the user asked for cannot be done; the message is the one line that says why."""


class TrainSettings(BaseModel):
    """The top-level keys of a training run; conf/train.yaml says what each does."""

    model_config = ConfigDict(extra="forbid")

    # The groups, which have constructors of their own to be checked against.
    model: Plain
    data: Plain
    optimizer: Plain
    scheduler: Plain
    trainer: Plain
    logger: Plain
    callbacks: Plain

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    log_dir: str
    resume: str | None
    steps_per_execution: PositiveInt
    compile: bool
    threads: PositiveInt | None


# Commands ---------------------------------------------------------------------------------------


def command(name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make a function of a configuration into a command that composes conf/<name>.yaml.

    What goes wrong is said in one line: exit status 2 for bad input, 1 for a failure while running.
    HYDRA_FULL_ERROR=1 shows the traceback as well.
    """

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        full_error = os.environ.get("HYDRA_FULL_ERROR")

        @hydra.main(config_path=str(CONF), config_name=name, version_base="1.3")
        def composed(config: DictConfig) -> None:
            with _environment("HYDRA_FULL_ERROR", full_error), one_line_errors():
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
        _exit(f"{type(error).__name__}: {_first_line(error)}{where}", 1)


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
    return _first_line(error)


def nearest(word: str, choices: list[str]) -> str:
    """Return `: did you mean 'x'?`, or the choices when none is near, or nothing."""
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if not close:  # max_epoch instead of trainer.max_epochs
        ends = {choice.rsplit(".", 1)[-1]: choice for choice in reversed(choices)}
        close = [ends[end] for end in difflib.get_close_matches(word.rsplit(".", 1)[-1], ends, n=1)]
    if close:
        return f": did you mean {close[0]!r}?"
    return f": choose from {', '.join(choices)}" if 0 < len(choices) <= 12 else ""


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


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


# What may be in a configuration -------------------------------------------------------------------


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


def model_stem(config: Plain) -> str:
    """Return the name that the configured model has in conf/model/ and src/models/: `fizzbuzz`."""
    return str(config["model"]["_target_"]).split(".")[-2]


def validate(config: Plain) -> None:
    """Check a resolved training configuration against the code that it configures.

    Raises:
        InputError: naming every key that is wrong, and why.
    """
    try:
        TrainSettings.model_validate(config, strict=True)
    except ValidationError as error:  # first, because the groups repeat what stands here
        problems = [_top_level_problem(e) for e in error.errors()]
        raise InputError("; ".join(problems)) from None
    if problems := [problem for key, node in config.items() for problem in _problems(key, node)]:
        raise InputError("; ".join(problems))


def _top_level_problem(error: Any) -> str:
    key = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{key}: there is no such key{nearest(key, list(TrainSettings.model_fields))}"
    if error["type"] == "missing":
        return f"{key} is missing"
    return f"{key}={_shown(error['input'])}: {_said(error)}"


def _problems(where: str, node: Any) -> Iterator[str]:
    """Yield what is wrong with a node of the configuration and those below it."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _problems(f"{where}[{index}]", item)
    if not isinstance(node, dict):
        return
    if "_target_" not in node:
        for key, value in node.items():
            yield from _problems(f"{where}.{key}", value)
        return
    try:
        target = _located(node["_target_"])
    except (ImportError, AttributeError, ValueError) as error:
        yield f"{where}._target_={node['_target_']}: {_first_line(error)}"
        return
    parameters = inspect.signature(target).parameters
    annotations = _annotations(target)
    for key, value in node.items():
        if key.startswith("_"):
            continue
        if isinstance(value, dict) and "_target_" in value:
            yield from _problems(f"{where}.{key}", value)
        elif key not in parameters:
            takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
            if not takes_any:
                yield f"{where}.{key}: there is no such key{nearest(key, list(parameters))}"
        elif problem := _misfit(value, annotations.get(key, Any), parameters[key].default):
            yield f"{where}.{key}={_shown(value)}: {problem}"


def _located(target: str) -> Any:
    """Import what a dotted name stands for.

    Raises:
        ImportError, AttributeError, ValueError: there is no such thing.
    """
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _annotations(target: Any) -> Plain:
    try:
        return typing.get_type_hints(
            target.__init__ if inspect.isclass(target) else target, include_extras=True
        )
    except (NameError, TypeError):  # an annotation that only a type checker can read
        return {}


def _misfit(value: Any, annotation: Any, default: Any) -> str | None:
    """Say why a value does not fit an annotation; None if it does."""
    if value is None and default is None:
        return None
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except Exception:  # an annotation that pydantic has no schema for checks nothing
        return None
    try:
        # Strictly, so that `no` is not taken for a number or `"3"` for 3; as JSON, because a YAML
        # has lists where an annotation may say tuple.
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        # A union gives a line a member; members that stand for objects say nothing to a user.
        lines = [_said(e) for e in error.errors() if e["type"] not in NO_USERS_BUSINESS]
        return " or ".join(dict.fromkeys(lines)) or "this is not what is expected here"
    return None


def _said(error: Any) -> str:
    """Return pydantic's words for an error as the end of a sentence."""
    message = str(error["msg"]).replace("Input should be", "must be")
    return message[0].lower() + message[1:]


def _shown(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).split("\n")[0]
    return text if len(text) < 60 else f"{text[:57]}..."


# What may be rebuilt from a file ----------------------------------------------------------------


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
