"""Search spaces: Hydra's own override words, as Optuna's distributions."""

import fnmatch
import math
import warnings
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException
from optuna import Trial
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from src.kindling.cli.composition import group_names, option_names
from src.kindling.errors import InputError, first_line

Value = str | int | float | bool | None
WORDS = "interval(a,b), int(interval(a,b)), range(a,b,step), choice(x,y,...) or tag(log, ...)"


@dataclass(frozen=True)
class Dimension:
    """One key that is searched.

    Attributes:
        key: of the training configuration: `optimizer.lr`, or a group: `optimizer`.
        word: how its values were given: `interval(0.1, 1)`.
        distribution: the same for Optuna.
    """

    key: str
    word: str
    distribution: BaseDistribution

    @property
    def is_group(self) -> bool:
        """Whether a value is an option of a configuration group."""
        return self.key in group_names()

    @property
    def samples(self) -> list[Value]:
        """Return values that stand for all in a check: each choice, or the ends of an interval."""
        found: Any = self.distribution
        if isinstance(found, CategoricalDistribution):
            return list(found.choices)
        return [found.low, found.high]

    @property
    def values(self) -> list[Value]:
        """Return all values of a choice or a range.

        Raises:
            InputError: an interval has no end of them.
        """
        found: Any = self.distribution
        if isinstance(found, CategoricalDistribution):
            return list(found.choices)
        if isinstance(found, FloatDistribution) and found.step is None:
            raise InputError(
                f"{self.key}={self.word}: a grid needs choice(...) or range(...), not an interval"
            )
        count = round((found.high - found.low) / found.step) + 1
        return [found.low + place * found.step for place in range(count)]

    def draw(self, trial: Trial) -> Value:
        """Return the trial's value of this key."""
        found: Any = self.distribution
        if isinstance(found, CategoricalDistribution):
            return trial.suggest_categorical(self.key, found.choices)
        if isinstance(found, IntDistribution):
            return trial.suggest_int(
                self.key, found.low, found.high, step=found.step, log=found.log
            )
        return trial.suggest_float(self.key, found.low, found.high, step=found.step, log=found.log)

    def contains(self, value: Any) -> bool:
        """Say whether a value can be drawn."""
        found: Any = self.distribution
        if isinstance(found, CategoricalDistribution):
            return any(value == choice and type(value) is type(choice) for choice in found.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if isinstance(found, IntDistribution) and value != int(value):
            return False
        steps = (value - found.low) / found.step if found.step else 0.0
        return bool(found.low <= value <= found.high and math.isclose(steps, round(steps)))


def split(words: list[str]) -> tuple[list[str], list[Dimension]]:
    """Return the overrides that set a value, and the dimensions that the others search.

    Raises:
        InputError: an override cannot be read, or its values cannot be searched.
    """
    plain: dict[str, str] = {}
    dimensions: dict[str, Dimension] = {}
    for word in words:
        override = _parsed(word)
        key, _, value = word.partition("=")
        searched = override.is_sweep_override()
        if key in dimensions or (searched and key in plain.values()):
            raise InputError(f"{word}: {key} is searched, and given twice; leave one out")
        if not searched:
            plain[word] = key
            continue
        if not key[0].isalpha():
            raise InputError(f"{key}: a key that is searched must be one that src.train has")
        dimensions[key] = Dimension(key, value.strip(), _distribution(override, word))
        if dimensions[key].is_group and not isinstance(override.value(), ChoiceSweep | Glob):
            raise InputError(f"{word}: {key} is a group; choice(...) draws one of its options")
    return list(plain), list(dimensions.values())


def text(value: Value) -> str:
    """Return a drawn value as an override has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if isinstance(value, float) else str(value)


def parsed(key: str, value: Value) -> Any:
    """Return what a drawn value stands for: the list [1, 2] for the choice "[1,2]"."""
    found = _parsed(f"{key}={value}").value() if isinstance(value, str) else value
    return found.text if isinstance(found, QuotedString) else found


def _parsed(word: str) -> Override:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        reason = f"not readable as key=value ({first_line(error)}); {WORDS}"
        if "NoneType" in first_line(error):
            reason = "choice(...) takes no null; write the values without it: KEY=null,1"
        raise InputError(f"{word}: {reason}") from None


def _distribution(override: Override, word: str) -> BaseDistribution:
    sweep: Any = override.value()
    tags: set[str] = getattr(sweep, "tags", set())  # glob(*) has none
    log = "log" in tags
    if unknown := tags - {"log"}:
        raise InputError(f"{word}: tag {min(unknown)} is not known; the only one is log")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a range whose end is not one of its steps
            if isinstance(sweep, IntervalSweep):
                return _interval(sweep, log)
            if isinstance(sweep, RangeSweep):
                return _range([*override.sweep_iterator()], sweep, log)
            assert isinstance(sweep, ChoiceSweep | Glob)
            if log:
                raise TypeError("a choice has no scale: leave out tag(log, ...)")
            return CategoricalDistribution(_choices(override))
    except (ValueError, TypeError, UserWarning) as error:
        raise InputError(f"{word}: {_reason(error)}") from None


def _interval(sweep: IntervalSweep, log: bool) -> BaseDistribution:
    low, high = sweep.start, sweep.end
    if low is None or high is None or not -math.inf < low < high < math.inf:
        raise ValueError("an interval goes from a number to a larger one")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _range(values: list[Any], sweep: RangeSweep, log: bool) -> BaseDistribution:
    if not values:
        raise ValueError("the range holds no value")
    if log and abs(sweep.step) != 1:
        raise TypeError("a range with steps has no scale: use interval")
    if all(isinstance(value, int) for value in values):
        return IntDistribution(min(values), max(values), log=log, step=abs(int(sweep.step)))
    return FloatDistribution(
        round(min(values), 12), round(max(values), 12), step=abs(float(sweep.step))
    )


def _choices(override: Override) -> list[Value]:
    found: Any = override.value()
    if isinstance(found, Glob):
        return [
            option
            for option in option_names(override.key_or_group)
            if any(fnmatch.fnmatch(option, pattern) for pattern in found.include)
            and not any(fnmatch.fnmatch(option, pattern) for pattern in found.exclude)
        ]
    if any(isinstance(value, Sweep) for value in found.list):
        raise ValueError("a choice is between values, not between search words")
    pairs = zip(override.sweep_iterator(), override.sweep_string_iterator(), strict=True)
    # Optuna knows numbers and text; a list or a quoted word is kept as it was typed.
    return [v if isinstance(v, bool | int | float) else shown for v, shown in pairs]


def _reason(error: BaseException) -> str:
    line = first_line(error)
    if isinstance(error, TypeError):
        return line
    return "a logarithmic scale needs values above 0" if "log" in line else line
