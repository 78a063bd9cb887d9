"""Rows of three classes."""

import torch

from src.kindling.data import BaseData, Split


class FinetunedData(BaseData):
    """Normal rows [N, 8] around the mean of their class."""

    target = "class"

    def splits(self) -> dict[str, Split]:
        """Draw sixty rows for training, and thirty each for validation and test."""
        generator = torch.Generator().manual_seed(self.seed)
        means, classes = torch.randn(3, 8, generator=generator), torch.arange(120) % 3
        rows = means[classes] + torch.randn(120, 8, generator=generator)
        parts = zip(*(part.tensor_split((60, 90)) for part in (rows, classes)), strict=True)
        return dict(zip(("train", "val", "test"), parts, strict=True))
