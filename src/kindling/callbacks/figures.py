"""Pictures of the model as it learns: PNG files in the run directory, and what loggers take.

They are drawn between two epochs, of what the model predicts in evaluation mode; training continues
as if they had not been: no random number is drawn, no mode changed, no gradient touched.
"""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import FSDPStrategy
from pydantic import PositiveInt

from src.kindling.callbacks.loop import is_last_epoch
from src.kindling.errors import first_line, printable

ROOM = "src.kindling.figures"  # optional
GENERIC = {"class": f"{ROOM}.classification", "value": f"{ROOM}.regression"}  # by model.target


class Figures(Callback):
    """Draw pictures at the end of training and every few epochs, and log histograms of weights.

    A picture that cannot be drawn costs one `warning:` line, and is not tried again.

    Args:
        every_n_epochs: epochs between two drawings; None draws at the end of training alone.
    """

    def __init__(self, every_n_epochs: PositiveInt | None = None) -> None:
        self.every_n_epochs = every_n_epochs
        self._pictures: list[Any] = []
        self._recording: list[Any] = []  # those of them that show a trajectory
        self._sample: tuple[str, Any] | None = None  # stage and batch
        self._states: dict[str, Any] = {}  # of trajectories, from a checkpoint

    def on_train_start(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        """Find out what there is to draw."""
        self._pictures, self._recording = [], []
        if trainer.fast_dev_run or not trainer.is_global_zero:
            return
        with self._one_warning():
            self._pictures = pictures_of(pl_module)
        if self._pictures and isinstance(trainer.strategy, FSDPStrategy):
            _warn("no figures: with FSDP no process holds the whole model")
            self._pictures = []
        if self._pictures:
            self._sample = _view().held_out(trainer.datamodule)
            self._loaders_alone = self._sample is None
        for picture in self._pictures:
            picture.restore(self._states.get(picture.name), pl_module)
        self._recording = [picture for picture in self._pictures if _records(picture)]

    def on_train_batch_end(
        self, trainer: Any, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """At an epoch's last step: log weights and gradients, which a validation clears."""
        if not self._pictures or not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        if self._loaders_alone and not any(trainer.num_val_batches):
            self._sample = "train", batch
        for picture in self._recording:
            picture.record(pl_module)
        if self._due(trainer):
            for logger in _able(trainer, "log_histograms"):
                logger.log_histograms(pl_module, trainer.global_step - 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, when it is time; after the validation of this epoch, if it had one."""
        if not self._pictures or not (self._due(trainer) or is_last_epoch(trainer)):
            return
        if self._loaders_alone and any(trainer.num_val_batches):
            with self._one_warning():
                self._sample = "val", _view().first_batch(trainer.val_dataloaders)
        if self._sample:
            self._draw(trainer, pl_module, *self._sample)

    def epochs_until_next(self, trainer: Any, steps: int) -> int:
        """Return the number of epochs up to the next figure; 1 if each epoch is recorded."""
        if not self._pictures:
            return sys.maxsize
        if self._loaders_alone or self._recording:
            return 1
        if (every := self.every_n_epochs) is None:
            return sys.maxsize
        return every - int(trainer.current_epoch) % every

    def steps_until_next(self, trainer: Any) -> float:
        """Need no call between steps: it acts at the last step of an epoch."""
        return float("inf")

    def _due(self, trainer: Any) -> bool:
        """Say whether the current epoch ends with a drawing."""
        epoch = trainer.current_epoch + 1
        every = self.every_n_epochs
        return epoch == trainer.max_epochs or (every is not None and epoch % every == 0)

    def _draw(self, trainer: Any, module: Any, stage: str, batch: Any) -> None:
        with self._one_warning():
            view = _view().view_of(module, trainer.datamodule, stage, batch, trainer.global_step)
            for picture in list(self._pictures):
                with self._one_warning(picture.name):
                    if picture.suits(view):
                        _save(trainer, picture, view)
            for name, (true, scores) in _precision_recall(module, view).items():
                for logger in _able(trainer, "log_precision_recall"):
                    logger.log_precision_recall(name, true, scores, view.step - 1)

    @contextmanager
    def _one_warning(self, name: str | None = None) -> Iterator[None]:
        """Report an exception in one line and leave out the figure that is named, or all."""
        try:
            yield
        except Exception as error:
            _warn(f"figure {name} left out: {first_line(error)}" if name else
                  f"no more figures: {first_line(error)}")  # fmt: skip
            self._pictures = [p for p in self._pictures if name not in (p.name, None)]
            self._recording = [p for p in self._recording if p in self._pictures]

    def state_dict(self) -> dict[str, Any]:
        """Return the trajectories so far, for the checkpoint."""
        states = {picture.name: picture.state() for picture in self._recording}
        return {"notes": {name: state for name, state in states.items() if state is not None}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the trajectories of the run that is resumed."""
        self._states = state_dict["notes"]


def pictures_of(module: Any) -> list[Any]:
    """Return the pictures of a model: of the file with its stem, or of its target."""
    own = type(module).__module__.replace(".models.", ".figures.")
    if own == type(module).__module__ or not _is_there(own):
        own = GENERIC.get(getattr(module, "target", ""), "")
    if not own or not _is_there(own) or not _is_there(ROOM):
        return []
    found: list[Any] = importlib.import_module(own).pictures(module)
    return found


def _is_there(module: str) -> bool:
    with suppress(ModuleNotFoundError):  # the whole package is gone
        return find_spec(module) is not None
    return False


def _view() -> Any:
    return importlib.import_module(f"{ROOM}.view")


def _records(picture: Any) -> bool:
    """Say whether a picture shows a trajectory: then no epoch may pass without it."""
    base = importlib.import_module(f"{ROOM}.picture").Picture
    return type(picture).record is not base.record


def _precision_recall(module: Any, view: Any) -> dict[str, tuple[Any, Any]]:
    """Return, per class of a classifier, whether each row is of it, and its probability."""
    if getattr(module, "target", None) != "class":
        return {}
    classification = importlib.import_module(GENERIC["class"])
    curves: dict[str, Any] = classification.curves(view) if classification.suits(view) else {}
    return curves


def _able(trainer: Any, method: str) -> list[Any]:
    return [logger for logger in trainer.loggers if hasattr(logger, method)]


def _save(trainer: Any, picture: Any, view: Any) -> None:
    """Write a picture to the run directory, and give it to the loggers that take pictures."""
    png, folder = picture.png(view), Path(trainer.default_root_dir, "figures")
    folder.mkdir(exist_ok=True)
    temporary = folder / f".{picture.name}.png"
    temporary.write_bytes(png)  # no fsync: a lost picture is drawn again
    os.replace(temporary, folder / f"{picture.name}.png")
    for logger in _able(trainer, "log_picture"):
        logger.log_picture(picture.name, png, picture.title(view), view.step - 1)


def _warn(line: str) -> None:
    print(printable(f"warning: {line}"), file=sys.stderr)
