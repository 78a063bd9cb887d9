"""A network learns to play FizzBuzz from the numbers above 100, then plays 1 to 100.

The idea is Joel Grus's "Fizz Buzz in TensorFlow" (joelgrus.com, 2016), told here in PyTorch.
Letters: B examples (batch), D binary digits, H hidden, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.kindling.colors import SERIES
from src.tour.page import blank_figure, save, show

NUM_DIGITS, HIDDEN, CLASSES = 10, 100, 4


class Training(NamedTuple):
    """The trained copy of the model, and its losses (mean cross-entropy, in nats)."""

    model: nn.Sequential
    batch_losses: list[float]  # before each step
    epoch_losses: list[float]  # on all of the data, after each epoch


def encode(number: int) -> int:
    """The class of a number: 3 for fizzbuzz, 2 for buzz, 1 for fizz, 0 for the number itself."""
    if number % 15 == 0:
        return 3
    return 2 if number % 5 == 0 else 1 if number % 3 == 0 else 0


def decode(number: int, label: int) -> str:
    """What a player says for a number of that class."""
    return (str(number), "fizz", "buzz", "fizzbuzz")[label]


def binary_digits(number: int, num_digits: int = NUM_DIGITS) -> list[int]:
    """The number's lowest binary digits, the ones first; higher ones are dropped."""
    return [number >> digit & 1 for digit in range(num_digits)]


def make_data(numbers: Iterable[int], num_digits: int = NUM_DIGITS) -> tuple[Tensor, Tensor]:
    """Digits as floats [B, D] and classes as integers [B]."""
    numbers = list(numbers)
    digits = [binary_digits(number, num_digits) for number in numbers]
    return torch.tensor(digits).float(), torch.tensor([encode(number) for number in numbers])


def make_model(num_digits: int = NUM_DIGITS, hidden: int = HIDDEN) -> nn.Sequential:
    """The tutorial's classifier, [B, D] -> [B, H] -> [B, C] logits, at torch's default start."""
    return nn.Sequential(nn.Linear(num_digits, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))


def train(
    model: nn.Sequential, X: Tensor, Y: Tensor, epochs: int, lr: float = 0.05, batch_size: int = 128
) -> Training:
    """Train a copy of the model by SGD on batches taken in order, the last one shorter."""
    model = deepcopy(model)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    batches = list(zip(torch.split(X, batch_size), torch.split(Y, batch_size), strict=True))
    result = Training(model, [], [])
    for _ in range(epochs):
        for x, y in batches:
            loss = criterion(model(x), y)
            result.batch_losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            result.epoch_losses.append(criterion(model(X), Y).item())
    return result


@torch.no_grad()
def predict(model: nn.Module, numbers: Iterable[int]) -> list[int]:
    """The likeliest class of each number."""
    labels: list[int] = model(make_data(numbers)[0]).argmax(dim=1).tolist()  # [B, C] -> [B]
    return labels


def draw(losses: list[float], output: Path) -> None:
    """Draw the loss after each epoch."""
    figure, (axis,) = blank_figure()
    axis.plot(range(1, len(losses) + 1), losses, color=SERIES[0])
    axis.set(title="FizzBuzz: loss on the numbers 101 to 1023")
    axis.set(xlabel="epoch", ylabel="cross-entropy (nats)", ylim=(0, None))
    save(figure, output / "fizzbuzz.png")


def main(output: Path | None = None, epochs: int = 2000) -> None:
    """Print the chapter; with `output`, also write its plots there."""
    answers = [decode(number, encode(number)) for number in (1, 2, 5, 12, 15)]
    show("The rule itself, for 1, 2, 5, 12 and 15:", *answers)
    X, Y = make_data(range(101, 2**NUM_DIGITS))
    show("Ten binary digits go in, one class of four comes out:", X.shape, Y.shape)
    torch.manual_seed(0)
    print(f"Training {epochs} epochs (the tutorial takes 10000: give epochs=10000).")
    model, _, losses = train(make_model(), X, Y, epochs)
    for epoch in sorted({*range(0, epochs, max(1, epochs // 10)), epochs - 1}):
        print(f"Epoch: {epoch} Loss: {losses[epoch]:.6f}")
    numbers = range(1, 101)
    labels = predict(model, numbers)
    said = [decode(number, label) for number, label in zip(numbers, labels, strict=True)]
    rows = (" ".join(said[row : row + 10]) for row in range(0, 100, 10))
    show("It plays 1 to 100, numbers that it never saw:", *rows)
    wrong = [
        number for number, label in zip(numbers, labels, strict=True) if label != encode(number)
    ]
    print(f"{100 - len(wrong)} of 100 right; wrong at {wrong}")
    if output:
        draw(losses, output)
