"""A generator of points on a line and its discriminator."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GAN(pl.LightningModule):
    """Two networks with an optimizer each, stepped by hand."""

    def __init__(self, noise_features: int = 4, rate: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.noise_features, self.rate = noise_features, rate
        self.generator = nn.Sequential(nn.Linear(noise_features, 16), nn.ReLU(), nn.Linear(16, 2))
        self.discriminator = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, noise: Tensor) -> Tensor:
        """Return points [B, 2] for noise [B, D]."""
        points: Tensor = self.generator(noise)
        return points

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Step the discriminator, then the generator."""
        optimizers: Any = self.optimizers()
        real = batch[0]
        fake = self(torch.randn(len(real), self.noise_features, device=self.device))
        ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        bce = F.binary_cross_entropy_with_logits
        loss = bce(self.discriminator(real), ones) + bce(self.discriminator(fake.detach()), zeros)
        self._step(optimizers[0], loss)
        generator_loss = bce(self.discriminator(fake), ones)
        self._step(optimizers[1], generator_loss)
        self.log_dict({"train/discriminator": loss, "train/generator": generator_loss})

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log how far the mean of generated points is from that of the real ones."""
        noise = torch.randn(len(batch[0]), self.noise_features, device=self.device)
        self.log("test/distance", (self(noise).mean(0) - batch[0].mean(0)).norm())

    def prediction_inputs(self, count: int = 3) -> Tensor:
        """Return noise for `count` points."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, self.noise_features, generator=generator)

    def predict_step(self, batch: Tensor, batch_idx: int = 0) -> Tensor:
        """Return points [B, 2]."""
        points: Tensor = self(batch)
        return points

    def configure_optimizers(self) -> Any:
        """Return an optimizer for each network."""
        networks = (self.discriminator, self.generator)
        return [torch.optim.Adam(net.parameters(), lr=self.rate) for net in networks]
