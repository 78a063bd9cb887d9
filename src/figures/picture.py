"""What all pictures share: what they look at, and what is written around them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from src.figures.png import png
from src.figures.sheet import GREY, Array, Sheet, lettering


@dataclass
class View:
    """What a picture may look at.

    Args:
        model: the LightningModule.
        data: its LightningDataModule.
        stage: where the rows come from: "validation", or "training" where nothing is held out.
        targets: what is true of the rows: values [N, C] or classes [N].
        outputs: what the model says of them: values or logits [N, C].
        step: optimizer steps so far.
        ask: maps other inputs to outputs.
    """

    model: Any
    data: Any
    stage: str
    targets: Array
    outputs: Array
    step: int
    ask: Callable[[Tensor], Array]


@dataclass
class Drawing:
    """A picture as it is kept: PNG, width and height in pixels, and what it shows in words."""

    png: bytes
    size: tuple[int, int]
    description: str


class Picture:
    """A picture of one thing, drawn again as the model learns.

    A subclass sets `name` and `size`, and defines `paint`; `watch`, `notes` and `take_up` where it
    shows a way and not a moment.
    """

    name: str
    size = (480, 420)  # pixels; TensorBoard shows less than 400 of them

    def draw(self, view: View) -> Drawing:
        """Return the picture of this moment, which depends on no earlier one."""
        sheet = Sheet(*self.size)
        title = self.paint(sheet, view)
        size = 16 if lettering(title, 16, bold=True)[0].shape[1] < sheet.width - 20 else 13.5
        sheet.write(12, 19, title, "#000000", align=0, size=size, bold=True)
        sheet.write(12, 43, self.rows(view), GREY, align=0)
        sheet.write(sheet.width - 12, 43, f"step {view.step:,}", GREY, align=1)
        described = f"{title} (step {view.step:,})"
        return Drawing(png(sheet.pixels, described), self.size, described)

    def paint(self, sheet: Sheet, view: View) -> str:
        """Draw what there is to see, and return it in words: the headline, for who cannot see."""
        raise NotImplementedError(f"{type(self).__name__} defines no paint")

    def rows(self, view: View) -> str:
        """Return what the picture is of."""
        return f"{len(view.targets):,} rows of {view.stage}"

    def watch(self, model: Any) -> None:
        """Take a note after an epoch of training."""

    def watches(self) -> bool:
        """Say whether notes are taken: then no epoch may go by without."""
        return type(self).watch is not Picture.watch

    def notes(self) -> Any:
        """Return the notes, as plain data for a checkpoint."""
        return None

    def take_up(self, notes: Any, model: Any) -> None:
        """Go on with the notes of the run that is resumed; None at the start of a run."""


def ceiling(value: float) -> float:
    """Return the least of 1, 1.5, 2, 3, 5, 7, 10, ... (and tenths of them) that is not below."""
    if not math.isfinite(value) or value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return float(
        next(m * power for m in (1, 1.5, 2, 3, 5, 7, 10) if m * power >= value * (1 - 1e-9))
    )
