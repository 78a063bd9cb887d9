"""Time per row as the data grows: FizzBuzz of 10 to 20 digits, with a batch size in proportion.

Letters: D binary digits; 2**D - 101 rows.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from src.data.fizzbuzz import encode, fizzbuzz
from src.kindling.colors import SERIES
from src.tour.page import blank_figure
from tests.benchmarks import loaders, raw_loops
from tests.benchmarks.measure import ROUNDS, alternately
from tests.benchmarks.steps import CPU, TUTORIAL, Marks, trained
from tests.benchmarks.table import Result

DIGITS = (10, 12, 14, 16, 18, 20)
BATCH = 128  # at 10 digits: eight steps per epoch at every size
ROWS_TIMED = 2**18  # per round, at least
Sizes = dict[int, list[float]]  # seconds per row in each round, by the number of rows


def growth() -> list[Result]:
    """Measure seconds per row of training runs, of a raw loop and of the loader alone, by size."""
    runs = {2**digits - 101: _training(digits) for digits in DIGITS}
    ours = {rows: marks.ours for rows, marks in runs.items()}
    raw = {rows: marks.against for rows, marks in runs.items()}
    results = [_row("training", ours), _row("raw loop", raw), _row("loader alone", _loading())]
    results[0].goal = 1
    cheapest = min(ours, key=lambda rows: median(ours[rows]))
    if cheapest != max(ours):
        results[0].note = f"cheapest at {cheapest:,} rows"
    return results


def _row(what: str, sizes: Sizes) -> Result:
    first, last = sizes[min(sizes)], sizes[max(sizes)]
    what = f"{what}: time per row, {max(sizes):,} rows / {min(sizes):,} rows"
    measured = median(last) / median(first)
    return Result(
        "growth", what, measured, None, False, last, first, loaders.UNIT, more={"sizes": sizes}
    )


def _training(digits: int) -> Marks:
    """Train the tutorial's FizzBuzz of `digits` digits; return seconds per row."""
    rows, batch = 2**digits - 101, BATCH * 2 ** (digits - 10)
    numbers = torch.arange(101, 2**digits)
    raw = raw_loops.steps_alone(encode(numbers, digits), fizzbuzz(numbers), batch)
    period = max(1, ROWS_TIMED // rows)
    marks = Marks(raw, period, warm=min(period, 20))
    size = (f"data.num_digits={digits}", f"data.batch_size={batch}", "data.shuffle=true")
    trained(marks, TUTORIAL, CPU, *size)
    steps_per_row = -(-rows // batch) / rows
    marks.ours, marks.against = (
        [each * steps_per_row for each in times] for times in (marks.ours, marks.against)
    )
    return marks


def _loading() -> Sizes:
    """Return seconds per row; random reads cost more once the data exceed the cache."""
    sizes = {}
    for digits in DIGITS:
        rows = 2**digits
        loader = loaders.ours(loaders.tensors(rows), BATCH * 2 ** (digits - 10))
        times = max(1, ROWS_TIMED // rows)
        (taken,) = alternately(partial(_epochs, loader, times))
        sizes[rows] = [each / times / rows for each in taken]
    return sizes


def _epochs(loader: Any, times: int) -> None:
    for _ in range(times):
        loaders.epoch(loader)


def draw(results: list[Result], path: Path) -> None:
    """Draw seconds per row by number of rows, with the spread of the rounds as a band."""
    figure, (axis,) = blank_figure()
    for result, color, mark in zip(results, SERIES, "os^", strict=False):
        sizes = {int(rows): values for rows, values in result.more["sizes"].items()}
        lines = [[f(values) * 1e9 for values in sizes.values()] for f in (min, median, max)]
        label = result.what.partition(":")[0]  # the row's first words
        axis.plot(list(sizes), lines[1], mark + "-", color=color, label=label)
        axis.fill_between(list(sizes), lines[0], lines[2], color=color, alpha=0.2)
    axis.set(title="FizzBuzz: time per row as the data grows", xscale="log", yscale="log")
    axis.set(
        xlabel="rows (batch size in proportion: 8 steps per epoch)", ylabel="time per row (ns)"
    )
    axis.legend(title=f"median of {ROUNDS}; band: fastest to slowest")
    figure.savefig(path, format="png")


ROWS: dict[str, Callable[[], list[Result]]] = {"growth": growth}
