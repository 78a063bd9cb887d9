"""Compare values with annotations, and say in a few words why one does not fit."""

import functools
import json
import re
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from src.kindling.config import ranges
from src.kindling.errors import InputError, nearest
from src.kindling.layout import Plain

# About Python objects, which a YAML cannot contain.
INTERNAL_ERRORS = ("is_instance_of", "needs_python_object")


def adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """Return a validator for an annotation; None if pydantic cannot make one."""
    try:
        return _adapter(annotation)
    except TypeError:  # not hashable
        return _adapter.__wrapped__(annotation)


@functools.lru_cache(maxsize=1024)
def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(
            annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
        )
    except Exception:  # annotations of other packages can fail in any way
        return None


def misfit(value: Any, annotation: Any) -> str | None:
    """Return why a value does not match an annotation; None if it does."""
    if (fits := adapter(annotation)) is None:
        return None
    try:
        # Strict, so that neither `no` nor `"3"` counts as a number; as JSON, because YAML has only
        # lists, even where an annotation is a tuple.
        fits.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        return join_messages(error.errors())
    return None


def check_options(options: Plain, annotations: Plain) -> None:
    """Refuse keys of a command other than src.train that do not match an annotation for each."""
    for key, annotation in annotations.items():
        if problem := misfit(options[key], annotation):
            raise InputError(f"{key}={shown(options[key])}: {problem}")


def join_messages(errors: list[Any]) -> str:
    """Join pydantic's messages into the end of one sentence.

    A union reports one error per member. Members that are Python objects mean nothing to a user;
    among the others, those that match except for one item are the most helpful.
    """
    errors = [error for error in errors if _place(error)] or errors
    messages = [_message(error) for error in errors if error["type"] not in INTERNAL_ERRORS]
    if not messages:
        return "not a valid value here"
    if not all(text.startswith("must be ") for text in messages):
        return " or ".join(dict.fromkeys(messages))
    choices = ", ".join(dict.fromkeys(text.removeprefix("must be ") for text in messages))
    *others, last = choices.split(", ")
    return f"must be {', '.join(others)} or {last}" if others else f"must be {last}"


def _message(error: Any) -> str:
    if error["type"] == "bool_type":
        return "must be true or false"
    if error["type"] == "literal_error":
        choices = re.findall("'([^']+)'", error["ctx"]["expected"])
        if len(choices) > 12:
            return f"there is no such choice{nearest(str(error['input']), choices)}"
        return f"must be {error['ctx']['expected']}".replace(" or ", ", ")
    if error["type"] == "string_pattern_mismatch" and error["ctx"]["pattern"] in ranges.PATTERNS:
        return ranges.PATTERNS[error["ctx"]["pattern"]]
    message = (
        str(error["msg"])
        .replace("Input should be", "must be")
        .replace("array", "list")
        .replace("an object", "a dictionary")
    )
    message = message[0].lower() + message[1:]
    message = "is missing" if error["type"] == "missing" else message
    return f"{_place(error)} {message}".strip()


def _place(error: Any) -> str:
    """Return the item of a list that an error is about, as `[0]`; empty for the entire value."""
    return "".join(f"[{part}]" for part in error["loc"] if isinstance(part, int))


def shown(value: Any) -> str:
    """Return a value as one line of YAML, which a command line takes too."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).split("\n")[0]
    return text if len(text) < 60 else f"{text[:57]}..."
