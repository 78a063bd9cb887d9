"""Whole foreign projects: their files alone, copied into a clone and taken through the commands.

A guest is a folder here with the files that a user would write: src/models, src/data and conf/.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, environment
from tests.warm import PYTHON

GUESTS = sorted(path.name for path in Path(__file__).parent.iterdir() if (path / "conf").is_dir())
assert GUESTS
pytestmark = pytest.mark.slow


class Clone:
    """A copy of the project with one guest's files in it."""

    def __init__(self, folder: Path, guest: str) -> None:
        self.folder, self.guest = folder, guest
        without = shutil.ignore_patterns("__pycache__")
        for part in ("src", "conf"):
            shutil.copytree(ROOT / part, folder / part, ignore=without)
            shutil.copytree(Path(__file__).parent / guest / part, folder / part, dirs_exist_ok=True)
        shutil.copy(ROOT / "pyproject.toml", folder)

    def run(self, name: str, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command as its user does; a warning of Python's is an error."""
        done = subprocess.run(
            [*PYTHON, "-W", "error", "-m", f"src.{name}", *arguments],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == status, f"{done.args}\n{done.stdout}\n{done.stderr}"
        return done

    def train(self, *arguments: str) -> dict[str, torch.Tensor]:
        """Train, and return the weights of the last checkpoint."""
        self.run("train", f"model={self.guest}", "trainer.accelerator=cpu", *arguments)
        return self.weights()

    def weights(self) -> dict[str, torch.Tensor]:
        last = self.folder / "logs" / "latest" / "checkpoints" / "last.ckpt"
        found: dict[str, torch.Tensor] = torch.load(last, weights_only=True)["state_dict"]
        return found


@pytest.fixture(params=GUESTS)
def clone(request: pytest.FixtureRequest, tmp_path: Path) -> Clone:
    return Clone(tmp_path, request.param)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_guest_trains_resumes_is_tested_and_asked(clone: Clone) -> None:
    whole = clone.train()
    assert all(value.isfinite().all() for value in whole.values())
    if clone.guest != "tokens":  # it has no test rows
        assert "test/" in clone.run("evaluate").stdout
    clone.run("predict", "output=answers.csv")
    assert (clone.folder / "answers.csv").stat().st_size
    assert not same(whole, clone.train("seed=1"))
    clone.train("trainer.max_epochs=2")
    clone.run("train", "resume=latest", "trainer.max_epochs=4")
    assert same(whole, clone.weights())


def test_a_guest_runs_in_debug_mode_and_in_a_sweep(clone: Clone) -> None:
    clone.run("train", f"model={clone.guest}", "debug=fast")
    clone.run("train", "--multirun", f"model={clone.guest}", "seed=1,2", "trainer.max_epochs=1")
    runs = list((clone.folder / "logs" / "train").glob("*/*/checkpoints/last.ckpt"))
    assert len(runs) == 2


@pytest.mark.parametrize("guest", GUESTS)
def test_a_guests_files_pass_the_linter_and_the_type_checker(guest: str, tmp_path: Path) -> None:
    clone = Clone(tmp_path, guest)
    own = [str(p.relative_to(tmp_path)) for p in tmp_path.glob(f"src/*/{guest}.py")]
    assert len(own) == 2
    types = ["mypy", f"--cache-dir={ROOT / '.mypy_cache'}"]  # of the whole project: minutes else
    for tool in (["ruff", "check"], ["ruff", "format", "--check"], types):
        done = subprocess.run(
            [sys.executable, "-m", *tool, *own], cwd=clone.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
