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
