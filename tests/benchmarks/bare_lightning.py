"""The tutorial's FizzBuzz in a Lightning Trainer with everything switched off."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from src.kindling.loader import TensorLoader
from src.tour import fizzbuzz
from tests.benchmarks.raw_loops import BATCH, LR, NUMBERS


class BareFizzBuzz(pl.LightningModule):
    """The tutorial's FizzBuzz as a LightningModule that does nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.loss = fizzbuzz.make_model(), nn.CrossEntropyLoss()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        loss: Tensor = self.loss(self.model(batch[0]), batch[1])
        return loss

    def configure_optimizers(self) -> Any:
        """Use the tutorial's."""
        return torch.optim.SGD(self.parameters(), lr=LR)


def fit(module: pl.LightningModule, epochs: int) -> None:
    """Fit with all of Lightning's conveniences off, on batches from memory."""
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, TensorLoader(fizzbuzz.make_data(NUMBERS), BATCH))
