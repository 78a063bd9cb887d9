"""100,000 steps: memory, open files and the run directory must not grow in their second half."""

import os
import re
from pathlib import Path

import pytest

from tests.forked import Forked

STEPS = 100_000
MARKS = (10_000, 30_000, 50_000, 70_000, STEPS - 1000)
WARM = 2  # of these marks: the pictures so far have left the heap as large as it becomes
LINES = "callbacks.progress.seconds_per_line=0.2"
# Epochs of one step and epochs of four; an execution of one step and of some fifty.
RUNS = {
    "linear_regression": ("model=linear_regression", f"trainer.max_epochs={STEPS}"),
    "fizzbuzz": ("model=fizzbuzz", f"trainer.max_epochs={STEPS // 4}", "steps_per_execution=1"),
    "fizzbuzz_executions": ("model=fizzbuzz", f"trainer.max_epochs={STEPS // 4}"),
}


def steps(forked: Forked) -> int:
    """Return how many steps a run has taken, by what it has printed."""
    return int((re.findall(r"step (\d+)/", forked.out) or [0])[-1])


def measured(forked: Forked) -> dict[str, float]:
    """Return a process's resident memory, its open files and its run directory's size and files."""
    status = Path(f"/proc/{forked.pid}/status").read_text()
    files = [path for path in forked.run.rglob("*") if path.is_file()]
    return {
        "step": steps(forked),
        "resident_mb": int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024,
        "open_files": len(os.listdir(f"/proc/{forked.pid}/fd")),
        "directory_mb": sum(path.stat().st_size for path in files) / 2**20,
        "files": len(files),
    }


@pytest.mark.parametrize("name", RUNS)
def soak_a_hundred_thousand_steps(name: str, tmp_path: Path) -> None:
    epochs = int(RUNS[name][1].partition("=")[2])
    pictures = f"callbacks.figures.every_n_epochs={epochs // 10}"
    forked = Forked(tmp_path, "train", *RUNS[name], "trainer.accelerator=cpu", LINES, pictures)
    found = []
    for mark in MARKS:
        forked.wait_until(lambda mark=mark: steps(forked) >= mark, seconds=900)
        found.append(measured(forked))
        print(f"\n{name}:", "  ".join(f"{k} {v:.4g}" for k, v in found[-1].items()), end="")
    assert forked.wait(300) == 0
    first, last = found[WARM], found[-1]
    assert last["resident_mb"] - first["resident_mb"] < 5
    assert last["open_files"] <= first["open_files"]  # which may catch one that is being written
    assert last["files"] == first["files"]
    assert last["directory_mb"] < 50
