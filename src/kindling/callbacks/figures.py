"""Pictures of the model as it learns: in TensorBoard, and as PNG files in the run directory.

They are drawn between two epochs, of what the model answers in evaluation mode; training goes on
as if they had not been: no random number is drawn, no mode changed, no gradient touched.
"""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.seed import isolate_rng
from pydantic import PositiveInt
from torch import Tensor, nn

from src.kindling.callbacks.checkpointing import is_last_epoch

Rows = tuple[str, Tensor, Tensor]  # stage, inputs [N, D], targets
STAGES = {"val": "validation", "train": "training"}
ROWS = 2000  # that are looked at: the first ones
GENERIC = {  # by the model's target
    "class": "src.kindling.figures.classification",
    "value": "src.kindling.figures.regression",
}


class Figures(Callback):
    """Draw pictures every few epochs and at the end of training, and count the weights then.

    A picture that cannot be drawn costs one `warning:` line, and is not tried again.

    Args:
        every_n_epochs: epochs between two drawings; None means half of `trainer.max_epochs`, or
            50 where the run has no last epoch.
    """

    def __init__(self, every_n_epochs: PositiveInt | None = None) -> None:
        self.every_n_epochs = every_n_epochs
        self._pictures: list[Any] = []
        self._watching: list[Any] = []  # those of them that show a way
        self._rows: Rows | None = None
        self._notes: dict[str, Any] = {}  # of pictures that show a way, from a checkpoint

    def on_train_start(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        """Find out what there is to draw, and what of."""
        self._pictures, self._watching, self._rows = [], [], rows_of(trainer.datamodule)
        self._loaders_alone = self._rows is None
        if trainer.fast_dev_run or not trainer.is_global_zero:
            return
        if isinstance(trainer.strategy, FSDPStrategy):
            _warn("no figures of a model that no process has as a whole (FSDP)")
            return
        with self._forgiven():
            self._pictures = pictures_of(pl_module)
            for picture in self._pictures:
                picture.take_up(self._notes.get(picture.name), pl_module)
            self._watching = [picture for picture in self._pictures if picture.watches()]

    def on_train_batch_end(
        self, trainer: Any, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """At an epoch's last step: count weights and gradients, which a validation clears."""
        if not self._pictures or not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        if self._loaders_alone and not any(trainer.num_val_batches):
            self._rows = rows_of_batch("train", batch)
        for picture in self._watching:
            picture.watch(pl_module)
        if self._due(trainer):
            for logger in _able(trainer, "log_histograms"):
                logger.log_histograms(pl_module, trainer.global_step - 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, when it is time; after the validation of this epoch, if it had one."""
        if not self._pictures or not (self._due(trainer) or is_last_epoch(trainer)):
            return
        if self._loaders_alone and any(trainer.num_val_batches):
            with self._forgiven():
                self._rows = first_rows(trainer.val_dataloaders)
        if self._rows:
            self._draw(trainer, pl_module)

    def quiet_epochs(self, trainer: Any, steps: int) -> int:
        """Return how many epochs there are to the next drawing; 1 where each is looked at."""
        if not self._pictures:
            return sys.maxsize
        if self._loaders_alone or self._watching:
            return 1
        every = self._every(trainer)
        return every - int(trainer.current_epoch) % every

    def _due(self, trainer: Any) -> bool:
        """Say whether the epoch that is going on ends with a drawing."""
        epoch = trainer.current_epoch + 1
        return bool(epoch % self._every(trainer) == 0 or epoch == trainer.max_epochs)

    def _every(self, trainer: Any) -> int:
        epochs = trainer.max_epochs or -1
        return self.every_n_epochs or (-(-epochs // 2) if epochs > 0 else 50)

    def _draw(self, trainer: Any, module: Any) -> None:
        from src.kindling.figures.picture import View

        stage, inputs, targets = self._rows  # type: ignore[misc]
        step = trainer.global_step
        with self._forgiven():
            outputs = ask(module, inputs)
            if not outputs.isfinite().all():
                raise ValueError(f"answers that are no numbers at step {step}")
            view = View(module, trainer.datamodule, STAGES[stage], targets.cpu().numpy(),
                        outputs.numpy(), step, lambda more: ask(module, more).numpy())  # fmt: skip
            for picture in list(self._pictures):
                with self._forgiven(picture.name):
                    _keep(trainer, picture.name, picture.draw(view), step - 1)
            for logger in _able(trainer, "log_precision_recall"):
                for name, (true, chances) in precision_recall(module, view).items():
                    logger.log_precision_recall(name, true, chances, step - 1)

    @contextmanager
    def _forgiven(self, name: str | None = None) -> Iterator[None]:
        """Turn what goes wrong into a line, and leave out the picture that it names, or all."""
        try:
            yield
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            _warn(f"{f'figure {name} is not drawn' if name else 'no more figures'}: {lines[0]}")
            self._pictures = [p for p in self._pictures if name not in (p.name, None)]
            self._watching = [p for p in self._watching if p in self._pictures]

    def state_dict(self) -> dict[str, Any]:
        """Return the ways so far, for the checkpoint."""
        return {"notes": {p.name: notes for p in self._pictures if (notes := p.notes())}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the ways of the run that is resumed."""
        self._notes = state_dict["notes"]


# What there is to draw, and what of ---------------------------------------------------------------


def pictures_of(module: Any) -> list[Any]:
    """Return the pictures of a model: of the file with its stem, or of its target."""
    name = type(module).__module__.replace(".models.", ".figures.")
    if name == type(module).__module__ or not _is_there(name):
        name = GENERIC.get(getattr(module, "target", ""), "")
    if not name or not _is_there(name):
        return []
    found: list[Any] = importlib.import_module(name).pictures(module)
    return found


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the whole package is gone
        return False


def precision_recall(module: Any, view: Any) -> dict[str, tuple[Any, Any]]:
    """Return, for each class of a classifier, whether a row is of it, and its probability."""
    if getattr(module, "target", None) != "class":
        return {}
    curves: dict[str, Any] = importlib.import_module("src.kindling.figures.classification").curves(
        view
    )
    return curves


def rows_of(data: Any) -> Rows | None:
    """Return the validation rows, or else the training rows; None of data with loaders alone."""
    with suppress(NotImplementedError, AttributeError):
        for stage in STAGES:
            if (split := data.split(stage)) is not None:
                return stage, split[0][:ROWS], split[1][:ROWS]
    return None


def first_rows(loaders: Any) -> Rows | None:
    """Return the first batch of a loader, or of the first of several.

    Read anew for each drawing: one kept from a validation would be gone after a resume.
    """
    loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
    with isolate_rng():  # a DataLoader draws a seed for its workers
        return rows_of_batch("val", next(iter(loader)))


def rows_of_batch(stage: str, batch: Any) -> Rows | None:
    """Return the rows of a batch, or of the first of several; None where it has another form."""
    while isinstance(batch, list) and batch and not isinstance(batch[0], Tensor):
        batch = batch[0]
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    if not pair or not all(isinstance(part, Tensor) for part in batch):
        return None
    return stage, batch[0][:ROWS], batch[1][:ROWS]


def ask(module: Any, inputs: Tensor) -> Tensor:
    """Return what the model says of inputs, on the CPU, and leave no trace in it."""
    weight = next(module.parameters())
    inputs = inputs.to(weight.device)
    if inputs.is_floating_point():
        inputs = inputs.to(weight.dtype)
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), isolate_rng(), _eager(module):
            outputs: Tensor = module(inputs)
    finally:
        for part, training in modes:
            part.training = training
    return outputs.cpu().double()


def _eager(module: nn.Module) -> Any:
    """Keep a compiled network from being compiled again, for this number of rows."""
    # torch has no public way to ask; to set the stance imports its compiler, which takes a second.
    compiled = any(part._compiled_call_impl is not None for part in module.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _able(trainer: Any, method: str) -> list[Any]:
    return [logger for logger in trainer.loggers if hasattr(logger, method)]


def _keep(trainer: Any, name: str, drawing: Any, step: int) -> None:
    """Write a picture to the run directory, and give it to the loggers that take pictures."""
    folder = Path(trainer.default_root_dir, "figures")
    folder.mkdir(exist_ok=True)
    temporary = folder / f".{name}.png"
    temporary.write_bytes(drawing.png)
    os.replace(temporary, folder / f"{name}.png")
    for logger in _able(trainer, "log_picture"):
        logger.log_picture(name, drawing.png, drawing.size, drawing.description, step)


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)
