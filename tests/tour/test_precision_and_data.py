"""Sixteen-bit training against float32, the loader against the tensors it stands for."""

import re
import time

import pytest
import torch
from torch import nn

from src.tour.fizzbuzz import make_data
from src.tour.precision_and_data import FizzBuzzNumbers, loader, milliseconds, saved_bytes, train

B, D, H = 64, 16, 32


def regression() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    x = torch.randn(B, D, generator=generator)
    return model, x, x.sum(1, keepdim=True) / 4


def test_float32_training_is_plain_sgd():
    model, x, y = regression()
    cost = train(model, x, y, torch.float32, steps=20)
    assert cost.dtype == torch.float32
    assert cost.milliseconds > 0
    losses = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(20):
        loss = (model(x) - y).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert cost.losses == pytest.approx(losses, rel=1e-5)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_follow_float32(dtype):
    model, x, y = regression()
    before = [parameter.clone() for parameter in model.parameters()]
    y = y / 16  # small enough that 65536 times a gradient still is a float16
    full, half = (train(model, x, y, kind, steps=20) for kind in (torch.float32, dtype))
    assert half.dtype == dtype
    assert half.losses == pytest.approx(full.losses, rel=0.03)
    assert half.losses != full.losses
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_a_step_whose_scaled_gradients_overflow_is_skipped():
    model, x, y = regression()
    full, half = (train(model, x, y, kind, steps=20) for kind in (torch.float32, torch.float16))
    assert half.losses[1] == half.losses[0]
    assert half.losses[1:] == pytest.approx(full.losses[:-1], rel=0.03)


def test_saved_bytes_counted_by_hand():
    model, x, _ = regression()
    assert saved_bytes(model, x, torch.float32) == B * H * 4  # what the ReLU gave
    # The ReLU's output, and 16-bit copies of x and of the second weight.
    assert saved_bytes(model, x, torch.bfloat16) == 2 * (B * H + B * D + H)


def test_dataset_gives_the_chapters_data_one_by_one():
    numbers = FizzBuzzNumbers()
    X, Y = make_data(range(101, 1024))
    assert len(numbers) == len(X) == 923
    for index in (0, 4, 500, 922):
        digits, label = numbers[index]
        assert torch.equal(digits, X[index])
        assert label == Y[index]
    with pytest.raises(IndexError):
        numbers[923]


def test_loader_gives_every_number_once_in_the_seeds_order():
    batches = list(loader())
    assert [tuple(x.shape) for x, _ in batches] == [(128, 10)] * 7 + [(27, 10)]
    X, Y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    numbers = (X @ 2.0 ** torch.arange(10)).long().tolist()
    assert sorted(numbers) == list(range(101, 1024)) != numbers
    assert torch.equal(make_data(numbers)[1], Y)
    again = torch.cat([x for x, _ in loader()])
    other = torch.cat([x for x, _ in loader(seed=1)])
    assert torch.equal(again, X)
    assert not torch.equal(other, X)


def test_milliseconds_measures_the_whole_epoch():
    def epoch():
        for _ in range(3):
            time.sleep(0.002)
            yield None

    assert 6 <= milliseconds(epoch, repeats=3) < 600


def test_what_is_printed(chapter):
    text = chapter("precision_and_data")
    assert re.search(r"float32 +step above 1: 1\.2e-07 +largest: 3\.4e\+38", text)
    assert re.search(r"bfloat16 +step above 1: 7\.8e-03 +largest: 3\.4e\+38", text)
    assert re.search(r"float16 +step above 1: 9\.8e-04 +largest: 6\.6e\+04", text)
    assert "so the loss is scaled up first.\n    0.0\n" in text
    assert "    1.0e-08\n" in text
    rows = re.findall(r"^torch\.(\w+) +([\d.]+) +([\d.]+) +([\d.]+)$", text, re.MULTILINE)
    found = {kind: [float(value) for value in values] for kind, *values in rows}
    assert {"float32", "bfloat16"} <= set(found)
    assert found["bfloat16"][0] == pytest.approx(found["float32"][0], rel=0.01)
    assert found["float32"][2] == 4.0  # MiB: two layers of 2048 x 256 numbers of 4 bytes
    assert found["bfloat16"][2] < 0.7 * found["float32"][2]
    assert all(values[1] > 0 for values in found.values())
    assert "[128, 128, 128, 128, 128, 128, 128, 27]" in text
    times = re.search(r"DataLoader ([\d.]+) ms, slices of tensors in memory ([\d.]+) ms", text)
    assert times
    assert float(times[1]) > float(times[2]) > 0
