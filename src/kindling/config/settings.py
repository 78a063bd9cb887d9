"""What a configuration may be: its schema is the code that it configures.

A key is right if the constructor that its `_target_` names takes it, and a value is right if it
fits that argument's annotation.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError

from src.kindling.config import ranges, signatures, targets
from src.kindling.errors import InputError, first_line, nearest
from src.kindling.layout import CONF, Plain

Signature = Callable[[str, frozenset[str]], inspect.Signature]
UNKNOWN = ""  # in place of a line, where the source alone does not tell whether there is a problem
WORDS = {"Input should be": "must be", "array": "list", "an object": "a dictionary"}
INTERNAL_ERRORS = ("is_instance_of", "needs_python_object")  # objects, where text was given


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
    log_dir: Annotated[str, Field(min_length=1)]
    resume: str | None
    allow_changes: bool = False  # where a default stands, files of older versions have no such key
    init_from: str | None = None
    steps_per_execution: PositiveInt
    compile: bool
    # Far more than any machine has; a number without end would end the process.
    threads: Annotated[int, Field(gt=0, le=1024)] | None


def validate(config: Plain) -> None:
    """Check a resolved training configuration against the code that it configures.

    Raises:
        InputError: naming every key that is wrong, and why.
    """
    if found := problems(config):
        raise InputError("; ".join(found))


def problems(config: Plain, quick: bool = False) -> list[str]:
    """Return what is wrong with a resolved training configuration, a line a key.

    The top-level keys come first; where one is wrong, the groups' keys that repeat it (`data.seed`)
    are not told as well, and nothing is imported to look further.

    Args:
        config: the configuration.
        quick: leave out what only the imported code can tell.
    """
    try:
        TrainSettings.model_validate(config, strict=True)
    except ValidationError as error:
        wrong = {str(each["loc"][0]) for each in error.errors()}
        groups = {key: node for key, node in config.items() if isinstance(node, dict)}
        return _top_level_problems(error.errors()) + [
            line
            for key, node in groups.items()
            for line in _problems(key, node, signatures.from_source)
            if line != UNKNOWN and line.partition("=")[0].rpartition(".")[2] not in wrong
        ]
    if missing := _trainer_keys() - config["trainer"].keys():
        return [f"trainer.{key} is missing" for key in sorted(missing)]
    found = _constructor_problems(config, signatures.from_source)
    known = [line for line in found if line != UNKNOWN] or targets.problems(config)
    if known or UNKNOWN not in found or quick:
        return known
    # Importing takes seconds.
    return [line for line in _constructor_problems(config, _imported) if line != UNKNOWN]


def _constructor_problems(config: Plain, signature: Signature) -> list[str]:
    return [line for key, node in config.items() for line in _problems(key, node, signature)]


def node_problems(where: str, node: Plain) -> list[str]:
    """Return what is wrong with a node outside of a training configuration, one line per key."""
    for signature in (signatures.from_source, _imported):
        found = list(_problems(where, node, signature))
        if known := [line for line in found if line != UNKNOWN]:
            return known
        if UNKNOWN not in found:
            return []
    return []


def _trainer_keys() -> set[str]:
    """Return the keys that every trainer has; a file from elsewhere may lack them."""
    return set(yaml.safe_load((CONF / "trainer" / "default.yaml").read_text(encoding="utf-8")))


def _top_level_problems(errors: list[Any]) -> list[str]:
    by_key: dict[str, list[Any]] = {}
    for error in errors:
        by_key.setdefault(str(error["loc"][0]), []).append(error)
    return [_top_level_problem(key, its) for key, its in by_key.items()]


def _top_level_problem(key: str, errors: list[Any]) -> str:
    if errors[0]["type"] == "extra_forbidden":
        return f"{key}: there is no such key{nearest(key, list(TrainSettings.model_fields))}"
    if errors[0]["type"] == "missing":
        return f"{key} is missing"
    return f"{key}={_shown(errors[0]['input'])}: {_join_messages(errors)}"


def _imported(target: str, names: frozenset[str]) -> inspect.Signature:
    return signatures.from_object(signatures.locate(target))


def _problems(where: str, node: Any, signature: Signature) -> Iterator[str]:
    """Yield what is wrong with a node of the configuration and those below it, or UNREAD."""
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
    except signatures.UnreadableError:
        yield UNKNOWN
        return
    except (ImportError, AttributeError, ValueError) as error:
        yield f"{where}._target_={node['_target_']}: {first_line(error)}"
        return
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key, value in node.items():
        if key.startswith("_"):
            continue
        if instead := ranges.decided(str(node["_target_"]), key):
            yield f"{where}.{key}: this is decided by the run itself: use {instead}"
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
    if signatures.UNREAD in (annotation, parameter.default):
        yield UNKNOWN
        return
    if value is None and parameter.default is None:
        return
    if problem := misfit(value, annotation) or (
        misfit(value, extra) if value is not None else None
    ):
        yield f"{where}={_shown(value)}: {problem}"


def adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """Return what holds values to an annotation; None where pydantic cannot tell what fits it."""
    try:
        return TypeAdapter(
            annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
        )
    except Exception:  # a foreign annotation can fail in any way
        return None


def misfit(value: Any, annotation: Any) -> str | None:
    """Say why a value does not fit an annotation; None if it does."""
    if (fits := adapter(annotation)) is None:
        return None
    try:
        # Strictly, so that `no` is not taken for a number or `"3"` for 3; as JSON, because a YAML
        # has lists where an annotation may say tuple.
        fits.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        return _join_messages(error.errors())
    return None


def _join_messages(errors: list[Any]) -> str:
    """Return pydantic's words as the end of one sentence.

    A union gives an error a member; members that stand for objects say nothing to a user, and of
    the others those that are right but for a part say most.
    """
    errors = [error for error in errors if _place(error)] or errors
    said = [_message(error) for error in errors if error["type"] not in INTERNAL_ERRORS]
    if not said:
        return "this is not what is expected here"
    if not all(text.startswith("must be ") for text in said):
        return " or ".join(dict.fromkeys(said))
    choices = ", ".join(dict.fromkeys(text.removeprefix("must be ") for text in said))
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
    """Return which item of a list an error is about, as `[0]`; nothing where it is about all."""
    return "".join(f"[{part}]" for part in error["loc"] if isinstance(part, int))


def _shown(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).split("\n")[0]
    return text if len(text) < 60 else f"{text[:57]}..."
