"""The neuron and the small network against plain Python arithmetic."""

import math

import pytest
import torch

from src.tour.neuron import (
    draw_network,
    draw_neuron,
    network,
    neuron_by_product,
    neuron_by_sum,
    refusal,
    shares_memory,
    sigmoid,
)


def squash(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_sigmoid_at_known_points():
    values = sigmoid(torch.tensor([0.0, math.log(3), -math.log(3)], dtype=torch.float64))
    assert values.tolist() == pytest.approx([0.5, 0.75, 0.25])
    x = torch.linspace(-8, 8, 50)
    torch.testing.assert_close(sigmoid(x), torch.sigmoid(x))


def test_neuron_by_plain_arithmetic():
    features, weights, bias = draw_neuron()
    pairs = zip(features[0].tolist(), weights[0].tolist(), strict=True)
    expected = squash(sum(x * w for x, w in pairs) + bias.item())
    assert expected == pytest.approx(0.1595, abs=5e-5)
    for way in (neuron_by_sum, neuron_by_product):
        output = way(features, weights, bias)
        assert output.shape == (1, 1)
        assert output.item() == pytest.approx(expected, rel=1e-6)


def test_the_draw_is_the_tutorials():
    torch.manual_seed(7)
    features = torch.randn(1, 5)
    expected = features, torch.randn_like(features), torch.randn(1, 1)
    assert all(torch.equal(a, b) for a, b in zip(draw_neuron(), expected, strict=True))
    torch.manual_seed(7)
    expected_network = [torch.randn(s) for s in ((1, 3), (3, 2), (2, 1), (1, 2), (1, 1))]
    assert all(torch.equal(a, b) for a, b in zip(draw_network(), expected_network, strict=True))


def test_network_by_plain_arithmetic():
    features, W1, W2, B1, B2 = (tensor.tolist() for tensor in draw_network())
    hidden = [squash(sum(features[0][i] * W1[i][j] for i in range(3)) + B1[0][j]) for j in range(2)]
    expected = squash(sum(hidden[j] * W2[j][0] for j in range(2)) + B2[0][0])
    assert expected == pytest.approx(0.3171, abs=5e-5)
    assert network(*draw_network()).item() == pytest.approx(expected, rel=1e-6)


def test_refusal_tells_the_error_or_nothing():
    row = torch.ones(1, 5)
    assert "(1x5 and 1x5)" in refusal(lambda: row.mm(row))
    assert refusal(lambda: row.mm(row.t())) == ""
    with pytest.raises(ValueError, match="other"):
        refusal(lambda: (_ for _ in ()).throw(ValueError("other")))


def test_shares_memory():
    x = torch.arange(4.0)
    assert shares_memory(x, x.view(2, 2))
    assert shares_memory(x, x[2:])
    assert not shares_memory(x, x.clone())


def test_what_is_printed(chapter):
    text = chapter("neuron")
    assert text.count("tensor([[0.1595]])") == 2
    assert text.count("tensor([[0.3171]])") == 1
    errors = [line for line in text.splitlines() if "RuntimeError: " in line]
    assert errors[0].endswith("mat1 and mat2 shapes cannot be multiplied (1x5 and 1x5)")
    assert "RuntimeError: view size is not compatible" in text
    shared = {
        "row.view(6, 1)": True,
        "row.reshape(6, 1)": True,
        "turned.reshape(6, 1)": False,
        "row.clone()": False,
    }
    for name, value in shared.items():
        assert f"    {name:21} {value}\n" in text
    hidden = "True\n    tensor([[0., 1.],\n            [2., 3.]])"
    assert hidden in text
    assert "[[0., 1., 2.],\n            [3., 4., 5.]]" in text
    for size in ("[1, 5]", "[1, 3]", "[3, 2]", "[1, 2]"):
        assert f"torch.Size({size})" in text
