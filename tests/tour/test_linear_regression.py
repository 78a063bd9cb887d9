"""Gradient, descent and fit against calculus, eigenvalues and NumPy's least squares."""

import re

import numpy as np
import pytest
import torch

from src.tour.linear_regression import (
    analytic_gradient,
    autograd_gradient,
    closed_form,
    gradient_descent,
    make_data,
    mean_squared_error,
    predicted_beta,
)

DATA = make_data(dtype=torch.float64)
START = torch.tensor([[1.0], [0.0]], dtype=torch.float64)


def test_loss_and_gradient_by_hand():
    X, y, beta = torch.eye(2), torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1)
    assert mean_squared_error(X, y, beta).item() == 2.5  # (1 + 4) / 2
    for gradient in (analytic_gradient, autograd_gradient):
        assert gradient(X, y, beta).tolist() == [[-1], [-2]]  # -2/2 X'y


@pytest.mark.parametrize("beta", [(1.0, 0.0), (-1.0, 2.0), (30.0, -7.0)])
def test_gradients_agree_with_each_other_and_with_differences(beta):
    point = torch.tensor(beta, dtype=torch.float64).view(2, 1)
    analytic = analytic_gradient(*DATA, point)
    torch.testing.assert_close(autograd_gradient(*DATA, point), analytic, rtol=1e-12, atol=1e-14)
    steps = 1e-4 * torch.eye(2, dtype=torch.float64).view(2, 2, 1)
    slopes = [
        (mean_squared_error(*DATA, point + step) - mean_squared_error(*DATA, point - step)) / 2e-4
        for step in steps
    ]
    torch.testing.assert_close(analytic.flatten(), torch.stack(slopes), rtol=1e-7, atol=1e-9)


def test_the_tutorials_loss_is_the_same():
    X, y = DATA
    tutorial = torch.norm(y - X @ START) ** 2 / len(X)
    assert mean_squared_error(X, y, START).item() == pytest.approx(tutorial.item(), rel=1e-12)


def test_closed_form_agrees_with_numpy_and_has_no_slope():
    X, y = DATA
    best = closed_form(X, y)
    np.testing.assert_allclose(best, np.linalg.lstsq(X.numpy(), y.numpy())[0], rtol=1e-12)
    assert analytic_gradient(X, y, best).abs().max() < 1e-13
    assert best.flatten().tolist() == pytest.approx([-1, 2], abs=0.05)


def test_descent_is_foretold_at_every_step():
    for step, (loss, gradient, beta) in enumerate(gradient_descent(*DATA, START, 0.1, 20)):
        before = predicted_beta(*DATA, START, 0.1, step)
        assert loss == pytest.approx(mean_squared_error(*DATA, before).item(), rel=1e-11)
        torch.testing.assert_close(gradient, analytic_gradient(*DATA, before), rtol=1e-10, atol=0)
        after = predicted_beta(*DATA, START, 0.1, step + 1)
        torch.testing.assert_close(beta, after, rtol=1e-11, atol=1e-13)


def test_descent_ends_at_the_closed_form_and_leaves_its_start():
    start = START.clone()
    history = gradient_descent(*DATA, start, lr=0.1, steps=400)
    torch.testing.assert_close(history[-1].beta, closed_form(*DATA), rtol=1e-12, atol=0)
    assert torch.equal(start, START)
    assert not start.requires_grad


def test_data_repeat_and_carry_the_noise_asked_for():
    X, y = make_data(examples=20000, noise=0.1, dtype=torch.float64)
    residual = y - X @ torch.tensor([[-1.0], [2.0]], dtype=torch.float64)
    assert residual.std().item() == pytest.approx(0.1, rel=0.03)
    assert torch.equal(make_data()[1], make_data()[1])
    assert not torch.equal(make_data()[1], make_data(seed=1)[1])


def test_what_is_printed(chapter):
    lines = chapter("linear_regression").splitlines()
    found = [[float(n) for n in re.findall(r"-?\d+\.\d+", line)] for line in lines]
    table = [row for line, row in zip(lines, found, strict=True) if re.match(r" +\d+  \d", line)]
    history = gradient_descent(*make_data(), START.float(), lr=0.1, steps=20)
    expected = [[loss, *g.flatten().tolist(), *b.flatten().tolist()] for loss, g, b in history]
    np.testing.assert_allclose(table, expected, atol=1e-5)
    first = [found[lines.index(line) + 1] for line in lines if line.startswith("First gradient")]
    assert len(first) == 2
    np.testing.assert_allclose(first, [table[0][1:3]] * 2, atol=1e-5)
    least_squares, foretold = found[-3], found[-1]
    np.testing.assert_allclose(least_squares, closed_form(*make_data()).flatten(), atol=1e-5)
    np.testing.assert_allclose(foretold, table[-1][3:], atol=1e-5)
    assert table[-1][3:] == pytest.approx([-1, 2], abs=0.15)
