"""Rooms that can be deleted in one step: the rest is still collected, trains, and answers."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment
from tests.warm import PYTHON

# What `rm -r` takes away.
ROOMS = {
    "results": [
        "src/kindling/results",
        "src/compare.py",
        "src/report.py",
        "tests/kindling/results",
    ],
    "tour": ["src/tour", "tests/tour"],
}
ROOMS = {name: paths for name, paths in ROOMS.items() if (ROOT / paths[0]).exists()}
NOT_COPIED = (".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "logs", "*.egg-info")


@pytest.fixture(params=ROOMS)
def without(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the project from which one room was deleted."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    for name in ROOMS[request.param]:
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return copy


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=folder,
        env=environment(PYTHONPATH=str(folder)),
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_the_rest_is_collected_and_trains(without: Path) -> None:
    collected = run([sys.executable, "-m", "pytest", "-n", "0", "--collect-only", "-q"], without)
    assert collected.returncode == 0, collected.stdout[-3000:] + collected.stderr
    quick = ["model=linear_regression", "trainer.max_epochs=2", "trainer.accelerator=cpu"]
    trained = run([*PYTHON, "-m", "src.train", *quick, "logger=none"], without)
    assert (trained.returncode, trained.stderr) == (0, "")
    offered = re.findall(r"python -m src\.(\w+)", trained.stdout)
    assert "predict" in offered
    assert [name for name in offered if not (without / "src" / f"{name}.py").is_file()] == []
    assert run([*PYTHON, "-m", "src.predict", "run=latest"], without).returncode == 0
