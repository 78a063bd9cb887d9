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

# Ctrl-C after the first batch of the second epoch, as a callback that a user brings.
INTERRUPTION = """
import os
import signal
from lightning.pytorch.callbacks import Callback

class Interruption(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 0):
            os.kill(os.getpid(), signal.SIGINT)
"""
INTERRUPTED = """
defaults:
  - default
interruption:
  _target_: src.interruption.Interruption
"""
# What a notebook does with a checkpoint alone.
NOTEBOOK = """
import sys
import torch
from hydra.utils import get_class

content = torch.load(sys.argv[1], weights_only=True)
for group in ("model", "data"):
    get_class(content["config"][group]["_target_"]).load_from_checkpoint(sys.argv[1])
"""
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
        (folder / "src" / "interruption.py").write_text(INTERRUPTION)
        (folder / "src" / "notebook.py").write_text(NOTEBOOK)
        (folder / "conf" / "callbacks" / "interrupted.yaml").write_text(INTERRUPTED)

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


def test_a_guest_trains_is_tested_asked_loaded_interrupted_and_resumed(clone: Clone) -> None:
    whole = clone.train()
    assert all(value.isfinite().all() for value in whole.values())
    if clone.guest != "tokens":  # it has no test rows
        assert "test/" in clone.run("evaluate").stdout
    clone.run("predict", "output=answers.csv")
    assert (clone.folder / "answers.csv").stat().st_size
    clone.run("notebook", str(clone.folder / "logs/latest/checkpoints/last.ckpt"))
    interrupted = (f"model={clone.guest}", "trainer.accelerator=cpu", "callbacks=interrupted")
    clone.run("train", *interrupted, status=130)
    assert not same(whole, clone.weights())
    clone.run("train", "resume=latest")
    assert same(whole, clone.weights())


def test_a_guest_runs_in_debug_mode_and_in_a_sweep(clone: Clone) -> None:
    clone.run("train", f"model={clone.guest}", "debug=fast")
    clone.run("train", "--multirun", f"model={clone.guest}", "seed=1,2", "trainer.max_epochs=1")
    one, other = (clone.folder / "logs" / "train").glob("*/*/checkpoints/last.ckpt")
    weights = [torch.load(path, weights_only=True)["state_dict"] for path in (one, other)]
    assert not same(*weights)


def test_a_question_of_a_guest_is_asked_in_its_own_words(tmp_path: Path) -> None:
    clone = Clone(tmp_path, "tokens")
    clone.train("trainer.max_epochs=1")
    said = clone.run("predict", "prompt=what's up", "length=7").stdout
    assert said.startswith("text: what's up")
    refused = clone.run("predict", "numbers=[1]", status=2).stderr
    assert refused == (
        "error: numbers: this model is not asked for that: choose from prompt, length\n"
    )


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
