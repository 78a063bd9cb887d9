"""Runs the tour as a user does, in a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.warm import PYTHON

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Keep the small sums of these tests on one thread: more are slower, and far so when busy."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tour() -> Run:
    """`python -m src.tour` with the words given, at the repository's root, warnings as errors."""

    def run(*words: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        command = [*PYTHON, "-W", "error", *flags, "-m", "src.tour", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture(scope="session")
def chapter(tour: Run) -> Callable[..., str]:
    """What a chapter prints; each command runs once, must succeed and leave stderr empty."""

    @cache
    def text(*words: str) -> str:
        result = tour(*words)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    return text
