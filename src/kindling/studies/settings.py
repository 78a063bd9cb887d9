"""The settings of a study: the keys of conf/study/default.yaml."""

import importlib.util
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from src.kindling.errors import InputError
from src.kindling.layout import mode_of

Mode = Literal["min", "max"]


@dataclass(kw_only=True)
class StudySettings:
    """The settings of a study; conf/study/default.yaml says what each does."""

    name: str | None
    trials: NonNegativeInt
    workers: Annotated[int, Field(gt=0, le=1024)]
    metric: str | list[str] | None
    mode: Mode | list[Mode] | None
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    seeds: PositiveInt
    storage: str | None
    overrides: list[str]
    guesses: list[dict[str, Any]]
    constraints: list[str]
    timeout: PositiveFloat | None
    max_failures: PositiveInt
    heartbeat: PositiveInt
    allow_changes: bool
    confirm: NonNegativeInt
    confirm_top: PositiveInt
    sampler: Callable[..., Any]
    pruner: Any

    @property
    def metrics(self) -> list[str]:
        """The metrics that are named."""
        return (
            self.metric if isinstance(self.metric, list) else [self.metric] if self.metric else []
        )


def check_name(key: str, name: str) -> None:
    """Refuse a name that could not be a folder's.

    Raises:
        InputError: naming the key.
    """
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise InputError(
            f"{key}={name}: use letters, digits, '-', '_' and '.', at most 100, a letter or digit"
            " first"
        )


def need_scipy(choice: str) -> None:
    """Refuse what needs SciPy where that is missing.

    Raises:
        InputError: naming the choice.
    """
    if importlib.util.find_spec("scipy") is None:
        raise InputError(f"{choice} needs SciPy; pip install scipy")


def limits(constraints: list[str]) -> dict[str, float]:
    """Return the largest allowed value by metric: {"train/memory_mb": 800.0}.

    Raises:
        InputError: a constraint is not readable.
    """
    found: dict[str, float] = {}
    for constraint in constraints:
        name, _, largest = constraint.partition("<=")
        try:
            found[name.strip()] = float(largest)
            if math.isnan(found[name.strip()]):
                raise ValueError
        except ValueError:
            raise InputError(
                f"study.constraints={constraint}: write a metric and its largest value,"
                " train/memory_mb<=800"
            ) from None
    return found


def directions(metrics: list[str], mode: Any, known: dict[str, str | None]) -> list[str]:
    """Return "min" or "max" per metric: as given, as known, or as its name suggests.

    Args:
        metrics: those that are optimized.
        mode: the setting.
        known: the mode of the metric that ranks checkpoints, by its name.

    Raises:
        InputError: there are more or fewer modes than metrics, or the mode of one is unclear.
    """
    if isinstance(mode, list):
        if len(mode) != len(metrics):
            raise InputError(f"study.mode: {len(mode)} for {len(metrics)} metrics; one per metric")
        return mode
    found = []
    for name in metrics:
        if not (one := mode or known.get(name) or mode_of(name)):
            raise InputError(f"study.mode: is {name} better when lower (min) or higher (max)?")
        found.append(one)
    return found
