"""The learning-rate range test: at which learning rate does the loss fall fastest?

Source: Smith, "Cyclical Learning Rates for Training Neural Networks", arxiv.org/abs/1506.01186.
"""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pydantic import Field, PositiveFloat

from src.kindling import layout
from src.kindling.colors import BLUE, VERMILION
from src.kindling.errors import InputError, printable

SMOOTHING = 0.9  # of the exponential average of the losses
OF_THE_TEST = (
    "debug=",
    "callbacks=lr_find",
    "callbacks.lr_find",
    "optimizer.lr=",
    "trainer.max_steps=",
)
NOISY = 10  # first steps, whose average says little


class RangeTest(Callback):
    """Raise the learning rate with each step, suggest one, and draw the losses against the rates.

    For any model with one optimizer; the schedule has no effect. Unlike Lightning's
    LearningRateFinder, it keeps the proportions of the rates of parameter groups. It ends after
    `trainer.max_steps` steps, or when the loss diverges.

    Args:
        min_lr: rate of the first step.
        max_lr: rate of the last step.
        diverged: the smoothed loss counts as diverged above this multiple of its minimum.

    Raises:
        InputError: several optimizers, manual optimization, or too few steps.
    """

    def __init__(
        self,
        min_lr: PositiveFloat = 1e-6,
        max_lr: PositiveFloat = 10.0,
        diverged: Annotated[float, Field(gt=1)] = 4.0,
    ) -> None:
        self.min_lr, self.max_lr, self.diverged = min_lr, max_lr, diverged
        self.rates: list[float] = []  # of the first parameter group
        self.losses: list[float] = []  # smoothed
        self._scales: list[float] = []  # rates of the parameter groups, in units of the first
        self._mean = 0.0
        self.suggested = ""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave out what waits for a metric: of a validation, which a range test does not have."""
        callbacks = trainer.callbacks
        waiting = [
            c for c in callbacks if isinstance(c, EarlyStopping | ModelCheckpoint) and c.monitor
        ]
        trainer.callbacks = [c for c in callbacks if c not in waiting]
        if waiting and trainer.is_global_zero:
            names = ", ".join(f"{type(c).__name__} ({c.monitor})" for c in waiting)
            print(f"lr_find: left out, since a range test does not validate: {names}")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse what cannot be tested."""
        trainer.lr_scheduler_configs.clear()
        if not pl_module.automatic_optimization or len(trainer.optimizers) != 1:
            raise InputError(
                f"debug=lr_find: {type(pl_module).__name__} steps several optimizers, or steps one"
                " by itself: a range test needs one that Lightning steps"
            )
        if trainer.max_steps <= 2 * NOISY:
            raise InputError(f"trainer.max_steps={trainer.max_steps}: must be above {2 * NOISY}")
        self._first = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Set the rates of this step."""
        groups = trainer.optimizers[0].param_groups
        self._scales += [float(group["lr"]) / self._first for group in groups[len(self._scales) :]]
        share = trainer.global_step / (trainer.max_steps - 1)
        self._rate = self.min_lr * (self.max_lr / self.min_lr) ** share
        for group, scale in zip(groups, self._scales, strict=True):
            group["lr"] = scale * self._rate

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss of a step, and stop if it has diverged."""
        if not outputs or trainer.global_step == len(self.rates):  # skipped, or accumulated
            return
        loss = float(outputs["loss"])
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * loss
        smoothed = self._mean / (1 - SMOOTHING ** (len(self.losses) + 1))
        best = min([*self.losses, smoothed])
        ends = not math.isfinite(loss) or smoothed - best > (self.diverged - 1) * abs(best)
        if not ends:
            self.rates.append(self._rate)
            self.losses.append(smoothed)
        trainer.should_stop = trainer.strategy.broadcast(ends or trainer.should_stop)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Print the suggestion, and draw it."""
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        path = Path(trainer.default_root_dir, "figures", "lr_find.png")
        path.parent.mkdir(exist_ok=True)
        at = steepest(self.rates, self.losses)
        self._draw(path, at)
        if at is None:
            print(f"lr_find: the loss never falls in {len(self.rates)} steps: no suggestion")
        else:
            taken = getattr(pl_module, "optimizer_factory", None) is not None
            key = "optimizer.lr=" if taken else "a learning rate of "
            self.suggested = f"{key}{self.rates[at]:.2g}"
            print(f"lr_find: try {self.suggested}, where the loss falls fastest")
        print(printable(f"lr_find: losses against rates: {path}"))

    def command(self, overrides: Sequence[str]) -> list[str]:
        """Return the command that trains at the suggested rate, if there is one for it.

        Args:
            overrides: those of the test: ["debug=lr_find", "model=fizzbuzz", ...].
        """
        if "=" not in self.suggested:
            return []
        kept = [word for word in overrides if not word.lstrip("+~").startswith(OF_THE_TEST)]
        return [shlex.join([*layout.start("train"), *kept, self.suggested])]

    def _draw(self, path: Path, at: int | None) -> None:
        from matplotlib.figure import Figure

        figure = Figure((4.8, 4.4), layout="constrained")
        axes = figure.subplots()
        axes.plot(self.rates, self.losses, color=BLUE)
        if at is not None:
            axes.plot(self.rates[at], self.losses[at], "o", color=VERMILION)
            axes.annotate(f"{self.rates[at]:.2g}", (self.rates[at], self.losses[at]))
        axes.set(xscale="log", xlabel="learning rate", ylabel="train/loss, smoothed")
        figure.savefig(path)


def steepest(rates: list[float], losses: list[float]) -> int | None:
    """Return the index where losses fall fastest per factor of the rate; None if they do not."""
    if len(losses) < NOISY + 2:
        return None
    slopes = np.gradient(losses, np.log(rates))[NOISY:]
    return NOISY + int(slopes.argmin()) if slopes.min() < 0 else None
