"""A data set with noise, in a file that a spawned worker imports without Lightning."""

import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

ROWS = 11


class Noisy(Dataset[Any]):
    """Rows of (index, a number of torch, of NumPy, of Python)."""

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        return index, torch.rand(()).item(), np.random.rand(), random.random()

    def __len__(self) -> int:
        return ROWS


class Keeping(Noisy):
    """Draws with generators that it keeps, and with one that a transform keeps."""

    def __init__(self) -> None:
        self.rng, self.legacy = np.random.default_rng(0), np.random.RandomState(0)
        self.transforms: list[Any] = [list, Transform()]
        self.made: random.Random | None = None

    def __getitem__(self, index: int) -> Any:
        if self.made is None:
            self.made = random.Random(torch.initial_seed())
        drawn = self.rng.random(), self.legacy.rand(), self.made.random()
        for transform in self.transforms:
            drawn = transform(drawn)
        return index, *drawn


class Transform:
    """Adds a number of its own."""

    def __init__(self) -> None:
        self.generator = torch.Generator()

    def __call__(self, sample: Any) -> Any:
        return *sample, torch.rand((), generator=self.generator).item()


def replace_generator(worker: int) -> None:
    """Give each worker another generator, as a worker_init_fn often does."""
    info: Any = torch.utils.data.get_worker_info()
    info.dataset.rng = np.random.default_rng(worker)
