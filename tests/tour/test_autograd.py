"""Gradients against hand-worked values, calculus and finite differences."""

import math

import pytest
import torch

from src.tour.autograd import (
    gradients,
    line,
    mean_of_product,
    mean_of_product_gradients,
    product_of_sum,
    wave,
    wave_gradient,
)
from src.tour.gradient_descent import parabola


def scalars(*values: float) -> list[torch.Tensor]:
    return [torch.tensor(value) for value in values]


def test_product_of_sum():
    assert gradients(product_of_sum, *scalars(-3.0, 5.0, -2.0)) == (-2, -2, 2)


def test_line():
    assert gradients(line, *scalars(1.0, 2.0, 3.0)) == (2, 1, 1)


def test_parabola():
    assert gradients(parabola, torch.tensor([1.0]))[0].tolist() == [-2]


def test_wave_is_2_and_2_pi_minus_1():
    assert wave_gradient(math.pi, 1) == pytest.approx((2, 2 * math.pi - 1), rel=1e-15)
    (found,) = gradients(wave, torch.tensor([math.pi, 1], dtype=torch.float64))
    assert found.tolist() == pytest.approx([2, 2 * math.pi - 1], rel=1e-15)


@pytest.mark.parametrize("point", [(0.3, -2.0), (-1.7, 0.4), (5.0, 3.0)])
def test_wave_gradient_agrees_with_differences(point):
    step = 1e-6

    def value(w1: float, w2: float) -> float:
        return 2 * w1 * w2 + w2 * math.cos(w1)

    a, b = point
    slopes = (
        (value(a + step, b) - value(a - step, b)) / (2 * step),
        (value(a, b + step) - value(a, b - step)) / (2 * step),
    )
    assert wave_gradient(a, b) == pytest.approx(slopes, rel=1e-7)


@pytest.mark.parametrize(("n", "k", "m"), [(2, 2, 2), (3, 4, 5)])
def test_mean_of_product_agrees_with_calculus(n, k, m):
    generator = torch.Generator().manual_seed(1)
    shapes = (n, k), (k, m), (n, m)
    inputs = [torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    found = gradients(mean_of_product, *inputs)
    for a, b in zip(found, mean_of_product_gradients(*inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_mean_of_product_by_hand():
    # z * (x y) with 1 x 1 matrices is a plain product: each gradient is the other two's product.
    inputs = torch.tensor([[[2.0]], [[3.0]], [[5.0]]]).unbind()
    assert [g.item() for g in mean_of_product_gradients(*inputs)] == [15, 10, 6]


def test_gradients_leave_the_inputs_and_refuse_a_constant():
    x = torch.tensor(3.0)
    gradients(parabola, x)
    assert not x.requires_grad
    assert x.grad is None
    with pytest.raises(RuntimeError):
        gradients(lambda a, b: a * 2, x, x)


def test_what_is_printed(chapter):
    lines = [text.strip() for text in chapter("autograd").splitlines()]
    for node, rule, value in (
        ("x", "z", -2), ("y", "z", -2), ("z", "q", 2), ("q", "z", -2), ("f", "1", 1)
    ):  # fmt: skip
        assert f"df/d{node} = {rule} = {value}.0" in lines
    start = next(i for i, text in enumerate(lines) if text.startswith("y = w x + b"))
    assert lines[start + 1 : start + 4] == ["tensor(2.)", "tensor(1.)", "tensor(1.)"]
    start = next(i for i, text in enumerate(lines) if text.startswith("They are z y' / 4"))
    assert lines[start + 1] == "True"
    assert "tensor([-2.])" in lines
    assert "tensor([-4.])" in lines
    assert "tensor([2.0000, 5.2832])" in lines
    assert "(2.0000, 5.2832)" in lines
    assert "slip" in lines[-1]
    assert "2 pi - 1" in lines[-1]
