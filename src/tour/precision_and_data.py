"""Half the bits, and batches on demand: what each saves and costs is measured on the spot.

The tutorial made from the University of Washington's CSE446 section 9 promises both; the recipes
are those of PyTorch's documentation of torch.amp and torch.utils.data.
Letters: B examples (batch), D binary digits.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from src.tour.fizzbuzz import binary_digits, encode, make_data
from src.tour.page import show


class Cost(NamedTuple):
    """The losses of a training, and its cost."""

    losses: list[float]
    milliseconds: float  # the median step
    saved_bytes: int  # kept from a forward pass for its backward pass
    dtype: torch.dtype  # of the network's output


def train(model: nn.Module, x: Tensor, y: Tensor, dtype: torch.dtype, steps: int) -> Cost:
    """Train a copy of the model on its mean squared error, with matrix products in `dtype`.

    The weights stay float32 and autocast converts copies of them. float16 has its loss scaled;
    where the scaled gradients overflow, the step is skipped and the scale halved.
    """
    model, device = deepcopy(model), x.device.type
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    losses, times = [], []
    for _ in range(steps):
        start = perf_counter()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            prediction = model(x)
        loss = F.mse_loss(prediction.float(), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())  # waits for the device, so that the time is true
        times.append(perf_counter() - start)
    return Cost(losses, 1e3 * median(times), saved_bytes(model, x, dtype), prediction.dtype)


def saved_bytes(model: nn.Module, x: Tensor, dtype: torch.dtype) -> int:
    """The bytes that a forward pass keeps for the backward pass, beyond parameters and x."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        _prediction = model(x)  # alive until the end, so that no address is used twice
    known = {tensor.untyped_storage().data_ptr() for tensor in (x, *model.parameters())}
    return sum(size for address, size in storages.items() if address not in known)


class FizzBuzzNumbers(Dataset[tuple[Tensor, int]]):
    """The numbers 101 to 1023, worked out one by one when asked for: digits [D] and class."""

    numbers = range(101, 1024)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        number = self.numbers[index]
        return torch.tensor(binary_digits(number)).float(), encode(number)


def loader(seed: int = 0) -> DataLoader[tuple[Tensor, int]]:
    """Batches of 128, digits [B, D] and classes [B], shuffled in an order that the seed sets."""
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(FizzBuzzNumbers(), batch_size=128, shuffle=True, generator=generator)


def milliseconds(epoch: Callable[[], Iterable[object]], repeats: int = 5) -> float:
    """The median time to go once through an epoch's batches."""
    times = []
    for _ in range(repeats):
        start = perf_counter()
        for _ in epoch():
            pass
        times.append(perf_counter() - start)
    return 1e3 * median(times)


def show_precision() -> None:
    """Print what each type can hold, and what training with it costs."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print("Sixteen bits buy either digits or range.")
    types = [torch.float32, torch.bfloat16, torch.float16]
    for info in map(torch.finfo, types):
        print(f"    {info.dtype:9} step above 1: {info.eps:.1e}  largest: {info.max:.1e}")
    tiny = torch.tensor(1e-8)
    scaled = (65536 * tiny).half().item() / 65536
    show("A gradient of 1e-8 is 0 in float16, so the loss is scaled up first.", tiny.half().item())
    show("Scaled by 65536 it survives:", f"{scaled:.1e}")
    print(f"20 steps on 2048 examples, 128-256-256-1, measured now on {device.type}:")
    print("output          last loss    ms/step  MiB kept for backward")
    x, y = torch.randn(2048, 128, device=device), torch.randn(2048, 1, device=device)
    layers = nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1)
    model = nn.Sequential(*layers).to(device)
    for dtype in types if device.type == "cuda" else types[:2]:
        cost = train(model, x, y, dtype, steps=20)
        numbers = (
            f"{cost.losses[-1]:9.5f}  {cost.milliseconds:9.2f}  {cost.saved_bytes / 2**20:.2f}"
        )
        print(f"{cost.dtype!s:14}  {numbers}")


def show_data() -> None:
    """Print what a DataLoader gives, and its time against slices of tensors in memory."""
    batches = list(loader())
    x, y = batches[0]
    show("A Dataset gives one example, a DataLoader stacks them into batches:", x.shape, y.shape)
    show("923 numbers make 8 batches, the last one short:", [len(y) for _, y in batches])
    pairs = zip(batches, loader(), strict=True)
    same = all(torch.equal(once[0], again[0]) for once, again in pairs)
    show("The same seed gives the same order:", same)
    X, Y = make_data(FizzBuzzNumbers.numbers)

    def slices() -> Iterable[object]:
        return zip(torch.split(X, 128), torch.split(Y, 128), strict=True)

    times = milliseconds(loader), milliseconds(slices)
    print("A loader spares memory but works example by example; an epoch of batches, measured now:")
    print("    DataLoader {:.2f} ms, slices of tensors in memory {:.2f} ms".format(*times))


def main(output: Path | None = None) -> None:
    """Print the chapter; with `output`, also write its plots there."""
    torch.manual_seed(0)
    show_precision()
    show_data()
