"""Validate a configuration: its schema is the code that it configures.

A key is valid if the constructor named by `_target_` accepts it; a value is valid if it matches the
argument's annotation.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from src.kindling.config import conflicts, ranges, signatures, source, targets
from src.kindling.config.values import join_messages, misfit, shown
from src.kindling.errors import InputError, first_line, nearest
from src.kindling.layout import Plain

Signature = Callable[[str, frozenset[str]], inspect.Signature]
UNKNOWN = ""  # instead of a line: the source alone does not show whether there is a problem


class TrainSettings(BaseModel):
    """The top-level keys of a training run; conf/train.yaml describes each of them."""

    model_config = ConfigDict(extra="forbid")

    # The groups, which are checked against their own constructors.
    model: Plain
    data: Plain
    optimizer: Plain
    scheduler: Plain
    trainer: Plain
    logger: Plain
    callbacks: Plain

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    log_dir: Annotated[str, Field(min_length=1)]
    resume: str | None
    allow_changes: bool = False  # keys with a default are missing from files of older versions
    init_from: str | None = None
    steps_per_execution: PositiveInt
    compile: bool
    # Far more than any machine has; an absurd number would crash the process.
    threads: Annotated[int, Field(gt=0, le=1024)] | None


def validate(config: Plain) -> None:
    """Check a resolved training configuration against the code that it configures.

    Raises:
        InputError: naming every invalid key, with the reason.
    """
    if found := problems(config):
        raise InputError("; ".join(found))


def problems(config: Plain, quick: bool = False) -> list[str]:
    """Return the problems of a resolved training configuration, one line per key.

    Top-level keys come first. If one is invalid, the groups' keys that repeat it (`data.seed`) are
    not reported again, and no code is imported to find more problems.

    Args:
        config: the configuration.
        quick: skip the checks that need the code to be imported.
    """
    try:
        TrainSettings.model_validate(config, strict=True)
    except ValidationError as error:
        wrong = {str(detail["loc"][0]) for detail in error.errors()}
        groups = {key: node for key, node in config.items() if isinstance(node, dict)}
        return _top_level_problems(error.errors()) + [
            line
            for key, node in groups.items()
            for line in _problems(key, node, signatures.from_source)
            if line != UNKNOWN and line.partition("=")[0].rpartition(".")[2] not in wrong
        ]
    if missing := conflicts.trainer_defaults().keys() - config["trainer"].keys():
        return [f"trainer.{key}: missing" for key in sorted(missing)]
    if nothing := [
        line for group in ("callbacks", "logger") for line in _targetless(config, group)
    ]:
        return nothing
    found = _constructor_problems(config, signatures.from_source)
    known = [line for line in found if line != UNKNOWN] or targets.problems(config)
    if known or UNKNOWN not in found or quick:
        return known
    # Last, because importing takes seconds.
    return [line for line in _constructor_problems(config, _imported) if line != UNKNOWN]


def _targetless(config: Plain, group: str) -> Iterator[str]:
    """Yield a line per node without a `_target_` where others have one: a misspelled name."""
    nodes = config[group].items()
    built = [key for key, node in nodes if isinstance(node, dict) and "_target_" in node]
    for key, node in nodes:
        if built and node is None:
            yield f"{group}.{key}=null: write ~{group}.{key} to leave it out"
        elif built and key not in built:
            yield f"{group}.{key}: has no _target_{nearest(key, built)}"


def _constructor_problems(config: Plain, signature: Signature) -> list[str]:
    return [line for key, node in config.items() for line in _problems(key, node, signature)]


def node_problems(where: str, node: Plain) -> list[str]:
    """Return a line per wrong key of a node that is not part of a training configuration."""
    for signature in (signatures.from_source, _imported):
        found = list(_problems(where, node, signature))
        if known := [line for line in found if line != UNKNOWN]:
            return known
        if UNKNOWN not in found:
            return []
    return []


def _top_level_problems(errors: list[Any]) -> list[str]:
    by_key: dict[str, list[Any]] = {}
    for error in errors:
        by_key.setdefault(str(error["loc"][0]), []).append(error)
    return [_top_level_problem(key, details) for key, details in by_key.items()]


def _top_level_problem(key: str, errors: list[Any]) -> str:
    if errors[0]["type"] == "extra_forbidden":
        return f"{key}: there is no such key{nearest(key, list(TrainSettings.model_fields))}"
    if errors[0]["type"] == "missing":
        return f"{key}: missing"
    return f"{key}={shown(errors[0]['input'])}: {join_messages(errors)}"


def _imported(target: str, names: frozenset[str]) -> inspect.Signature:
    return signatures.from_object(signatures.locate(target))


def _problems(where: str, node: Any, signature: Signature) -> Iterator[str]:
    """Yield the problems of a node of the configuration and of those below it, or UNKNOWN."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _problems(f"{where}[{index}]", item, signature)
    if not isinstance(node, dict):
        return
    if "_target_" not in node:
        for key, value in node.items():
            yield from _problems(f"{where}.{key}", value, signature)
        return
    try:
        parameters = signature(str(node["_target_"]), frozenset(node)).parameters
    except source.UnreadableError:
        yield UNKNOWN
        return
    except (ImportError, AttributeError, ValueError) as error:
        yield f"{where}._target_={node['_target_']}: {first_line(error)}"
        return
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key, value in node.items():
        if key.startswith("_"):
            continue
        if instead := ranges.replacement(str(node["_target_"]), key):
            yield f"{where}.{key}: set by the run itself: use {instead}"
        elif key not in parameters and not takes_any:
            yield f"{where}.{key}: there is no such key{nearest(key, list(parameters))}"
        elif isinstance(value, dict) and "_target_" in value:
            yield from _problems(f"{where}.{key}", value, signature)
        elif key in parameters:
            extra = ranges.tighter_annotation(node["_target_"], key)
            yield from _value_problems(f"{where}.{key}", value, parameters[key], extra)


def _value_problems(
    where: str, value: Any, parameter: inspect.Parameter, extra: Any
) -> Iterator[str]:
    annotation = parameter.annotation
    if source.UNREAD in (annotation, parameter.default):
        yield UNKNOWN
        return
    if value is None and parameter.default is None:
        return
    if problem := misfit(value, annotation) or (
        misfit(value, extra) if value is not None else None
    ):
        yield f"{where}={shown(value)}: {problem}"
