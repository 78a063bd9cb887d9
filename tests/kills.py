"""Kill training runs at random instants, resume them, and compare with an undisturbed run.

Each is a fork of this process, which has imported all that it needs: a kill then costs a second.
"""

import csv
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from torch.utils.data import DataLoader, TensorDataset

from src import train
from src.kindling import build
from src.kindling.data import BaseData
from src.kindling.loader import EpochSampler, OrderedLoader
from tests.kindling import examples
from tests.kindling.examples.data.quadrants import draw

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
    while_saving: int = 0  # kills that left a temporary file
    deepest: int = 0  # generations of one run

    def run(self, kills: int) -> list[str]:
        """Kill so many times; a run that ends before is followed by another.

        Returns:
            What differs at the end of any.
        """
        start = time.monotonic()
        self._to_the_end("straight")
        whole = time.monotonic() - start
        instants, found, runs = random.Random(self.seed), [], 0
        while self.kills < kills:
            runs, generations = runs + 1, 0
            name = f"killed{runs}"
            while self.kills < kills and self._killed_after(name, instants.uniform(0, 0.7 * whole)):
                self.kills, generations = self.kills + 1, generations + 1
            self.deepest = max(self.deepest, generations)
            resumed = self._to_the_end(name)
            found += differences((self.folder / "straight" / "latest").resolve(), resumed)
        return found

    def _to_the_end(self, name: str) -> Path:
        """Run, or resume, and return the run directory."""
        log = self.folder / f"{name}.log"
        before = len(log.read_text()) if log.exists() else 0  # workers of the killed had last words
        status = ended(self._started(name), 120.0)
        said = log.read_text()[before:]
        assert status == 0, said
        assert "Traceback" not in said
        return (self.folder / name / "latest").resolve()

    def _killed_after(self, name: str, seconds: float) -> bool:
        """Start or resume a run and kill it; return False if it has ended before."""
        status = ended(self._started(name), seconds)
        if status == 0:
            return False
        assert status == -signal.SIGKILL, (self.folder / f"{name}.log").read_text()
        left = [*self.folder.glob(f"{name}/train/*/*/**/.*.tmp")]
        assert len(left) <= 1, left
        self.while_saving += len(left)
        return True

    def _started(self, name: str) -> int:
        """Start a run, or resume the one of this name, in a fork of this process."""
        logs = self.folder / name
        new = (*self.words, "trainer.accelerator=cpu")
        words = ("resume=latest",) if (logs / "latest").exists() else new
        if pid := os.fork():
            return pid
        status = 1
        try:
            output = os.open(f"{logs}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", 1)
            sys.argv = ["src/train.py", *examples.arguments("train", *words), f"log_dir={logs}"]
            torch.set_num_threads(1)
            if self.first is not None:
                self.first()
            train.main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)


def ended(pid: int, seconds: float) -> int:
    """Return how a process ended; if it has not by then, kill it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := os.waitpid(pid, os.WNOHANG))[0]:
            return os.waitstatus_to_exitcode(found[1])
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# Data of one's own --------------------------------------------------------------------------------


class Streamed(BaseData):
    """Quadrants through torch's own DataLoader, with worker processes or without."""

    in_features, out_features, target = 3, 4, "class"

    def __init__(self, workers: int) -> None:
        super().__init__(batch_size=100, shuffle=True, seed=0)
        self.workers = workers

    def train_dataloader(self) -> Any:
        """Yield 400 points, in another order each epoch."""
        points = TensorDataset(*draw(400))
        sampler = EpochSampler(len(points), shuffle=True)
        return OrderedLoader(points, 50, sampler=sampler, num_workers=self.workers)

    def val_dataloader(self) -> Any:
        """Yield 100 other points."""
        return DataLoader(TensorDataset(*draw(100, seed=1)), 100)

    test_dataloader = val_dataloader


def in_this_process() -> None:
    """Let a command load its batches by itself."""
    build.build_data = lambda settings: Streamed(0)


def in_two_workers() -> None:
    """Let a command have its batches loaded by two processes."""
    build.build_data = lambda settings: Streamed(2)


# What two runs have in common ---------------------------------------------------------------------


def differences(one: Path, other: Path) -> Iterator[str]:
    """Yield what differs between two finished runs, but for times and places."""
    for name in ("best.ckpt", "last.ckpt"):
        pair = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (one, other))
        yield from unlike(*pair, name)
    yield from unlike(history(one), history(other), "metrics.csv")
    yield from unlike(points(one), points(other), "tensorboard")
    pair = (json.loads((run / "metrics.json").read_text()) for run in (one, other))
    yield from unlike(*pair, "metrics.json")


def unlike(a: Any, b: Any, place: str) -> Iterator[str]:
    """Yield what differs between two values, with its place."""
    *_, last = place.split(": ")
    if last in (*TIMES, "seconds", "history", "log_dir"):
        return
    if isinstance(a, dict) and isinstance(b, dict):
        if list(a) != list(b):
            yield f"{place}: keys {sorted(map(str, a.keys() ^ b.keys()))} or their order"
        for key in a.keys() & b.keys():
            yield from unlike(a[key], b[key], f"{place}: {key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            yield f"{place}: {len(a)} and {len(b)}"
        for index, (x, y) in enumerate(zip(a, b, strict=False)):
            yield from unlike(x, y, f"{place}: {index}")
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
