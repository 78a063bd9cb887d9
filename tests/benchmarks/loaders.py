"""The in-memory loader compared with torch's DataLoader: a million rows, shuffled.

Letters: N rows, D features.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from src.kindling.loader import EpochSampler, TensorLoader
from tests.benchmarks.measure import CORES, alternately, on_cores, process, ratio, seconds
from tests.benchmarks.table import Result

N, D = 1_000_000, 20
BATCHES = (1000, 128)
WORKERS = (0, 1, 2, 4)
UNIT = "ns per row"


def tensors(rows: int = N) -> tuple[Tensor, Tensor]:
    """Return features [N, D] and targets [N, 1]."""
    return torch.randn(rows, D), torch.randn(rows, 1)


def ours(data: tuple[Tensor, Tensor], batch_size: int) -> TensorLoader:
    """Return this project's loader, with a new order each epoch."""
    return TensorLoader(data, batch_size, sampler=EpochSampler(len(data[0]), shuffle=True))


def torchs(data: tuple[Tensor, Tensor], batch_size: int, workers: int) -> Any:
    """Return torch's loader, with a new order each epoch."""
    return DataLoader(TensorDataset(*data), batch_size, shuffle=True, num_workers=workers)


def epoch(loader: Any) -> int:
    """Load every batch; return the number of rows."""
    return sum(len(x) for x, _ in loader)


def epoch_on_all_cores(loader: Any) -> None:
    """Load every batch; the loader's workers may use the other cores."""
    with on_cores(CORES):
        epoch(loader)


def speed() -> list[Result]:
    """Compare rows per second with the DataLoader at its best number of workers."""
    return [_speed(batch_size) for batch_size in BATCHES]


def _speed(batch_size: int) -> Result:
    data = tensors()
    loaders = {w: torchs(data, batch_size, w) for w in WORKERS if w <= max(len(CORES), 1)}
    tried = {w: seconds(lambda w=w: epoch_on_all_cores(loaders[w])) for w in loaders}
    best = min(tried, key=lambda workers: tried[workers])
    mine, its = ours(data, batch_size), loaders[best]
    taken, against = alternately(lambda: epoch(mine), lambda: epoch_on_all_cores(its))
    what = f"loader, {N:,} x {D}, batch {batch_size}: rows per second / DataLoader({best} workers)"
    each = [[t / N for t in times] for times in (taken, against)]
    result = Result("loader", what, ratio(against, taken), 50, True, *each, UNIT)
    result.more = {"seconds by workers": tried}
    return result


# In a process of its own, since a peak never falls.
PEAK = """
from tests.benchmarks import loaders
from tests.benchmarks.loaders import BATCHES, epoch, ours, resident, tensors
epoch(ours(tensors(10), BATCHES[0]))
before = resident("VmRSS")
data = tensors()
for _ in range(3):
    epoch(ours(data, BATCHES[0]))
print(resident("VmHWM") - before, sum(part.nbytes for part in data))
"""


def resident(name: str) -> int:
    """Return this process's memory in bytes: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def memory() -> list[Result]:
    """Measure the peak memory of three epochs, data included, over the size of the data."""
    what = f"loader, {N:,} x {D}: peak memory / size of the data"
    if not Path("/proc/self/status").exists():
        return [Result("memory", what, goal=2.2, note="this system has no /proc")]
    done = process("-c", PEAK)
    peak, size = (int(number) for number in done.stdout.split())
    return [Result("memory", what, peak / size, 2.2, False, [peak], [size], "MB")]


ROWS: dict[str, Callable[[], list[Result]]] = {"loader": speed, "memory": memory}
