"""Values and three times their sines, with noise."""

from typing import Annotated, Any

import torch
from pydantic import Field

from src.kindling.data import BaseData, Split


class EMAData(BaseData):
    """Sixty values [N, 1] between -2 and 2; `noise` is the standard deviation of the targets'."""

    def __init__(self, noise: Annotated[float, Field(ge=0)] = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.noise = noise

    def splits(self) -> dict[str, Split]:
        """Draw the values of each split."""
        generator = torch.Generator().manual_seed(self.seed)
        x = 4 * torch.rand(3, 60, 1, generator=generator) - 2
        y = 3 * x.sin() + self.noise * torch.randn(x.shape, generator=generator)
        return dict(zip(("train", "val", "test"), zip(x, y, strict=True), strict=True))
