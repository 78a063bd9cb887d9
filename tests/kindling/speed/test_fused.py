"""The short way to Adam's fused kernel against torch's own step: the same bits, the same state."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from src.kindling.speed.fused import FusedAdam, FusedSGD, update_of

SHAPES = (3, 4), (4,), (2, 2, 2)


def pair(kind: Any, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    sets = [[nn.Parameter(torch.randn(shape)) for shape in SHAPES]]
    sets.append(deepcopy(sets[0]))
    if kind is not torch.optim.SGD:
        options["betas"] = (0.5, 0.7)
    made = [
        kind([{"params": p[:2]}, {"params": p[2:], "lr": 0.5}], fused=True, **options) for p in sets
    ]
    return made[0], made[1]


def parameters(optimizer: Any) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"maximize": True}])
def test_it_steps_as_torch_does(kind: Any, options: dict[str, Any]) -> None:
    ours, theirs = pair(kind, lr=0.1, **options)
    assert FusedSGD.suits(ours) if kind is torch.optim.SGD else FusedAdam.suits(ours)
    update = update_of(ours)
    for step in range(8):
        slopes: list[Any] = [torch.randn(shape) for shape in SHAPES]
        if step == 3:
            slopes[1] = None  # left out, as after a skipped batch

        def backward(optimizer: Any, slopes: list[Any] = slopes) -> torch.Tensor:
            assert torch.is_grad_enabled()
            for p, slope in zip(parameters(optimizer), slopes, strict=True):
                p.grad = None if slope is None else slope.clone()
            return torch.zeros(())

        with torch.no_grad():
            update(lambda: backward(ours))
        theirs.step(lambda: backward(theirs))
        if step == 5:  # as when a checkpoint is read
            ours.load_state_dict(deepcopy(ours.state_dict()))
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["lr"] *= 0.9  # a schedule's move
        assert all(map(torch.equal, parameters(ours), parameters(theirs)))
    for p, q in zip(parameters(ours), parameters(theirs), strict=True):
        assert ours.state[p].keys() == theirs.state[q].keys()
        assert all(
            torch.equal(ours.state[p][name], theirs.state[q][name]) for name in ours.state[p]
        )


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.SGD([nn.Parameter(torch.zeros(2))], 0.1),
        torch.optim.SGD([nn.Parameter(torch.zeros(2))], 0.1, momentum=0.9, fused=True),
        torch.optim.Adam([nn.Parameter(torch.zeros(2))], 0.1),
        torch.optim.Adam([nn.Parameter(torch.zeros(2))], 0.1, fused=True, amsgrad=True),
        torch.optim.Adam([nn.Parameter(torch.zeros(2))], torch.tensor(0.1), fused=True),
        torch.optim.Adam(
            [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2).double())], fused=True
        ),
    ],
)
def test_what_it_does_not_know_steps_by_itself(optimizer: Any) -> None:
    assert not FusedAdam.suits(optimizer)
    assert not FusedSGD.suits(optimizer)
    [before, *_] = [p.clone() for p in parameters(optimizer)]

    def backward() -> torch.Tensor:
        for p in parameters(optimizer):
            p.grad = torch.ones_like(p)
        return torch.zeros(())

    with torch.no_grad():
        update_of(optimizer)(backward)
    assert not torch.equal(before, parameters(optimizer)[0])
