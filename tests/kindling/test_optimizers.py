"""Muon for a whole net against torch's own Muon on its matrices and AdamW on the rest."""

import copy
import io
import itertools

import pytest
import torch
from torch import nn

from src.kindling.optimizers import Muon
from tests.kindling.examples.net import TwoLayers

SETTINGS = {"lr": 0.02, "weight_decay": 0.3, "momentum": 0.9, "betas": (0.8, 0.99)}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """One thread of torch: for matrices this small, four are fifty times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Scale(nn.Module):
    """Parameters of no, one and three dimensions: none is a matrix."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))
        self.shift = nn.Parameter(torch.tensor(0.5))
        self.kernel = nn.Parameter(torch.randn(2, 2, 4))

    def forward(self, inputs):
        return (inputs * self.gain + self.shift) * self.kernel.sum(dim=(0, 1))


NETS = {
    "matrices and biases": lambda: TwoLayers(4, 6, 3, bias=True, dropout=0.0),
    "only matrices": lambda: TwoLayers(4, 6, 3, bias=False, dropout=0.0),
    "no matrix": Scale,
}


@pytest.fixture(params=NETS)
def net(request):
    """One net of each kind."""
    torch.manual_seed(0)
    return NETS[request.param]()


def by_torch(net, lr, weight_decay, momentum, betas):
    """Torch's own two optimizers, each with its part of the parameters."""
    matrices = [p for p in net.parameters() if p.ndim == 2]
    others = [p for p in net.parameters() if p.ndim != 2]
    shared = {"lr": lr, "weight_decay": weight_decay}
    parts = []
    if matrices:
        muon = {"momentum": momentum, "adjust_lr_fn": "match_rms_adamw"}
        parts.append(torch.optim.Muon(matrices, **muon, **shared))
    if others:
        parts.append(torch.optim.AdamW(others, betas=betas, **shared))
    return parts


def fit(net, optimizers, steps, schedulers=()):
    """Take some steps; step t has the same batch whatever was done before."""
    for step in steps:
        X = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        for optimizer in optimizers:
            optimizer.zero_grad()
        net(X).square().mean().backward()
        for part in itertools.chain(optimizers, schedulers):
            part.step()


def same_parameters(first, second):
    return all(map(torch.equal, first.parameters(), second.parameters()))


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_steps_equal_torchs_own_optimizers_exactly(net, weight_decay):
    settings = SETTINGS | {"weight_decay": weight_decay}
    twin, start = copy.deepcopy(net), copy.deepcopy(net)
    optimizer, reference = Muon(net.parameters(), **settings), by_torch(twin, **settings)
    for step in range(6):
        fit(net, [optimizer], [step])
        fit(twin, reference, [step])
        assert same_parameters(net, twin)
    assert not any(map(torch.equal, net.parameters(), start.parameters()))


def test_continues_from_its_state_dict_as_if_uninterrupted(net):
    twin = copy.deepcopy(net)
    optimizer = Muon(net.parameters(), **SETTINGS)
    fit(net, [optimizer], range(8))

    first = Muon(twin.parameters(), **SETTINGS)
    fit(twin, [first], range(4))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    # Made with other values: all of them come from the file.
    second = Muon(twin.parameters(), lr=5.0, weight_decay=0.0, momentum=0.1, betas=(0.1, 0.1))
    second.load_state_dict(torch.load(file, weights_only=True))
    fit(twin, [second], range(4, 8))
    assert same_parameters(net, twin)
    assert second.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def test_state_dict_holds_a_state_for_every_parameter(net):
    optimizer = Muon(net.parameters(), **SETTINGS)
    fit(net, [optimizer], range(1))
    assert sorted(optimizer.state_dict()["state"]) == list(range(len(list(net.parameters()))))


def test_a_schedule_changes_the_learning_rate_of_both_parts(net):
    twin = copy.deepcopy(net)
    optimizer, reference = Muon(net.parameters(), **SETTINGS), by_torch(twin, **SETTINGS)
    schedules = [
        torch.optim.lr_scheduler.ExponentialLR(part, gamma=0.5) for part in (optimizer, *reference)
    ]
    fit(net, [optimizer], range(5), schedules[:1])
    fit(twin, reference, range(5), schedules[1:])
    assert same_parameters(net, twin)
    assert {group["lr"] for group in optimizer.param_groups} == {0.02 * 0.5**5}


def test_returns_the_loss_of_its_closure_and_asks_for_it_once(net):
    twin = copy.deepcopy(net)
    optimizer, asked = Muon(net.parameters(), **SETTINGS), []

    def closure():
        optimizer.zero_grad()
        loss = net(torch.ones(2, 4)).square().sum()
        loss.backward()
        asked.append(loss)
        return loss

    with torch.no_grad():
        returned = optimizer.step(closure)
    assert len(asked) == 1
    assert returned is asked[0]
    assert not any(map(torch.equal, net.parameters(), twin.parameters()))


def test_returns_nothing_without_a_closure(net):
    optimizer = Muon(net.parameters(), **SETTINGS)
    assert optimizer.step() is None


def test_zero_grad_clears_every_gradient(net):
    optimizer = Muon(net.parameters(), **SETTINGS)
    net(torch.ones(2, 4)).sum().backward()
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_refuses_a_net_without_parameters():
    with pytest.raises(ValueError, match="empty parameter list"):
        Muon(nn.ReLU().parameters())


@pytest.mark.parametrize(
    "settings", [{"lr": -1.0}, {"weight_decay": -1.0}, {"momentum": -1.0}, {"betas": (1.5, 0.9)}]
)
def test_refuses_values_out_of_range(settings):
    with pytest.raises(ValueError, match=r"-1\.0|1\.5"):
        Muon(TwoLayers(2, 2, 1, bias=True, dropout=0.0).parameters(), **settings)
