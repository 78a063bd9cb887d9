"""Training runs that are killed at random instants and resumed, beside one that never was."""

import csv
import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from tests.forked import Forked

TIMES = ("train/samples_per_second", "train/memory_mb")  # what no two runs have in common


@dataclass
class Chain:
    """One configuration: a run that is never stopped, and runs that are killed again and again.

    Args:
        folder: where they keep their files.
        words: the arguments of the command.
        seed: of the instants.
        first: called in each process before the command; for data of one's own.
    """

    folder: Path
    words: tuple[str, ...]
    seed: int = 0
    first: Callable[[], None] | None = None
    kills: int = 0
    amid_saving: int = 0  # kills that left a temporary file
    deepest: int = 0  # generations of one run

    def run(self, kills: int) -> list[str]:
        """Kill so many times; a run that ends before is followed by another.

        Returns:
            What differs at the end of any.
        """
        self._to_the_end("straight")
        start = time.monotonic()
        self._to_the_end("timed")
        whole = time.monotonic() - start
        instants, found, runs = random.Random(self.seed), [], 0
        while self.kills < kills:
            runs, generations = runs + 1, 0
            name = f"killed{runs}"
            while self.kills < kills and self._killed_after(name, instants.uniform(0, 0.7 * whole)):
                self.kills, generations = self.kills + 1, generations + 1
            self.deepest = max(self.deepest, generations)
            resumed = self._to_the_end(name)
            found += differences((self.folder / "straight/logs/latest").resolve(), resumed)
        return found

    def _started(self, name: str) -> Forked:
        """Start a run, or resume the one of this name."""
        there = (self.folder / name / "logs" / "latest").exists()
        words = ("resume=latest",) if there else self.words
        return Forked(self.folder / name, "train", *words, first=self.first)

    def _to_the_end(self, name: str) -> Path:
        """Run, and return the run directory."""
        command = self._started(name)
        assert command.wait() == 0, command.out + command.err
        assert command.err == ""
        return command.run

    def _killed_after(self, name: str, seconds: float) -> bool:
        """Start or resume a run and kill it; return False if it has ended before."""
        command = self._started(name)
        command.process.join(seconds)
        command.send(signal.SIGKILL)
        command.process.join()
        if command.process.exitcode == 0:
            return False
        assert command.process.exitcode == -signal.SIGKILL, command.out + command.err
        left = [*command.logs.glob("train/*/*/**/.*.tmp")]
        assert len(left) <= 1, left
        self.amid_saving += len(left)
        return True


# What two runs have in common ---------------------------------------------------------------------


def differences(one: Path, other: Path) -> Iterator[str]:
    """Yield what differs between two finished runs, but for times and places."""
    for name in ("best.ckpt", "last.ckpt"):
        pair = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (one, other))
        yield from _unlike(*pair, name)
    yield from _unlike(history(one), history(other), "metrics.csv")
    yield from _unlike(points(one), points(other), "tensorboard")
    pair = (json.loads((run / "metrics.json").read_text()) for run in (one, other))
    yield from _unlike(*pair, "metrics.json")


def _unlike(a: Any, b: Any, place: str) -> Iterator[str]:
    *_, last = place.split(": ")
    if last in (*TIMES, "seconds", "history", "log_dir"):
        return
    if isinstance(a, dict) and isinstance(b, dict):
        if list(a) != list(b):
            yield f"{place}: keys {sorted(map(str, a.keys() ^ b.keys()))} or their order"
        for key in a.keys() & b.keys():
            yield from _unlike(a[key], b[key], f"{place}: {key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            yield f"{place}: {len(a)} and {len(b)}"
        for index, (x, y) in enumerate(zip(a, b, strict=False)):
            yield from _unlike(x, y, f"{place}: {index}")
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.dtype != b.dtype or not torch.equal(a.nan_to_num(), b.nan_to_num()):
            yield f"{place}: {a} and {b}"
    elif a != b and not (a != a and b != b):
        yield f"{place}: {a!r} and {b!r}"


def history(run: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv."""
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def points(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return each chart's (step, value)s as TensorBoard's reader finds them in the raw records."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((run / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return {tag: [] if tag in TIMES else sorted(found[tag]) for tag in sorted(found)}
