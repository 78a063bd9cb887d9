"""Read metrics.csv as curves, thinned while reading, so that a long run needs no more memory.

Letters: n rows of one chunk.
"""

import csv
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from src.kindling.errors import InputError, first_line
from src.kindling.files import bounded

POINTS = 2000  # minimum per thinned curve; the maximum is twice as many
CELLS = 200_000  # per chunk
COLUMNS = 1000
LINE = 2**20  # bytes

Points = tuple[list[float], list[float]]  # steps and values


def read_history(run: Path) -> dict[str, Points]:
    """Return steps and values of each metric in metrics.csv; a later value replaces an earlier one.

    A long curve is reduced to every 2nd, 4th, 8th, ... point, and its last, least and largest ones.

    Raises:
        InputError: the file is not what a run writes.
    """
    path = run / "metrics.csv"
    curves: dict[str, _Curve] = {}
    try:
        with open(bounded.open_regular(path), encoding="utf-8", newline="") as file:
            for header, columns in _chunks(file):
                _add(curves, header, columns)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {bounded.reason(error)}") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is not a history: {first_line(error)}") from None
    return {name: curve.points() for name, curve in curves.items()}


def _chunks(file: IO[str]) -> Iterator[tuple[list[str], list[tuple[str, ...]]]]:
    """Yield the header, and the columns of some rows, until all rows are read."""
    reader = csv.reader(iter(lambda: _line(file), ""))
    header = next(reader, [])
    if len(header) > COLUMNS:
        raise ValueError("it has more columns than a run would have written")
    rows = (row[: len(header)] for row in reader)
    while chunk := list(itertools.islice(rows, max(1, CELLS // max(1, len(header))))):
        # The header has all columns, so that short rows are padded.
        yield header, list(itertools.zip_longest(*([header, *chunk]), fillvalue=""))


def _line(file: IO[str]) -> str:
    line = file.readline(LINE)
    if len(line) == LINE:
        raise ValueError("it has a longer line than a run would have written")
    return line


def _add(curves: dict[str, "_Curve"], header: list[str], columns: list[tuple[str, ...]]) -> None:
    """Add a chunk's columns, each with its name first, to the curves."""
    if "step" not in header:
        return
    steps = _numbers(cell or "nan" for cell in columns[header.index("step")][1:])  # [n]
    for name, (_, *cells) in zip(header, columns, strict=True):
        if name and name not in ("step", "epoch"):
            filled = steps[np.fromiter(map(bool, cells), bool, len(cells))]
            values, valid = _numbers(filter(None, cells)), np.isfinite(filled)
            if valid.any():
                curves.setdefault(name, _Curve()).extend(filled[valid], values[valid])


def _numbers(cells: Iterable[str]) -> NDArray[np.float64]:
    return np.fromiter(map(float, cells), float)


class _Curve:
    """The points of one metric, of which only every `stride`th is kept."""

    def __init__(self) -> None:
        self.stride, self.seen = 1, 0
        self.kept = np.empty((2, 0))  # steps and values
        self.outstanding: dict[str, tuple[float, float]] = {}  # last, least, and largest point

    def extend(self, steps: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        """Add points [n], and thin the curve if it becomes too long."""
        chosen = (np.arange(self.seen, self.seen + len(steps)) % self.stride) == 0
        self.seen += len(steps)
        self.kept = np.hstack([self.kept, [steps[chosen], values[chosen]]])
        while self.kept.shape[1] > 2 * POINTS:
            self.kept, self.stride = self.kept[:, ::2], 2 * self.stride
        self._note("last", steps[-1], values[-1])
        if np.isfinite(values).any():
            finite = np.flatnonzero(np.isfinite(values))
            least, most = (finite[f(values[finite])] for f in (np.argmin, np.argmax))
            self._note("least", steps[least], values[least])
            self._note("most", steps[most], values[most])

    def _note(self, which: str, step: float, value: float) -> None:
        best = self.outstanding.get(which, (step, value))[1]
        if which == "last" or (value <= best if which == "least" else value >= best):
            self.outstanding[which] = float(step), float(value)

    def points(self) -> Points:
        """Return steps, ascending, and their values."""
        kept = dict(zip(*self.kept.tolist(), strict=True))
        if self.stride > 1:
            kept = dict(self.outstanding.values()) | kept
            kept |= [self.outstanding["last"]]
        ordered = sorted(kept.items())
        return [step for step, _ in ordered], [value for _, value in ordered]
