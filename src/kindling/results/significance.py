"""How sure a mean over seeds is, and which differences between settings are more than chance.

Letters: n values of one setting, t Student's statistic, v its degrees of freedom.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mpmath import mp

LEVEL = 0.05  # the chance of error that an interval, and a family of tests, may have


@dataclass(frozen=True)
class Summary:
    """What is known of a metric from n seeds.

    Attributes:
        n: values, the same as seeds.
        mean: their mean; not a number, or infinite, where one of them is.
        sd: their standard deviation (n - 1 in the denominator); None for fewer than two values.
        low: lower end of the 95% interval of the mean; None as `sd`.
        high: its upper end.
    """

    n: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Difference:
    """Welch's test of two settings, given by their places in a list.

    Attributes:
        first: place of the one setting.
        second: place of the other.
        difference: mean of the first less that of the second.
        t: Welch's statistic.
        v: its degrees of freedom.
        p: the two-sided p-value of this test alone.
        corrected: the p-value for its part in all the tests, by Holm's method.
    """

    first: int
    second: int
    difference: float
    t: float
    v: float
    p: float
    corrected: float

    @property
    def significant(self) -> bool:
        """Whether the difference is more than chance, in so many tests."""
        return self.corrected < LEVEL


def summary(values: Sequence[float]) -> Summary:
    """Return mean, standard deviation and Student's 95% interval of the mean.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no values to summarise")
    n = len(values)
    mean, sd = _moments(values)
    if n < 2 or not math.isfinite(sd):
        return Summary(n, mean)
    half = quantile(n - 1) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation; the latter is not a number where there is none."""
    if len(set(values)) == 1:  # no rounding where there is no spread
        return values[0], 0.0 if len(values) > 1 and math.isfinite(values[0]) else math.nan
    with np.errstate(all="ignore"):  # infinite values have moments that are no numbers
        return float(np.mean(values)), float(np.std(values, ddof=1))


def p_value(t: float, v: float) -> float:
    """Return the chance of a t as far from zero as this one, on either side.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.1.
    """
    return float(mp.betainc(v / 2, 0.5, 0, v / (v + t * t), regularized=True))


@functools.cache
def quantile(v: float, level: float = LEVEL) -> float:
    """Return the t that is exceeded, on either side, with the chance `level`."""
    low, high = 0.0, 2.0
    while p_value(high, v) > level:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):  # until there is no number between
        low, high = (middle, high) if p_value(middle, v) > level else (low, middle)
    return high


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float] | None:
    """Test whether two means differ, without taking the spreads for equal.

    Returns:
        t, v and p; None where it does not apply: fewer than two values, infinite ones, no spread.

    Source: Welch, "The generalization of 'Student's' problem" (Biometrika, 1947).
    """
    if min(len(first), len(second)) < 2:
        return None
    (a, sd_a), (b, sd_b) = _moments(first), _moments(second)
    with np.errstate(all="ignore"):
        of_a, of_b = np.float64(sd_a) ** 2 / len(first), np.float64(sd_b) ** 2 / len(second)
        t = (a - b) / np.sqrt(of_a + of_b)
        v = (of_a + of_b) ** 2 / (of_a**2 / (len(first) - 1) + of_b**2 / (len(second) - 1))
    if not (math.isfinite(t) and math.isfinite(v)):
        return None
    return float(t), float(v), p_value(float(t), float(v))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected so that all tests together err with the chance of one.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def differences(samples: Sequence[Sequence[float]]) -> list[Difference]:
    """Test each pair of samples that can be, and correct for their number."""
    pairs = [
        (i, j, *found)
        for i, j in itertools.combinations(range(len(samples)), 2)
        if (found := welch(samples[i], samples[j])) is not None
    ]
    means = [_moments(sample)[0] if sample else math.nan for sample in samples]
    corrected = holm([p for *_, p in pairs])
    return [
        Difference(i, j, means[i] - means[j], t, v, p, in_all)
        for (i, j, t, v, p), in_all in zip(pairs, corrected, strict=True)
    ]
