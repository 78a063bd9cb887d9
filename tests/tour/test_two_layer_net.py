"""The six ways against hand-worked steps and each other, Adam against its paper."""

import re

import numpy as np
import pytest
import torch

from src.models import two_layer_net as kindling_net
from src.tour import two_layer_net_by_hand
from src.tour.two_layer_net import WAYS, largest_gap
from src.tour.two_layer_net_by_hand import gradients, make_data
from src.tour.two_layer_net_by_nn import TwoLayerNet, fit, optim_way, sequential

SMALL = make_data((16, 40, 20, 5))


def test_data_have_the_tutorials_shapes_and_repeat():
    shapes = [tuple(tensor.shape) for tensor in make_data()]
    assert shapes == [(64, 1000), (64, 10), (1000, 100), (100, 10)]
    assert all(tensor.dtype == torch.float64 for tensor in SMALL)
    again = make_data((16, 40, 20, 5))
    assert all(torch.equal(a, b) for a, b in zip(SMALL, again, strict=True))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_one_step_by_hand(way):
    # One unit each: h = 2, output 1, error -2, loss 4; the gradients are -4 and -8.
    x, y, w1, w2 = (torch.tensor([[v]], dtype=torch.float64) for v in (2, 3, 1, 0.5))
    losses, w1, w2 = way(x, y, w1, w2, 0.1, 2)
    assert losses[0] == 4
    # After it w1 = 1.4 and w2 = 1.3: output 3.64, error 0.64; gradients 3.328 and 3.584.
    assert losses[1] == pytest.approx(0.64**2)
    assert w1.item() == pytest.approx(1.4 - 0.1 * 3.328)
    assert w2.item() == pytest.approx(1.3 - 0.1 * 3.584)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_dead_unit_does_not_learn(way):
    x, y, w1, w2 = (torch.tensor([[v]], dtype=torch.float64) for v in (2, 3, -1, 0.5))
    losses, w1, w2 = way(x, y, w1, w2, 0.1, 3)
    assert losses == [9, 9, 9]
    assert (w1.item(), w2.item()) == (-1, 0.5)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way_equals_numpy_at_every_step_and_spares_its_arguments(way):
    before = [tensor.clone() for tensor in SMALL]
    expected = WAYS["NumPy"](*SMALL, 1e-4, 200)
    found = way(*SMALL, 1e-4, 200)
    assert len(found.losses) == 200
    assert found.losses[-1] < found.losses[0] / 100
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-9)
    torch.testing.assert_close(found.w1, expected.w1, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found.w2, expected.w2, rtol=1e-9, atol=1e-11)
    assert not found.w1.requires_grad
    assert not found.w2.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(SMALL, before, strict=True))
    assert not any(tensor.requires_grad for tensor in SMALL)


def test_gradients_agree_with_differences():
    x, y, w1, w2 = SMALL

    def loss(w1: torch.Tensor, w2: torch.Tensor) -> float:
        return np.square(np.maximum(x.numpy() @ w1.numpy(), 0) @ w2.numpy() - y.numpy()).sum()

    value, grad_w1, grad_w2 = gradients(x, y, w1, w2)
    assert value == pytest.approx(loss(w1, w2), rel=1e-12)
    generator = torch.Generator().manual_seed(3)
    along1 = torch.randn(w1.shape, generator=generator, dtype=torch.float64)
    along2 = torch.randn(w2.shape, generator=generator, dtype=torch.float64)
    for a, b in ((along1, 0 * along2), (0 * along1, along2)):
        slope = (loss(w1 + 1e-7 * a, w2 + 1e-7 * b) - loss(w1 - 1e-7 * a, w2 - 1e-7 * b)) / 2e-7
        assert ((grad_w1 * a).sum() + (grad_w2 * b).sum()).item() == pytest.approx(slope, rel=1e-5)


def test_adam_agrees_with_its_paper():
    # Kingma and Ba 2015, algorithm 1, in NumPy.
    x, y, *weights = SMALL
    moments = [(np.zeros(w.shape), np.zeros(w.shape)) for w in weights]
    losses = []
    for t in range(1, 31):
        loss, *found = gradients(x, y, *weights)
        losses.append(loss)
        for i, g in enumerate(gradient.numpy() for gradient in found):
            m, v = 0.9 * moments[i][0] + 0.1 * g, 0.999 * moments[i][1] + 0.001 * g * g
            moments[i] = m, v
            step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            weights[i] = weights[i] - 1e-2 * torch.from_numpy(step)
    trained = optim_way(*SMALL, 1e-2, 30, optimizer=torch.optim.Adam)
    np.testing.assert_allclose(trained.losses, losses, rtol=1e-9)
    torch.testing.assert_close(trained.w1, weights[0], rtol=1e-9, atol=1e-11)


def test_chain_and_module_hold_the_same_parameters_and_compute_the_same():
    chain, module = sequential(7, 5, 3), TwoLayerNet(7, 5, 3)
    assert [p.shape for p in chain.parameters()] == [p.shape for p in module.parameters()]
    with torch.no_grad():
        for source, target in zip(chain.parameters(), module.parameters(), strict=True):
            target.copy_(source)
    x = torch.randn(11, 7, generator=torch.Generator().manual_seed(4))
    assert chain(x).shape == (11, 3)
    torch.testing.assert_close(module(x), chain(x))


def test_fit_gives_the_loss_before_each_step():
    model = sequential(4, 6, 2)
    generator = torch.Generator().manual_seed(5)
    x, y = torch.randn(8, 4, generator=generator), torch.randn(8, 2, generator=generator)
    first = (model(x) - y).square().sum().item()
    losses = fit(model, torch.optim.SGD(model.parameters(), lr=1e-2), x, y, 2)
    assert losses[0] == pytest.approx(first, rel=1e-5)
    assert losses[1] < losses[0]


def test_largest_gap_by_hand():
    assert largest_gap({"a": [1.0, 4.0], "b": [1.0, 3.0], "c": [1.1, 4.0]}) == pytest.approx(0.25)


def test_what_is_printed(chapter):
    text = chapter("two_layer_net", "steps=100")
    rows = [line.split() for line in text.splitlines() if re.match(r" *\d+ ", line)]
    six = [row for row in rows if len(row) == 1 + len(WAYS)]
    assert [int(row[0]) for row in six] == [*range(0, 100, 10), 99]
    assert all(len(set(row[1:])) == 1 for row in six)  # the same digits six ways
    assert float(six[0][1]) == pytest.approx(2.8305e7, rel=1e-4)
    assert 300 < float(six[-1][1]) < 500
    gap = re.search(r"Largest relative gap from NumPy, at any step: (\S+)", text)
    assert gap
    assert float(gap[1]) < 1e-9
    adam, sgd = (float(value) for value in rows[-1][1:])
    assert 20 < adam < 80  # measured 43, and 7e-7 after 500 steps
    assert 2 < sgd < 7  # measured 3.6, and 1.5e-5 after 500 steps


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_model_of_the_template_has_the_hand_derived_loss_and_gradients(reduction: str) -> None:
    N, D, H, C = 64, 1000, 100, 10
    close = {"rtol": 1e-9, "atol": 1e-9}  # gradients are in the thousands
    x, y, w1, w2 = two_layer_net_by_hand.make_data((N, D, H, C), seed=0)  # float64
    # One step of the NumPy loop at a learning rate of 1 moves each weight by its gradient.
    [loss], *moved = two_layer_net_by_hand.numpy_way(x, y, w1, w2, lr=1.0, steps=1)
    grad_w1, grad_w2 = w1 - moved[0], w2 - moved[1]
    scale = 1 if reduction == "sum" else 1 / (N * C)
    model = kindling_net.TwoLayerNet(D, H, C, bias=False, reduction=reduction).double()
    with torch.no_grad():
        model.net.hidden.weight.copy_(w1.T)
        model.net.output.weight.copy_(w2.T)
    found = model.training_loss((x, y))
    found.backward()
    assert found.item() == pytest.approx(loss * scale, rel=1e-12)
    torch.testing.assert_close(model.net.hidden.weight.grad.T, grad_w1 * scale, **close)
    torch.testing.assert_close(model.net.output.weight.grad.T, grad_w2 * scale, **close)
