"""The question of a model: the typed arguments of one method, read before torch is imported."""

import inspect
import shlex
from collections.abc import Callable
from typing import Any

from src.kindling.config import signatures
from src.kindling.config.source import UNREAD, UnreadableError
from src.kindling.config.targets import allowed_targets
from src.kindling.config.values import misfit, shown
from src.kindling.errors import InputError, nearest
from src.kindling.layout import Plain

METHOD = "prediction_inputs"
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
Parameters = dict[str, inspect.Parameter]


def from_object(question: Callable[..., Any] | None) -> Parameters:
    """Return the arguments of a question by name; none without a question."""
    return dict(signatures.from_object(question).parameters) if question else {}


def from_source(config: Plain) -> tuple[Parameters, list[str]]:
    """Return the arguments of a run's question, and a line of help for each, without importing it.

    Args:
        config: the run's configuration; its targets must be those of conf/.

    Raises:
        UnreadableError: the source does not show them.
    """
    allowed = allowed_targets()
    for group in ("data", "model"):
        node = config.get(group)
        target = node.get("_target_") if isinstance(node, dict) else None
        if not isinstance(target, str) or (group, "_target_", target) not in allowed:
            raise UnreadableError(group)
        try:
            found = signatures.method(target, METHOD)
        except AttributeError as error:  # the class is gone
            raise UnreadableError(target) from error
        if found is not None:
            names = signatures.texts(found)
            parameters = list(signatures.parameters(found, frozenset(names)))[1:]  # not self
            return {p.name: p for p in parameters}, _help(parameters, names)
    return {}, []


def _help(parameters: list[inspect.Parameter], types: dict[str, str]) -> list[str]:
    """Return a line per argument: `length=80`, and its type."""
    parameters = [p for p in parameters if p.kind not in VARIADIC]
    typed = [f"{p.name}={_typed(p.default)}" for p in parameters]
    width = max(map(len, typed), default=0)
    kinds = [types[p.name] for p in parameters]
    return [f"{text:<{width}}  {kind}".rstrip() for text, kind in zip(typed, kinds, strict=True)]


def _typed(default: Any) -> str:
    """Return a default as it is typed on a command line."""
    if default is inspect.Parameter.empty:
        return "???"
    if default is UNREAD:
        return "..."
    return shlex.quote(default) if isinstance(default, str) else shown(default)


def check(parameters: Parameters, asked: Plain) -> None:
    """Validate what was asked against the arguments of the question.

    Raises:
        InputError: naming the key, what is wrong with it, and what can be asked instead.
    """
    keys = [p.name for p in parameters.values() if p.kind not in VARIADIC]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key, value in asked.items():
        if key not in keys:
            if takes_any:
                continue
            known = nearest(key, keys) if keys else ""
            raise InputError(f"{key}: this model is not asked for that{known}")
        annotation = parameters[key].annotation
        if annotation is not UNREAD and (problem := misfit(value, annotation)):
            raise InputError(f"{key}={value}: {problem}")
    empty = inspect.Parameter.empty
    for key in keys:
        if parameters[key].default is empty and key not in asked:
            raise InputError(f"{key} is missing: this model needs it to answer")
