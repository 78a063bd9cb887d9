"""Whole commands, timed from the start of the process."""

import statistics
import tempfile
from collections.abc import Callable

from tests.benchmarks.measure import ROUNDS, alternately, process, ratio, seconds
from tests.benchmarks.table import Result

TRAIN = ("-m", "src.train")
RIGHT = "of 100 right"


def whole() -> list[Result]:
    """Compare the default run (100 of 100 right) with the tutorial's script (about 94)."""
    script = "from src.tour import fizzbuzz; fizzbuzz.main(epochs=10000)"  # imports torch alone
    with tempfile.TemporaryDirectory() as folder:
        run = (*TRAIN, "model=fizzbuzz", "trainer.accelerator=cpu", f"log_dir={folder}")
        said = [process(*run).stdout, process("-c", script).stdout]
        ours, against = alternately(
            lambda: process(*run), lambda: process("-c", script), warm=False
        )
    rights = [next(line for line in text.splitlines() if RIGHT in line) for text in said]
    right, tutorials = (int(line.split()[0]) for line in rights)
    what = f"python -m src.train ({right} of 100) / tutorial's script ({tutorials} of 100)"
    measured = ratio(ours, against)
    return [Result("process", what, measured, 0.3, False, ours, against, kept=right == 100)]


def first_step() -> list[Result]:
    """Time from the start of a process to the end of the first call that takes steps."""
    with tempfile.TemporaryDirectory() as folder:
        leave = ("--config-dir=tests/benchmarks/conf", "callbacks=leave")
        run = (*TRAIN, *leave, "trainer.accelerator=cpu", f"log_dir={folder}")
        imports = "import os, lightning.pytorch; os._exit(0)"  # exits as ours does
        ours, against = alternately(lambda: process(*run), lambda: process("-c", imports))
    what = "process start to first step / python -c 'import lightning.pytorch'"
    return [Result("first_step", what, ratio(ours, against), 1.3, False, ours, against)]


def without_torch(row: str, *arguments: str) -> list[Result]:
    """Time a command that has nothing to train, and check that it does not import torch."""
    taken = [seconds(lambda: process(*TRAIN, *arguments)) for _ in range(ROUNDS)]
    # `-X importtime` names each module on a line of its own.
    imports = process("-X", "importtime", *TRAIN, *arguments).stderr.splitlines()
    torch = any(line.endswith(" torch") for line in imports)
    what = f"python -m src.train {' '.join(arguments)}: seconds"
    note = "imports torch" if torch else "torch not imported"
    return [Result(row, what, statistics.median(taken), 1, False, taken, note=note, kept=not torch)]


ROWS: dict[str, Callable[[], list[Result]]] = {
    "process": whole,
    "first_step": first_step,
    "help": lambda: without_torch("help", "--help"),
    "wrong_key": lambda: without_torch("wrong_key", "trainer.max_epoch=3"),
    "wrong_group": lambda: without_torch("wrong_group", "modle=fizzbuzz"),
    "wrong_option": lambda: without_torch("wrong_option", "model=fizbuzz"),
}
