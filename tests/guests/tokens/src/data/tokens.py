"""A repeated sentence, cut into windows of characters."""

from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveInt

from src.kindling.data import BaseData, Split

TEXT = "the quick brown fox jumps over the lazy dog. " * 20


class TokensData(BaseData):
    """Windows of T characters, and the same windows one character later.

    Args:
        length: T.
        batch_size: windows per batch.
        shuffle: whether the windows are shuffled each epoch.
        seed: the orders follow from it.
    """

    def __init__(
        self,
        length: PositiveInt = 16,
        batch_size: PositiveInt = 8,
        shuffle: bool = True,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__(batch_size, shuffle, seed)
        self.save_hyperparameters(logger=False)
        self.length = length

    def splits(self) -> dict[str, Split]:
        """Return windows [N, T] and their successors [N, T]."""
        text = torch.tensor([ord(character) for character in TEXT])
        windows = text.unfold(0, self.length + 1, self.length)  # [N, T + 1]
        inputs, targets = windows[:, :-1], windows[:, 1:]
        return {"train": (inputs[8:], targets[8:]), "val": (inputs[:8], targets[:8])}

    def prediction_inputs(self, prompt: str = "the ", length: PositiveInt = 10) -> dict[str, Any]:
        """Return the characters of the prompt [1, T] and how many are wanted."""
        return {"tokens": torch.tensor([[ord(c) for c in prompt]]), "length": length}
