"""The Makefile's targets: each has a line of help, and a Python that is too old gets one line."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
TRAINING = {"setup", "train", "evaluate", "predict", "compare", "report", "tour", "tensorboard"}
CHECKING = {"check", "schema", "test", "test-all", "test-gpu", "test-services", "test-browser"}
CHECKING |= {"lint", "format", "typecheck", "bench", "soak"}
CLEANING = {"clean", "clean-logs"}


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh checkout, as far as make can see: no .venv."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


def test_help_has_a_line_for_each_target(clone: Path) -> None:
    said = make(clone, "help").stdout
    lines = dict(line.split(maxsplit=1) for line in said.splitlines())
    assert set(lines) >= TRAINING | CHECKING | CLEANING
    assert make(clone).stdout == said  # and it is what make alone says


def test_an_old_python_gets_one_line_that_says_which_is_needed(clone: Path) -> None:
    old = clone / "python3.8"
    old.write_text("#!/bin/sh\nexit 1\n")  # what the version check of an old Python answers
    old.chmod(0o755)
    done = make(clone, "--silent", "train", f"PYTHON={old}")
    assert done.returncode == 2
    first = done.stderr.splitlines()[0]
    assert first.startswith("error: Python 3.11 or newer is needed")
    assert not (clone / ".venv").exists()


def fake_environment(clone: Path) -> None:
    """An environment whose Python only says with what it was called."""
    (clone / ".venv" / "bin").mkdir(parents=True)
    python = clone / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "called: $*"\n')
    python.chmod(0o755)


def test_arguments_pass_through(clone: Path) -> None:
    fake_environment(clone)
    said = make(clone, "train", "ARGS=model=two_layer_net seed=3").stdout
    assert "called: -m src.train model=two_layer_net seed=3" in said


@pytest.mark.parametrize("changed", ["pyproject.toml", "requirements.lock"])
def test_a_stale_environment_is_refreshed_and_a_fresh_one_left_alone(
    changed: str, clone: Path
) -> None:
    fake_environment(clone)
    installs = "pip install .*-c requirements.lock"
    assert re.search(installs, make(clone, "train").stdout)
    assert not re.search(installs, make(clone, "train").stdout)
    later = (clone / ".venv" / ".base").stat().st_mtime + 10
    os.utime(clone / changed, (later, later))
    assert re.search(installs, make(clone, "train").stdout)


def test_a_quick_test_run_takes_the_folders_that_are_there(clone: Path) -> None:
    fake_environment(clone)
    (clone / "tests" / "models").mkdir(parents=True)
    (clone / "tests" / "kindling").mkdir()
    (clone / "tests" / "test_every_model.py").touch()
    printed = make(clone, "test", "ARGS=-k learns").stdout
    [called] = [line for line in printed.splitlines() if "pytest" in line]
    assert called.endswith("tests/test_every_model.py tests/models -k learns")


def test_clean_logs_removes_the_runs_and_nothing_else(clone: Path) -> None:
    (clone / "logs" / "train").mkdir(parents=True)
    (clone / "logs" / ".gitkeep").touch()
    assert make(clone, "clean-logs").returncode == 0
    assert [path.name for path in (clone / "logs").iterdir()] == [".gitkeep"]
