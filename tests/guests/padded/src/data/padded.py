"""Sequences of one to six numbers, padded per batch."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from src.kindling.data import BaseData


def collate(samples: list[Tensor]) -> dict[str, Tensor]:
    """Pad sequences of different lengths to [B, T]."""
    ones = [torch.ones_like(sample) for sample in samples]
    return {
        "numbers": pad_sequence(samples, batch_first=True),
        "mask": pad_sequence(ones, batch_first=True),
        "sum": torch.stack([sample.sum() for sample in samples]),
    }


class PaddedData(BaseData):
    """Normal numbers.

    Args:
        batch_size: sequences per batch.
        seed: of the sequences.
    """

    def __init__(self, batch_size: int = 8, seed: int = 0) -> None:
        super().__init__(batch_size, True, seed)
        self.save_hyperparameters(logger=False)
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, 7, (60,), generator=generator).tolist()
        self.sequences = [torch.randn(length, generator=generator) for length in lengths]

    def loader(self, sequences: list[Tensor], **options: Any) -> Any:
        """Return a DataLoader that pads each batch."""
        dataset: Any = sequences
        return DataLoader(dataset, self.batch_size, collate_fn=collate, **options)

    def train_dataloader(self) -> Any:
        """Yield the first forty sequences, shuffled."""
        return self.loader(self.sequences[:40], shuffle=True)

    def val_dataloader(self) -> Any:
        """Yield ten sequences."""
        return self.loader(self.sequences[40:50])

    def test_dataloader(self) -> Any:
        """Yield the last ten sequences."""
        return self.loader(self.sequences[50:])
