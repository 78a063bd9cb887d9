"""Estimate how certain a mean over seeds is, and which differences are statistically significant.

Letters: n values of one setting, t Student's statistic, df its degrees of freedom.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mpmath import mp

LEVEL = 0.05  # the error rate of an interval, and of a family of tests


@dataclass(frozen=True)
class Summary:
    """Statistics of a metric over n seeds.

    Attributes:
        n: the number of values, one per seed.
        mean: their mean; NaN or infinite if one of them is.
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
    """Welch's test of two samples, identified by their places in a list.

    Attributes:
        first: place of the first sample.
        second: place of the second.
        difference: mean of the first minus that of the second.
        t: Welch's statistic.
        df: its degrees of freedom.
        p: the two-sided p-value of this test alone.
        p_holm: its p-value corrected for the number of tests by Holm's method.
    """

    first: int
    second: int
    difference: float
    t: float
    df: float
    p: float
    p_holm: float

    @property
    def significant(self) -> bool:
        """Whether the difference is significant, given the number of tests."""
        return self.p_holm < LEVEL


def summary(values: Sequence[float]) -> Summary:
    """Return mean, standard deviation and Student's 95% interval of the mean.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no values to summarize")
    n = len(values)
    mean, sd = _moments(values)
    if n < 2 or not math.isfinite(sd):
        return Summary(n, mean)
    half = quantile(n - 1) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation; the latter is NaN where it is undefined."""
    if len(set(values)) == 1:  # no rounding error without spread
        return values[0], 0.0 if len(values) > 1 and math.isfinite(values[0]) else math.nan
    with np.errstate(all="ignore"):  # the moments of infinite values are NaN
        return float(np.mean(values)), float(np.std(values, ddof=1))


def p_value(t: float, df: float) -> float:
    """Return the two-sided p-value of Student's t.

    That is the probability of a t at least as far from zero.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.1.
    """
    return float(mp.betainc(df / 2, 0.5, 0, df / (df + t * t), regularized=True))


@functools.cache
def quantile(df: float, level: float = LEVEL) -> float:
    """Return the t whose absolute value is exceeded with probability `level`."""
    low, high = 0.0, 2.0
    while p_value(high, df) > level:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):  # until they are neighbors
        low, high = (middle, high) if p_value(middle, df) > level else (low, middle)
    return high


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float] | None:
    """Test whether two means differ, without assuming equal variances.

    Returns:
        t, df, and p; None where the test does not apply: fewer than two values, NaN or infinite
        ones, no spread.

    Source: Welch, "The generalization of 'Student's' problem" (Biometrika, 1947).
    """
    if min(len(first), len(second)) < 2:
        return None
    (a, sd_a), (b, sd_b) = _moments(first), _moments(second)
    with np.errstate(all="ignore"):
        of_a, of_b = np.float64(sd_a) ** 2 / len(first), np.float64(sd_b) ** 2 / len(second)
        t = (a - b) / np.sqrt(of_a + of_b)
        df = (of_a + of_b) ** 2 / (of_a**2 / (len(first) - 1) + of_b**2 / (len(second) - 1))
    if not math.isfinite(df):  # t is finite if and only if df is
        return None
    return float(t), float(df), p_value(float(t), float(df))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values so that the family-wise error rate is that of a single test.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    p_holm, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        p_holm[place] = largest
    return p_holm


def differences(samples: Sequence[Sequence[float]]) -> list[Difference]:
    """Test each pair of samples where the test applies; correct for the number of tests."""
    pairs = [
        (i, j, *found)
        for i, j in itertools.combinations(range(len(samples)), 2)
        if (found := welch(samples[i], samples[j])) is not None
    ]
    means = [_moments(sample)[0] if sample else math.nan for sample in samples]
    p_holm = holm([p for *_, p in pairs])
    return [
        Difference(i, j, means[i] - means[j], t, df, p, corrected)
        for (i, j, t, df, p), corrected in zip(pairs, p_holm, strict=True)
    ]
