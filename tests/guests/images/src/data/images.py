"""PNG files of striped images, written once to a folder."""

from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.kindling.data import BaseData


class Files(Dataset[tuple[Tensor, int]]):
    """Images [1, 8, 8] from files whose names begin with their class."""

    def __init__(self, files: list[Path], augment: bool) -> None:
        self.files, self.augment = files, augment

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.tensor(matplotlib.image.imread(self.files[index])[..., 0])[None]
        if self.augment:  # shift, brightness and noise: all three generators
            image = image.roll(np.random.randint(8), dims=-1) * (0.5 + torch.rand(()))
            image = image + 0.1 * torch.randn_like(image)
        return image, int(self.files[index].name[0])

    def __len__(self) -> int:
        return len(self.files)


class ImagesData(BaseData):
    """Stripes in either direction, with noise.

    Args:
        folder: where the files are, or are written.
        num_workers: processes that read them.
        batch_size: images per batch.
        seed: of the noise.
    """

    def __init__(
        self,
        folder: str,
        num_workers: NonNegativeInt = 1,
        batch_size: PositiveInt = 8,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__(batch_size, True, seed)
        self.save_hyperparameters(logger=False)
        self.folder, self.num_workers = Path(folder), num_workers

    def prepare_data(self) -> None:
        """Write the files, unless they are there."""
        if self.folder.is_dir():
            return
        self.folder.mkdir(parents=True)
        random = np.random.default_rng(0)
        for number in range(48):
            stripes = np.tile(np.arange(8) % 2, (8, 1)) + 0.1 * random.random((8, 8))
            image = stripes if number % 2 else stripes.T
            name = self.folder / f"{number % 2}-{number:02d}.png"
            matplotlib.image.imsave(name, image, cmap="gray")

    def loader(self, part: slice, **options: Any) -> Any:
        """Return a DataLoader over a part of the files."""
        files = sorted(self.folder.glob("*.png"), key=lambda path: path.name[2:])
        shuffle = options.get("shuffle", False)
        return DataLoader(Files(files[part], shuffle), self.batch_size, **options)

    def train_dataloader(self) -> Any:
        """Yield 32 images, augmented in workers."""
        return self.loader(slice(32), shuffle=True, num_workers=self.num_workers)

    def val_dataloader(self) -> Any:
        """Yield 8 images."""
        return self.loader(slice(32, 40))

    def test_dataloader(self) -> Any:
        """Yield 8 images."""
        return self.loader(slice(40, 48))
