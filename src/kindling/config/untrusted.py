"""Check what a file of unknown origin may build: a checkpoint, a run directory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.kindling.config import masking, signatures
from src.kindling.config.targets import allowed_targets, is_allowed, is_instruction, nodes
from src.kindling.config.values import adapter
from src.kindling.errors import InputError, short_repr
from src.kindling.layout import Plain

PLAIN_TYPES = (dict, list, tuple, str, bool, int, float, type(None))
GROUPS = ("model", "data", "optimizer", "scheduler", "trainer")  # every run needs these
MAX_VALUES, MAX_DEPTH = 10_000, 20  # of a configuration; one of this project has 100 and 4


def check(settings: Any, source: Path, advice: Callable[[Path], str] = lambda source: "") -> Plain:
    """Return a configuration from a checkpoint or run directory, if it is harmless.

    Instructions to Hydra (`_target_` and other keys with an underscore) must match one in the same
    group of this project's conf/, or of a folder that this command adds to it, exactly: a name with
    only the same beginning can lead anywhere (`module.torch.load`). All other values must be plain
    data; the only interpolations allowed are environment variables that conf/ refers to at the same
    key. Nothing is imported before these checks pass.

    Args:
        settings: what was read.
        source: the file that it was read from.
        advice: returns the end of the error line about a `_target_` that is not in conf/.

    Raises:
        InputError: naming the value that is not allowed.
    """
    if not isinstance(settings, dict):
        raise InputError(f"{source} holds no configuration")
    allowed, variables = allowed_targets(), masking.environment_of_conf()
    for count, (place, value) in enumerate(nodes(settings)):
        if count > MAX_VALUES or len(place) > MAX_DEPTH:  # also catches cycles
            raise InputError(f"{source} holds a configuration that is too large to be one")
        if is_instruction(place) and not is_allowed(place, value, allowed):
            shown = f"{short_repr(value)} as {short_repr(place[-1])[1:-1]} of {place[0]}"
            raise InputError(f"{source} names {shown}, which is not in conf/{advice(source)}")
        if (place[:1] + place[-1:] + (value,) if isinstance(value, str) else ()) in variables:
            continue
        if problem := _violation(value):
            raise InputError(f"{source} {problem}")
    for group in GROUPS:
        if not isinstance(settings.get(group), dict) or "_target_" not in settings[group]:
            raise InputError(f"{source} has no _target_ for {group}")
    return settings


def _violation(value: Any) -> str | None:
    """Return the reason to refuse a value of a configuration; None if it is allowed."""
    if isinstance(value, dict):
        odd = [k for k in value if not (isinstance(k, str) and k.isprintable() and len(k) < 100)]
        return f"has an invalid key: {short_repr(odd[0])}" if odd else None
    if isinstance(value, str) and "${" in value:
        return f"holds {short_repr(value)}: an interpolation is not allowed here"
    if isinstance(value, PLAIN_TYPES):
        return None
    return f"holds a {type(value).__name__}, which is not plain data"


# Sizes --------------------------------------------------------------------------------------------


def arguments(kind: type[Any], held: Any, source: Path) -> Plain:
    """Return a constructor's arguments from a checkpoint, if they match its annotations.

    Raises:
        ValueError: naming the argument that does not match.
    """
    expected = signatures.from_object(kind).parameters
    if held is None and not expected.keys() - {"optimizer", "scheduler"}:
        return {}  # a constructor without arguments saves none
    if not isinstance(held, dict):
        raise ValueError(f"{source} holds no arguments of a {kind.__name__}")
    for name, value in held.items():
        fits = adapter(expected[name].annotation if name in expected else Any)
        try:
            if fits is not None:
                fits.validate_python(value, strict=True)
        except ValueError:  # includes pydantic's ValidationError
            shown = f"{short_repr(name)}: {short_repr(value)}"
            raise ValueError(f"{source} holds {shown}, not valid for {kind.__name__}") from None
    return held
