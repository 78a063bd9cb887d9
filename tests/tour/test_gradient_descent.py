"""The descent against its closed form and the tutorial's printed table."""

import pytest
import torch

from src.tour.gradient_descent import closed_form, descend, parabola

TUTORIAL = """\
0 5.000 9.000 6.000
1 3.500 2.250 3.000
2 2.750 0.562 1.500
3 2.375 0.141 0.750
4 2.188 0.035 0.375
5 2.094 0.009 0.188
6 2.047 0.002 0.094
7 2.023 0.001 0.047
8 2.012 0.000 0.023
9 2.006 0.000 0.012
10 2.003 0.000 0.006
11 2.001 0.000 0.003
12 2.001 0.000 0.001
13 2.000 0.000 0.001
14 2.000 0.000 0.000"""


def test_the_printed_table_is_the_tutorials_row_by_row(chapter):
    rows = [line.split() for line in chapter("gradient_descent").splitlines()]
    table = [row for row in rows if len(row) == 4 and row[0].isdecimal()]
    assert table == [line.split() for line in TUTORIAL.splitlines()]


def test_the_end_is_printed_truly(chapter):
    text = chapter("gradient_descent")
    assert "x 2.0001  f(x) 8.3819e-09" in text  # 2 + 3/2^15 and 9/2^30
    assert "f'(x) 1.8311e-04" in text  # 6/2^15, where the tutorial prints a cleared 0
    assert "f(x) 3.3528e-08" in text  # 9/2^28, the tutorial's last y


@pytest.mark.parametrize(("start", "lr"), [(5.0, 0.25), (-3.0, 0.1), (2.5, 0.6), (4.0, 1.0)])
def test_descent_follows_the_closed_form(start, lr):
    for step, (x, value, slope) in enumerate(descend(parabola, start, lr, 12)):
        expected = closed_form(start, lr, step)
        assert x == pytest.approx(expected, abs=1e-5)
        assert value == pytest.approx((expected - 2) ** 2, abs=1e-4)
        assert slope == pytest.approx(2 * (expected - 2), abs=1e-4)


def test_closed_form_by_hand():
    assert [closed_form(5, 0.25, step) for step in (0, 1, 2, 15)] == [5, 3.5, 2.75, 2 + 3 / 2**15]


def test_descent_takes_any_function():
    points = descend(lambda x: torch.exp(x).sum(), start=0.0, lr=1.0, steps=1)
    assert points[0] == pytest.approx((0, 1, 1))
    assert points[1].x == pytest.approx(-1)
