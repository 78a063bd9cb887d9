"""Whole foreign projects: their files alone, copied into a clone and taken through the commands.

A guest is a folder here with the files that a user would write: src/models, src/data and conf/.
"""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, environment, has_command
from tests.warm import PYTHON

HERE = Path(__file__).parent
# Ctrl-C after the first batch of the third epoch, as a callback that a user brings.
INTERRUPTION = """
import os
import signal
from lightning.pytorch.callbacks import Callback

class Interruption(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (2, 0):
            os.kill(os.getpid(), signal.SIGINT)
"""
TARGET = "_target_: src.interruption.Interruption"
# What a notebook does with a checkpoint alone.
NOTEBOOK = """
import sys
import torch
from hydra.utils import get_class

content = torch.load(sys.argv[1], weights_only=True)
for group in ("model", "data"):
    get_class(content["config"][group]["_target_"]).load_from_checkpoint(sys.argv[1])
"""
GUESTS = sorted(path.name for path in HERE.iterdir() if (path / "conf").is_dir())
assert GUESTS
SWEEPS = {"csv": ("data.folds=3", "data.fold=0,1"), "folds": ("data.fold=range(3)",)}
pytestmark = pytest.mark.slow
Weights = dict[str, torch.Tensor]


class Clone:
    """A copy of the project with all guests in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        without = shutil.ignore_patterns("__pycache__")
        for part in ("src", "conf", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=without)
            for guest in GUESTS:
                own = HERE / guest / part
                if own.is_dir():
                    shutil.copytree(own, folder / part, ignore=without, dirs_exist_ok=True)
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / "src" / "interruption.py").write_text(INTERRUPTION)
        (folder / "src" / "notebook.py").write_text(NOTEBOOK)
        (folder / "conf" / "callbacks" / "interruption.yaml").write_text(f"own:\n  {TARGET}")

    def run(self, *words: str, status: int = 0) -> str:
        """Run Python as a user does, and return what it prints.

        A warning is an error, except on two processes: there Lightning advises `sync_dist=True`.
        """
        strict = () if "trainer=ddp_cpu" in words else ("-W", "error")
        done = subprocess.run(
            [*PYTHON, *strict, "-m", *words],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == status, f"{done.args}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def check(self, *words: str) -> None:
        """Run a tool on the guests' files."""
        own = [f"src/{kind}/{guest}.py" for kind in ("models", "data") for guest in GUESTS]
        self.tool(*words, *own)

    def tool(self, *words: str) -> None:
        """Run pytest, ruff or mypy."""
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=self.folder,
            env=environment(PYTHONPATH=str(self.folder)),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


class Project:
    """A guest in the clone, whose runs are in a folder of their own."""

    def __init__(self, clone: Clone, guest: str) -> None:
        self.clone, self.guest, self.log_dir = clone, guest, f"logs/{guest}"
        self.latest = clone.folder / self.log_dir / "latest"

    def run(self, name: str, *words: str, status: int = 0) -> str:
        """Run a command on the guest's runs."""
        return self.clone.run(f"src.{name}", f"log_dir={self.log_dir}", *words, status=status)

    def train(self, *words: str, status: int = 0) -> str:
        """Train the guest."""
        device = () if any(word.startswith("trainer=") for word in words) else ("trainer=cpu",)
        words = (*words, *device, f"model={self.guest}", f"log_dir={self.log_dir}")
        return self.clone.run("src.train", *words, status=status)

    def weights(self) -> Weights:
        """Return what the last checkpoint of the newest run holds."""
        path = self.latest / "checkpoints" / "last.ckpt"
        found: Weights = torch.load(path, weights_only=True)["state_dict"]
        return found


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(params=GUESTS)
def project(request: pytest.FixtureRequest, clone: Clone) -> Project:
    return Project(clone, request.param)


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_guest_goes_through_the_commands(project: Project) -> None:
    trained = project.train()
    whole = project.weights()
    assert all(value.isfinite().all() for value in whole.values())
    if project.guest != "tokens":  # it has no test rows
        [tested] = [line.split()[:2] for line in project.run("evaluate").splitlines()[1:2]]
        assert tested in [line.split()[:2] for line in trained.splitlines()]
    answers = f"{project.guest}.csv"
    project.run("predict", f"output={answers}")
    assert (project.clone.folder / answers).stat().st_size
    export(project)
    project.clone.run("src.notebook", str(project.latest / "checkpoints" / "last.ckpt"))
    assert (project.clone.folder / project.run("report").split()[-1]).stat().st_size
    interruption = f"+callbacks.interruption.{TARGET.replace(': ', '=')}"
    assert "resume=" in project.train(interruption, status=130)
    assert not same(whole, project.weights())
    project.run("train", "resume=latest")
    assert same(whole, project.weights())


def export(project: Project) -> None:
    """Export in the formats whose packages are here: the file's answers are compared."""
    if not has_command("export"):
        return
    for kind, package in (
        ("pt2", "torch"),
        ("onnx", "onnxruntime"),
        ("safetensors", "safetensors"),
    ):
        if find_spec(package) is None:
            continue
        if project.guest == "folds":  # it has no `forward`
            refused = project.run("export", f"format={kind}", status=2)
            assert "passes no tensor to forward" in refused
        else:
            assert "largest difference" in project.run("export", f"format={kind}")


def test_a_guest_runs_in_other_modes(project: Project) -> None:
    project.train("debug=fast")
    half = ("trainer=ddp_cpu", "trainer.precision=bf16-mixed", "trainer.max_epochs=1")
    some = str(project.guest == "gan").lower()  # a step of one network leaves out the other's
    said = project.train(*half, f"trainer.strategy.find_unused_parameters={some}")
    assert said.count("the best checkpoint is the last") == (project.guest == "gan")
    sweep = SWEEPS.get(project.guest, ("seed=1,2",))
    project.train("--multirun", "trainer.max_epochs=1", *sweep)
    table = project.run("compare", f"{project.log_dir}/train/{project.guest}")
    assert project.guest in table
    if project.guest == "folds":
        assert "folds share rows" in table


def test_a_question_of_a_guest_is_asked_in_its_own_words(clone: Clone) -> None:
    project = Project(clone, "tokens")
    project.log_dir = "logs/asked"
    project.train("trainer.max_epochs=1")
    assert project.run("predict", "prompt=what's up", "length=7").startswith("text: what's up")
    refused = project.run("predict", "numbers=[1]", status=2)
    assert refused == (
        "error: numbers: this model is not asked for that: choose from prompt, length\n"
    )


def test_guests_keep_what_every_model_promises(clone: Clone) -> None:
    chosen = " or ".join(f"[{guest}]" for guest in GUESTS)
    clone.tool("pytest", "-n", "0", "-q", "--tb=short", "tests/test_every_model.py", "-k", chosen)


def test_guests_are_well_written(clone: Clone) -> None:
    clone.check("ruff", "check")
    clone.check("ruff", "format", "--check")
    # A cache of the whole project: minutes without it.
    clone.check("mypy", f"--cache-dir={ROOT / '.mypy_cache'}")
