"""Cost of an optimizer step in the language model and the image classifier of `make new`.

Their steps take milliseconds; the images are read from PNG files. The hand-written loop has the
same network, optimizer and batches (with the same shuffling and augmentation) and logs the same:
loss, learning rate and norms every 50 steps to TensorBoard and a CSV file, and one validation and
two checkpoints per epoch.
"""

import csv
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib.image
import torch
from torch.nn.utils import get_total_norm
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from torchmetrics import MeanMetric, MetricCollection

import src.data
import src.models
from src.kindling.cli import new
from tests.benchmarks.measure import ratio
from tests.benchmarks.steps import CPU, UNIT, Marks, trained
from tests.benchmarks.table import Result

EVERY = 50  # steps between two log points, as in conf/trainer/default.yaml
LR, DECAY = 0.01, 0.01  # of the recipes
GOAL = 1.03


@contextmanager
def written(kind: str) -> Iterator[tuple[Any, Any, Path]]:
    """Write the files of a kind; yield its module, its data module and the folder."""
    name = f"bench_{kind}"
    with tempfile.TemporaryDirectory() as root, ExitStack() as during:
        new.write(Path(root), name, kind)
        for package in (src.data, src.models):
            places = [*package.__path__, f"{root}/{package.__name__.replace('.', '/')}"]
            during.enter_context(mock.patch.object(package, "__path__", places))
        for where in ("data", "models"):
            during.callback(sys.modules.pop, f"src.{where}.{name}", None)
        data = import_module(f"src.data.{name}")
        yield import_module(f"src.models.{name}"), data, Path(root)


class Files:
    """Gray images [N, 1, H, W] in PNG files, read one by one.

    Args:
        images: the images.
        folder: where the files are written.
    """

    def __init__(self, images: Any, folder: Path) -> None:
        folder.mkdir()
        self.files = [folder / f"{number}.png" for number in range(len(images))]
        for file, image in zip(self.files, images, strict=True):
            matplotlib.image.imsave(file, image[0].numpy(), cmap="gray")

    def __getitem__(self, index: int) -> Any:
        return torch.from_numpy(matplotlib.image.imread(self.files[index])[..., 0])[None]

    def __len__(self) -> int:
        return len(self.files)


class ByHand:
    """The loop that a careful author would write, which logs and saves as much as a run.

    Args:
        model: the network, with its `loss` and `metrics`.
        loader: yields the training batches of an epoch.
        validation: yields the validation batches.
        folder: where the history and the checkpoints are written.
    """

    def __init__(self, model: Any, loader: Any, validation: Any, folder: Path) -> None:
        self.model, self.loader, self.validation, self.folder = model, loader, validation, folder
        self.optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=DECAY)
        self.schedule = OneCycleLR(self.optimizer, LR, total_steps=10**9, cycle_momentum=False)
        self.metrics = MetricCollection(model.metrics())
        self.loss = MeanMetric()
        self.board = SummaryWriter(str(folder))
        self.step, self.best = 0, float("inf")
        self.losses: list[Any] = []

    def __call__(self, steps: int) -> None:
        """Take `steps` steps, in whole epochs."""
        for _ in range(steps // len(self.loader)):
            for batch in self.loader:
                self.take(*batch)
            self.validate()

    def take(self, inputs: Any, targets: Any) -> None:
        """Take one step; log every EVERY steps."""
        logs = (self.step + 1) % EVERY == 0
        before = [p.detach().clone() for p in self.model.parameters()] if logs else []
        loss = self.model.loss(self.model(inputs), targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.losses.append(loss.detach())
        self.step += 1
        if logs:
            self.log(before)

    def log(self, before: list[Any]) -> None:
        """Log the mean loss, the learning rate and the norms of the last step."""
        weights = list(self.model.parameters())
        change = [new.detach() - old for new, old in zip(weights, before, strict=True)]
        values = {
            "train/loss": torch.stack(self.losses).mean().item(),
            "train/lr": self.optimizer.param_groups[0]["lr"],
            "train/gradient_norm": get_total_norm([w.grad for w in weights]).item(),
            "train/update": (get_total_norm(change) / get_total_norm(before)).item(),
        }
        self.losses = []
        self.write(values)

    def write(self, values: dict[str, float]) -> None:
        """Write a log point."""
        for name, value in values.items():
            self.board.add_scalar(name, value, self.step)
        with (self.folder / "metrics.csv").open("a", newline="") as file:
            csv.writer(file).writerow([self.step, *values.values()])

    def validate(self) -> None:
        """Validate, log, and save the best and the last checkpoint."""
        self.model.eval()
        with torch.inference_mode():
            for inputs, targets in self.validation:
                outputs = self.model(inputs)
                self.loss.update(self.model.loss(outputs, targets), len(inputs))
                self.metrics.update(outputs, targets)
        self.model.train()
        loss = self.loss.compute().item()
        metrics = {name: value.item() for name, value in self.metrics.compute().items()}
        self.write({"val/loss": loss, **metrics})
        self.loss.reset()
        self.metrics.reset()
        content = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
        }
        for name in ["best"] * (loss <= self.best) + ["last"]:
            torch.save(content, self.folder / f"{name}.pt")
        self.best = min(loss, self.best)


def measured(kind: str, period: int, data: dict[str, Any], *overrides: str) -> list[Result]:
    """Measure the row of a kind.

    Args:
        kind: the kind of `make new`.
        period: epochs between two marks.
        data: arguments of its data module.
        overrides: further settings of the run.
    """
    what = f"{kind} of make new / a hand-written loop that logs the same"
    with written(kind) as (model, source, root), tempfile.TemporaryDirectory() as folder:
        marks = Marks(by_hand(kind, model, source, root, Path(folder), data), period, 1)
        options = [f"data.{name}={value}" for name, value in data.items()]
        words = (f"--config-dir={root}/conf", f"model=bench_{kind}", CPU, *options, *overrides)
        trained(marks, *words)
    result = Result(kind, what, ratio(marks.ours, marks.against), GOAL, unit=UNIT)
    result.ours, result.against = marks.ours, marks.against
    return [result]


def by_hand(
    kind: str, model: Any, source: Any, root: Path, folder: Path, data: dict[str, Any]
) -> ByHand:
    """Make the loop of a kind; give both longer epochs, or files."""
    if kind == "tokens":
        source.TEXT *= 4
    else:
        read_files(source, root)
    name = f"Bench{kind.capitalize()}"
    rows = getattr(source, f"{name}Data")(**data, seed=0)
    return ByHand(getattr(model, name)(), *loaders(rows), folder)


def read_files(source: Any, root: Path) -> None:
    """Make the data module of images read files instead of memory."""
    original = source.Augmented.__init__

    def write_and_read(self: Any, images: Any, *others: Any) -> None:
        folder = root / str(len(list(root.iterdir())))
        original(self, Files(images, folder), *others)

    source.Augmented.__init__ = write_and_read


def loaders(rows: Any) -> Iterator[Any]:
    """Yield plain loaders for training and validation."""
    for stage, loader in (("train", rows.train_dataloader()), ("val", rows.val_dataloader())):
        yield loader if isinstance(loader, DataLoader) else Shuffled(*rows.split(stage), rows)


class Shuffled:
    """Batches of rows in memory, in a new order each epoch."""

    def __init__(self, inputs: Any, targets: Any, rows: Any) -> None:
        self.inputs, self.targets, self.size = inputs, targets, rows.batch_size

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.size)

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(len(self.inputs))
        return zip(
            self.inputs[order].split(self.size), self.targets[order].split(self.size), strict=True
        )


ROWS: dict[str, Callable[[], list[Result]]] = {
    "tokens": lambda: measured("tokens", 3, {"length": 32}),
    "images": lambda: measured("images", 2, {"images": 1600, "pixels": 32}),
}
