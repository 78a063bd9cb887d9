"""The layers against NumPy, and the activations against their formulas."""

import math
import re

import numpy as np
import pytest
import torch

from src.tour.layers import SIZES, Net, activations, draw_weights, linear_algebra, net_with


def numbers(line: str) -> list[float]:
    return [float(text) for text in re.findall(r"-?\d+\.\d*", line)]


def test_weights_have_the_shapes_between_the_sizes_and_repeat():
    weights = draw_weights()
    assert [tuple(weight.shape) for weight in weights] == [(10, 20), (20, 20), (20, 4)]
    assert all(weight.min() >= 0 and weight.max() < 1 for weight in weights)
    assert all(torch.equal(a, b) for a, b in zip(weights, draw_weights(), strict=True))
    assert not torch.equal(weights[0], draw_weights(seed=2)[0])


def test_linear_algebra_by_hand():
    x = torch.tensor([1.0, 2.0])
    weights = [
        torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]),
        torch.tensor([[1.0], [10.0], [100.0]]),
    ]
    assert linear_algebra(x, weights).tolist() == [1 + 20 + 300]


@pytest.mark.parametrize("shape", [(10,), (3, 10), (2, 3, 10)])
def test_linear_algebra_and_the_module_agree_with_numpy(shape):
    x, weights = torch.rand(shape, generator=torch.Generator().manual_seed(3)), draw_weights()
    expected = x.double().numpy()
    for weight in weights:
        expected = expected @ weight.double().numpy()
    assert expected.shape == (*shape[:-1], SIZES[-1])
    for output in (linear_algebra(x, weights), net_with(weights)(x).detach()):
        np.testing.assert_allclose(output.numpy(), expected, rtol=1e-5)


def test_net_has_the_tutorials_parameters():
    assert sum(parameter.numel() for parameter in Net().parameters()) == 220 + 420 + 84


def test_activations_at_known_points():
    x = torch.tensor([-1.0, 1.0, 0.0], dtype=torch.float64)
    found = activations(x)
    assert found["ReLU"].tolist() == [0, 1, 0]
    assert found["Tanh"].tolist() == pytest.approx([math.tanh(v) for v in (-1, 1, 0)])
    assert found["Sigmoid"].tolist() == pytest.approx([1 / (1 + math.e), 1 / (1 + 1 / math.e), 0.5])


def test_what_is_printed(chapter):
    lines = chapter("layers").splitlines()

    def after(sentence: str) -> str:
        return lines[next(i for i, line in enumerate(lines) if line.startswith(sentence)) + 1]

    by_hand, module = numbers(after("10 inputs")), numbers(after("The same weights"))
    assert len(by_hand) == 4
    assert min(by_hand) > 50
    assert module == pytest.approx(by_hand, rel=1e-5)
    assert max(map(abs, numbers(after("A module draws")))) < 2
    assert after("Linear layers alone").strip() == "True"
    assert "    ReLU    tensor([0., 1., 0.])" in lines
    assert "    Tanh    tensor([-0.7616,  0.7616,  0.0000])" in lines
    assert "    Sigmoid tensor([0.2689, 0.7311, 0.5000])" in lines
    assert after("nn.Linear(2, 3)").strip() == "(3, 2)"
    rows = [numbers(line) for line in lines if line.strip().startswith(("tensor([[", "["))]
    assert [len(row) for row in rows] == [2] * 9 + [3] * 9
    assert after("It computes x A' + b").strip() == "True"
    assert after("F.linear is the same").strip() == "True"
