"""A small project in plain Lightning, trained with any number of steps per call."""

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from src.kindling.process.seeding import Seeding
from src.kindling.speed.install import install

# In a checkpoint: paths and times.
UNLIKE = ("dirpath", "best_model_path", "best_k_models", "kth_best_model_path", "time_elapsed")
UNLIKE += ("last_model_path",)
BATCHES = 7  # of an epoch; the last one is smaller


class Net(pl.LightningModule):
    """Two layers with dropout; Adam with a schedule; logs its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.metric = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, 4] to [B, 3]."""
        return self.head(F.dropout(self.body(x).relu(), 0.3, self.training))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the loss."""
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss."""
        self.log("val", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        """Return Adam, whose rate falls from step to step."""
        optimizer = torch.optim.Adam(self.parameters(), 0.01)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Rows(pl.LightningDataModule):
    """Random rows through torch's own loaders, shuffled."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        rows = 10 * BATCHES - 4
        self.rows = TensorDataset(
            torch.randn(rows, 4, generator=random), torch.randint(3, (rows,), generator=random)
        )

    def train_dataloader(self) -> Any:
        """Return the training batches."""
        return DataLoader(self.rows, 10, shuffle=True)

    def val_dataloader(self) -> Any:
        """Return the same rows in order."""
        return DataLoader(self.rows, 40)


class Kept(Logger):
    """A logger that keeps what it is given."""

    name, version = "kept", 0

    def __init__(self) -> None:
        super().__init__()
        self.points: list[Any] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep a point; a NaN is equal to itself here."""
        self.points.append((step, {k: str(v) if math.isnan(v) else v for k, v in metrics.items()}))

    def log_hyperparams(self, params: Any = None, *args: Any, **kwargs: Any) -> None:
        """Keep nothing."""


def fit(
    folder: Path,
    steps: int,
    module: Any = None,
    data: Any = None,
    callbacks: Any = (),
    compiles: bool = False,
    checkpoint: Any = None,
    **options: Any,
) -> pl.Trainer:
    """Train for four epochs, or as the options say; return the Trainer.

    Args:
        folder: where the Trainer and its callbacks keep files.
        steps: K, steps per call; 0 leaves the Trainer as it is.
        module: by default Net.
        data: by default Rows.
        callbacks: in addition to the one that seeds.
        compiles: whether steps are compiled.
        checkpoint: to continue from.
        options: of the Trainer.
    """
    pl.seed_everything(0, verbose=False)
    module, data = module or Net(), data or Rows()
    shown = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        callbacks=[*callbacks, Seeding(0)],
        **{"max_epochs": 4, "enable_checkpointing": False, "logger": Kept(), **shown, **options},
    )
    if steps > 1 or compiles:
        install(trainer, steps, compiles)
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=False)
    return trainer


def left(trainer: Any) -> dict[str, Any]:
    """Return what a fit leaves: weights, optimizers, counters, metrics, history and files."""
    folder = Path(trainer.default_root_dir)
    checkpoints = sorted(folder.rglob("*.ckpt"))
    return {
        "weights": {k: v.tolist() for k, v in trainer.lightning_module.state_dict().items()},
        "optimizers": [_plain(optimizer.state_dict()) for optimizer in trainer.optimizers],
        "loops": trainer.fit_loop.state_dict(),
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "points": [p for logger in trainer.loggers for p in getattr(logger, "points", [])],
        "files": [str(path.relative_to(folder)) for path in checkpoints],
        "checkpoints": [_plain(torch.load(path, weights_only=False)) for path in checkpoints],
    }


def _plain(value: Any) -> Any:
    """Return nested values that can be compared, without paths and times."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items() if k not in UNLIKE}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names of what differs."""
    return [name for name in one if one[name] != other[name]]


def said(capsys: Any) -> list[str]:
    """Return the lines on standard error about steps per call."""
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith(("warning: steps_per", "warning: compile"))]
