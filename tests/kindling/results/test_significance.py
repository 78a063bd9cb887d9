"""Student's t against published tables, Welch and Holm against worked examples."""

import math

import numpy as np
import pytest

from src.kindling.results import significance
from src.kindling.results.significance import differences, holm, p_value, quantile, summary, welch

# Two-sided, as in the tables of Fisher and Yates.
TABLE = {
    0.05: {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 10: 2.228, 30: 2.042, 120: 1.980},
    0.01: {1: 63.657, 2: 9.925, 5: 4.032, 10: 3.169, 60: 2.660},
}
# Two samples of the article "Welch's t-test" in Wikipedia: t = -2.46, df = 25.0, p = 0.021.
A = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4]
B = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4]


@pytest.mark.parametrize(("level", "df"), [(level, df) for level in TABLE for df in TABLE[level]])
def test_the_quantile_is_that_of_the_tables(level, df):
    assert quantile(df, level) == pytest.approx(TABLE[level][df], abs=6e-4)
    assert p_value(quantile(df, level), df) == pytest.approx(level, rel=1e-9)


def test_the_p_value_has_its_closed_forms():
    for t in (0.1, 1.0, 2.5, 40.0):  # of Cauchy's distribution, and of df = 2
        assert p_value(t, 1) == pytest.approx(1 - 2 * math.atan(t) / math.pi, rel=1e-9)
        assert p_value(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-9)
        assert p_value(-t, 3.5) == p_value(t, 3.5)
    assert p_value(0, 5) == 1


def test_a_summary_worked_by_hand():
    found = summary([1.0, 2.0, 3.0])
    assert (found.n, found.mean, found.sd) == (3, 2.0, 1.0)
    half = 4.302652729911275 / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), rel=1e-9)


def test_few_or_infinite_values_have_no_interval():
    assert vars(summary([2.0])) == {"n": 1, "mean": 2.0, "sd": None, "low": None, "high": None}
    for values in ([1.0, math.nan], [1.0, math.inf], [math.inf, math.inf], [1e308, -1e308]):
        found = summary(values)
        assert (found.sd, found.low, found.high) == (None, None, None)
    assert math.isnan(summary([1.0, math.nan]).mean)
    with pytest.raises(ValueError, match="no values"):
        summary([])


def test_equal_values_have_no_spread():
    found = summary([0.1, 0.1, 0.1])
    assert (found.mean, found.sd, found.low, found.high) == (0.1, 0.0, 0.1, 0.1)


def test_an_interval_covers_the_mean_95_times_in_100():
    generator = np.random.default_rng(0)
    drawn = [summary(list(generator.normal(3, 2, size=3))) for _ in range(2000)]
    covered = sum(found.low < 3 < found.high for found in drawn)
    assert 0.935 < covered / 2000 < 0.965


def test_welch_of_a_published_example():
    t, df, p = welch(A, B)
    assert t == pytest.approx(-2.46, abs=5e-3)
    assert df == pytest.approx(25.0, abs=5e-2)
    assert p == pytest.approx(0.021, abs=5e-4)
    assert welch(B, A) == pytest.approx((-t, df, p))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1.0], [1.0, 2.0]),
        ([], [1.0, 2.0]),
        ([1.0, 1.0], [2.0, 2.0]),
        ([math.nan, 1.0], [1.0, 2.0]),
    ],
)
def test_where_welch_does_not_apply_nothing_is_said(first, second):
    assert welch(first, second) is None


def test_a_sample_without_spread_is_tested_against_one_with():
    t, df, p = welch([1.0, 1.0, 1.0], [0.8, 0.9, 0.85])
    assert df == pytest.approx(2)  # that of the sample that varies
    assert t == pytest.approx(0.15 / (0.05 / math.sqrt(3)))
    assert p == pytest.approx(p_value(t, 2))


def test_chance_is_called_significant_5_times_in_100():
    generator = np.random.default_rng(1)
    found = [welch(*generator.normal(0, 1, size=(2, 5)).tolist())[2] for _ in range(1000)]
    assert 0.03 < np.mean(np.array(found) < 0.05) < 0.07


def test_holm_of_a_published_example():
    # Of the article "Holm-Bonferroni method" in Wikipedia.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_all_pairs_are_tested_and_corrected_for_their_number():
    samples = [[1.0, 1.1, 0.9], [2.0, 2.1, 1.9], [1.0, 1.2, 0.8], [5.0]]
    found = differences(samples)
    assert [(d.first, d.second) for d in found] == [(0, 1), (0, 2), (1, 2)]
    assert [d.significant for d in found] == [True, False, True]
    assert found[0].difference == pytest.approx(-1.0)
    assert found[0].p_holm == pytest.approx(3 * found[0].p)
    assert [d.p for d in found] == [welch(samples[d.first], samples[d.second])[2] for d in found]


def test_scipy_says_the_same():
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    generator = np.random.default_rng(2)
    for n, m in ((2, 2), (3, 7), (20, 5)):
        a, b = generator.normal(0, 1, n).tolist(), generator.normal(0.5, 3, m).tolist()
        theirs = stats.ttest_ind(a, b, equal_var=False)
        assert welch(a, b) == pytest.approx((theirs.statistic, theirs.df, theirs.pvalue), rel=1e-9)
        low, high = stats.t.interval(0.95, n - 1, loc=np.mean(a), scale=stats.sem(a))
        assert (summary(a).low, summary(a).high) == pytest.approx((low, high), rel=1e-9)
    assert significance.LEVEL == 0.05


def test_welch_of_samples_of_different_sizes_worked_by_hand():
    # Means 1 and 2; variances of the means 2 / 2 = 1 and (4 / 3) / 4 = 1 / 3.
    t, df, p = welch([0.0, 2.0], [1.0, 1.0, 3.0, 3.0])
    assert t == pytest.approx(-1 / math.sqrt(4 / 3))
    assert df == pytest.approx((4 / 3) ** 2 / (1 / 1 + (1 / 9) / 3))
    assert p == pytest.approx(p_value(t, 12 / 7))


def test_one_finite_and_one_infinite_sample_are_not_tested():
    assert welch([math.inf, math.inf], [1.0, 2.0]) is None


def test_significance_is_decided_after_the_correction():
    pair = significance.Difference(0, 1, difference=1.0, t=3.0, df=4.0, p=0.03, p_holm=0.09)
    assert not pair.significant
