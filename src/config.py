"""What a configuration may be: its schema is the code that it configures.

A key is right if the constructor that its `_target_` names takes it, and a value is right if it
fits that argument's annotation.
"""

import difflib
import importlib
import inspect
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
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
        yield f"{where}._target_={node['_target_']}: {first_line(error)}"
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


def nearest(word: str, choices: list[str]) -> str:
    """Return `: did you mean 'x'?`, or the choices when none is near, or nothing."""
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if not close:  # max_epoch instead of trainer.max_epochs
        ends = {choice.rsplit(".", 1)[-1]: choice for choice in reversed(choices)}
        close = [ends[end] for end in difflib.get_close_matches(word.rsplit(".", 1)[-1], ends, n=1)]
    if close:
        return f": did you mean {close[0]!r}?"
    return f": choose from {', '.join(choices)}" if 0 < len(choices) <= 12 else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
