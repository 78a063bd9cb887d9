"""The two-layer net against NumPy, and against a function that can be written down by hand."""

import numpy as np
import pytest
import torch

from src.nets import TwoLayerNet

SIZES = [(1, 1, 1), (3, 5, 2), (10, 100, 4), (1000, 100, 10)]


def by_numpy(net, X):
    """The forward pass of the tutorials in NumPy: X W1' + b1, ReLU, W2' + b2."""
    weights = {name: parameter.detach().numpy() for name, parameter in net.named_parameters()}
    hidden = X @ weights["hidden.weight"].T + weights.get("hidden.bias", 0.0)
    return np.maximum(hidden, 0.0) @ weights["output.weight"].T + weights.get("output.bias", 0.0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_forward_equals_numpy(sizes, bias):
    torch.manual_seed(sum(sizes))
    net = TwoLayerNet(*sizes, bias=bias).double()
    X = torch.randn(7, sizes[0], dtype=torch.float64)
    with torch.no_grad():
        outputs = net(X)
    assert outputs.dtype == torch.float64
    np.testing.assert_allclose(outputs.numpy(), by_numpy(net, X.numpy()), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rows", [0, 1, 64])
@pytest.mark.parametrize("sizes", SIZES)
def test_maps_rows_of_in_features_to_rows_of_out_features(sizes, rows):
    in_features, hidden_features, out_features = sizes
    net = TwoLayerNet(in_features, hidden_features, out_features)
    assert net(torch.zeros(rows, in_features)).shape == (rows, out_features)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("D", "H", "C"), SIZES)
def test_parameters_have_the_names_and_shapes_of_two_linear_layers(D, H, C, bias):
    weights = {"hidden.weight": (H, D), "output.weight": (C, H)}
    biases = {"hidden.bias": (H,), "output.bias": (C,)} if bias else {}
    net = TwoLayerNet(D, H, C, bias=bias)
    shapes = {name: tuple(parameter.shape) for name, parameter in net.named_parameters()}
    assert shapes == weights | biases


def test_has_a_bias_unless_told_otherwise():
    assert {name for name, _ in TwoLayerNet(2, 3, 1).named_parameters()} == {
        "hidden.weight",
        "hidden.bias",
        "output.weight",
        "output.bias",
    }


def test_computes_the_absolute_value_with_weights_set_by_hand():
    net = TwoLayerNet(1, 2, 1, bias=False)  # |x| = relu(x) + relu(-x)
    with torch.no_grad():
        net.hidden.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net.output.weight.copy_(torch.tensor([[1.0, 1.0]]))
        X = torch.tensor([[-3.0], [-0.5], [0.0], [0.25], [8.0]])
        assert net(X).tolist() == [[3.0], [0.5], [0.0], [0.25], [8.0]]


def test_gradients_equal_the_backward_pass_by_hand():
    torch.manual_seed(0)
    net = TwoLayerNet(6, 8, 3, bias=False).double()
    X, Y = (torch.randn(5, n, dtype=torch.float64) for n in (6, 3))
    (net(X) - Y).square().sum().backward()
    W1, W2 = (p.detach().numpy() for p in (net.hidden.weight, net.output.weight))
    hidden = X.numpy() @ W1.T
    error = 2.0 * (np.maximum(hidden, 0.0) @ W2.T - Y.numpy())  # d loss / d outputs
    at_hidden = (error @ W2) * (hidden > 0)
    np.testing.assert_allclose(net.output.weight.grad, error.T @ np.maximum(hidden, 0), rtol=1e-10)
    np.testing.assert_allclose(net.hidden.weight.grad, at_hidden.T @ X.numpy(), rtol=1e-10)


def test_dropout_leaves_out_its_share_while_training_and_nothing_else():
    torch.manual_seed(0)
    net = TwoLayerNet(3, 1000, 1, bias=False, dropout=0.25)
    with torch.no_grad():
        net.hidden.weight.fill_(1.0)
        net.output.weight.fill_(1.0)
    X = torch.ones(50, 3)  # each hidden unit is 3; those that stay are divided by 1 - 0.25
    kept = net(X) / (3 / 0.75) / 1000
    assert kept.mean().item() == pytest.approx(0.75, abs=0.01)
    assert len(kept.unique()) > 10  # each row of a batch leaves out others
    assert net.eval()(X).unique().tolist() == [3000.0]


def test_dropout_changes_no_name_of_a_weight():
    names = TwoLayerNet(3, 5, 2, dropout=0.5).state_dict().keys()
    assert names == TwoLayerNet(3, 5, 2).state_dict().keys()
