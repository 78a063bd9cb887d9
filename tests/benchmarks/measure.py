"""Time two things alternately on one core, so that other load affects both equally."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

ROUNDS = 5  # the median counts
ROOT = Path(__file__).resolve().parents[2]
CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


@contextmanager
def one_core() -> Iterator[None]:
    """Pin this process and its children to one core, where the system can, and to one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with on_cores(set(sorted(CORES)[-1:])):
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Pin this process and its children to some cores; an empty set means any."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that some work takes, including what it queued on an accelerator."""
    start = now()
    work()
    return now() - start


def now() -> float:
    """Return the clock's time after an accelerator has finished its queue."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def alternately(
    *works: Callable[[], object], rounds: int = ROUNDS, warm: bool = True
) -> list[list[float]]:
    """Run the works alternately; return the seconds of each per round, after a warm-up round."""
    for work in works if warm else ():
        work()
    taken = [[seconds(work) for work in works] for _ in range(rounds)]
    return [list(column) for column in zip(*taken, strict=True)]


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median ratio of the two times over the rounds."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def process(*command: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments from the project's root, with one thread."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
