"""Cost of an optimizer step in a whole training run, compared with a hand-written loop.

The run is `src.train` with all that it does by default: TensorBoard, CSV, checkpoints, validation,
a progress bar on a terminal (whose output is discarded), signals and exact resume. Every `period`
epochs the clock is read inside the fit, and the hand-written loop takes as many steps, so that the
two alternate. A period is a multiple of the intervals at which the recipe validates, logs and
saves, so that it contains all of that. It does not contain building the run, compiling and the
test at the end; for those see processes.py.

The ratio is that of two loops in one process. The note gives the ratio to the same loop in a
process of its own.
"""

import io
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, TextIO
from unittest import mock

import torch

from src import train
from src.kindling import build
from src.kindling.model import BaseModule
from src.kindling.process.quiet import quiet_lightning
from src.tour.fizzbuzz import make_data
from tests.benchmarks import bare_lightning, raw_loops
from tests.benchmarks.measure import ROUNDS, alternately, now, ratio, seconds
from tests.benchmarks.raw_loops import Loop
from tests.benchmarks.script import Script
from tests.benchmarks.table import Result
from tests.conftest import compose

UNIT = "us per step"


@dataclass
class Marks:
    """Read the clock every `period` epochs after `warm`, and run the other loop in between.

    Args:
        other: the loop that takes as many steps in between; None for none.
        alone: the same loop in a process of its own.
        period: epochs between two marks.
        warm: epochs before the first mark.
        ours: seconds per step of the run, one value per round.
        against: seconds per step of the other loop.
        separate: seconds per step of the loop in its own process.
    """

    other: Loop | None
    period: int
    warm: int
    alone: Loop | None = None
    ours: list[float] = field(default_factory=list)
    against: list[float] = field(default_factory=list)
    separate: list[float] = field(default_factory=list)
    _start: float = 0.0
    _step: int = 0

    @property
    def epochs(self) -> int:
        """Epochs that a run needs for all marks; the last one starts with the last mark."""
        return self.warm + ROUNDS * self.period + 1

    def epochs_left(self, epoch: int) -> int:
        """Return the number of epochs up to the next mark, which is at the start of an epoch."""
        return self.period - (epoch - self.warm) % self.period

    def at_epoch_start(self, epoch: int, step: int) -> None:
        """Read the clock if a mark is due."""
        if epoch < self.warm or (epoch - self.warm) % self.period:
            return
        if epoch > self.warm:
            steps = step - self._step
            self.ours.append((now() - self._start) / steps)
            for loop, taken in ((self.other, self.against), (self.alone, self.separate)):
                if loop is not None:
                    with torch.enable_grad():
                        taken.append(seconds(lambda loop=loop: loop(steps)) / steps)
        else:
            for loop in (self.other, self.alone):
                if loop is not None:
                    loop(raw_loops.STEPS)  # warm up
        self._start, self._step = now(), step


class _Terminal(io.TextIOWrapper):
    """Pretend to be a terminal, so that the progress bar is drawn."""

    def isatty(self) -> bool:
        return True


def trained(marks: Marks, *overrides: str) -> str:
    """Run `python -m src.train` in this process with marks; return its output.

    Raises:
        RuntimeError: the run failed, or ended before the last mark.
    """
    original = BaseModule.on_train_epoch_start

    def hook(module: Any) -> None:
        marks.at_epoch_start(module.trainer.current_epoch, module.trainer.global_step)
        original(module)

    def quiet(module: Any, trainer: Any, steps: int) -> int:
        return marks.epochs_left(trainer.current_epoch)

    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile("w+") as printed,  # a real file: the compiler's processes inherit it
        _Terminal(open(os.devnull, "wb")) as screen,
        mock.patch.object(sys, "__stderr__", screen),
        mock.patch.object(BaseModule, "on_train_epoch_start", hook),
        mock.patch.object(BaseModule, "epochs_until_next", quiet, create=True),
        redirect_stdout(printed),
        redirect_stderr(printed),
    ):
        words = [*overrides, f"trainer.max_epochs={marks.epochs}", f"log_dir={folder}"]
        with mock.patch.object(sys, "argv", ["src/train.py", *words]):
            try:
                train.main()
            except SystemExit as stop:
                raise RuntimeError(_read(printed).splitlines()[-1]) from stop
        if len(marks.ours) != ROUNDS:
            raise RuntimeError("the fit ended before the last mark")
        return _read(printed)


def _read(printed: TextIO) -> str:
    printed.seek(0)
    return printed.read().strip()


def compared(
    row: str, what: str, goal: float, loop: list[Any], period: int, warm: int, *overrides: str
) -> Result:
    """Compare a run with a hand-written loop, given as the name of its maker and its arguments."""
    name, *arguments = loop
    with Script(name, *arguments) as alone:
        marks = Marks(getattr(raw_loops, name)(*arguments), period, warm, alone)
        printed = trained(marks, *overrides)
    refusals = [line for line in printed.splitlines() if line.startswith("warning: compile")]
    separate = f"{ratio(marks.ours, marks.separate):.2f} to the loop in a process of its own"
    result = Result(row, what, ratio(marks.ours, marks.against), goal, unit=UNIT)
    result.note = "; ".join([separate, *refusals])
    result.ours, result.against, result.more = (
        marks.ours,
        marks.against,
        {"separate": marks.separate},
    )
    return result


# Rows ---------------------------------------------------------------------------------------------

CPU = "trainer.accelerator=cpu"
TUTORIAL = "experiment=tutorial_fizzbuzz"  # saves every 1000 epochs, logs every 100


def fizzbuzz(compile: bool) -> list[Result]:
    """The tutorial's FizzBuzz with all conveniences on."""
    name, goal = ("fizzbuzz_compiled", 0.35) if compile else ("fizzbuzz", 0.9)
    what = "tutorial's FizzBuzz" + ", compile=true" * compile + " / its raw loop"
    loop = ["tutorial_fizzbuzz"]
    return [compared(name, what, goal, loop, 1000, 100, TUTORIAL, CPU, f"compile={compile}")]


def recipe(compile: bool) -> list[Result]:
    """The default recipe, validated every 25 epochs as configured."""
    name, goal = ("recipe_compiled", 0.6) if compile else ("recipe", 1.1)
    what = "AdamW, one-cycle (default)" + ", compile=true" * compile + " / raw loop of the same"
    settings = compose(CPU)
    rows = len(build.build_data(settings).split("train")[0])
    return [
        compared(name, what, goal, ["recipe", settings, rows], 100, 50, CPU, f"compile={compile}")
    ]


def two_layer(optimizer: str) -> list[Result]:
    """The tutorials' two-layer net: one step per epoch, saved every 50."""
    name, what = optimizer.lower(), f"tutorial's two-layer net, {optimizer} / its raw loop"
    loop, build = ["two_layer_net", optimizer], f"experiment=tutorial_two_layer_{name}"
    return [compared(f"two_layer_{name}", what, 1.1, loop, 1000, 100, build, CPU)]


def one_step_per_call() -> list[Result]:
    """The tutorial's FizzBuzz in Lightning's own loop, compared with a bare Trainer."""
    what = "tutorial's FizzBuzz, one step per call / bare Lightning"
    overrides = (TUTORIAL, CPU, "steps_per_execution=1")
    return [compared("one_step_per_call", what, 1.15, ["bare_lightning"], 200, 20, *overrides)]


def anchors() -> list[Result]:
    """Other ways to train the tutorial's FizzBuzz, compared with its raw loop."""
    steps = 500 * raw_loops.STEPS
    raw, data = raw_loops.tutorial_fizzbuzz(), make_data(raw_loops.NUMBERS)
    others = {"raw loop that reads no loss": raw_loops.steps_alone(*data, raw_loops.BATCH)}
    if find_spec("jax") is not None:
        others["JAX, lax.scan over the run"] = raw_loops.jax_scan()
    times = alternately(*(lambda loop=loop: loop(steps) for loop in (raw, *others.values())))
    against, *others_took = [[taken / steps for taken in column] for column in times]
    found = [
        Result("anchors", f"{what} / raw loop", ratio(taken, against), None, False, taken, against)
        for what, taken in zip(others, others_took, strict=True)
    ]
    marks = Marks(raw, 200, 20)
    module = bare_lightning.BareFizzBuzz()
    module.on_train_epoch_start = lambda: marks.at_epoch_start(  # type: ignore[method-assign]
        module.current_epoch, module.global_step
    )
    quiet_lightning()
    bare_lightning.fit(module, marks.epochs)
    found.append(Result("anchors", "bare Lightning / raw loop", unit=UNIT))
    found[-1].measured = ratio(marks.ours, marks.against)
    found[-1].ours, found[-1].against = marks.ours, marks.against
    for result in found:
        result.unit = UNIT
    return found


def gpu() -> list[Result]:
    """The tutorial's FizzBuzz as CUDA graphs, on a GPU."""
    what = "tutorial's FizzBuzz on a GPU, compile=true / its raw loop there"
    if not torch.cuda.is_available():
        return [Result("gpu", what, goal=0.1, note="torch finds no GPU here")]
    loop = ["tutorial_fizzbuzz", "cuda"]
    overrides = (TUTORIAL, "trainer.accelerator=gpu", "compile=true")
    return [compared("gpu", what, 0.1, loop, 1000, 100, *overrides)]


ROWS: dict[str, Callable[[], list[Result]]] = {
    "fizzbuzz": lambda: fizzbuzz(compile=False),
    "fizzbuzz_compiled": lambda: fizzbuzz(compile=True),
    "recipe": lambda: recipe(compile=False),
    "recipe_compiled": lambda: recipe(compile=True),
    "two_layer_sgd": lambda: two_layer("SGD"),
    "two_layer_adam": lambda: two_layer("Adam"),
    "one_step_per_call": one_step_per_call,
    "anchors": anchors,
    "gpu": gpu,
}
