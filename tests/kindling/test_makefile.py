"""The Makefile's targets: each has a line of help, and a Python that is too old gets one line."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
GROUPS = ["Run", "Your own project", "Checks", "Maintenance"]
RUN = {"setup", "train", "evaluate", "predict", "compare", "report", "tensorboard"}
YOUR_OWN = {"new", "mine", "update", "check"}
CHECKS = {"test", "test-all", "lint", "format", "typecheck"}
RARE = {"schema", "test-gpu", "test-services", "test-browser", "screenshots", "mutants", "lock"}


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    arguments = ("UV=", *arguments)  # pip, whatever this machine has; a later UV=uv wins
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh checkout, as far as make can see: no .venv."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


def test_help_shows_the_usual_targets_in_aligned_groups(clone: Path) -> None:
    said = make(clone, "help").stdout
    *groups, more = said.strip().split("\n\n")
    assert [group.splitlines()[0] for group in groups] == GROUPS
    lines = [line for group in groups for line in group.splitlines()[1:]]
    assert all(re.match(r"  [a-z-]{1,13} +(?<=^.{16})\S", line) for line in lines)
    assert {line.split()[0] for line in lines} >= RUN | YOUR_OWN | CHECKS
    assert len(lines) <= 25
    assert all(len(line) <= 100 for line in lines)
    assert set(more.removeprefix("more:").split()) >= RARE
    assert make(clone).stdout == said  # and it is what make alone says


def test_every_target_is_run_even_if_a_file_has_its_name(clone: Path) -> None:
    for name in ("test", "new", "train"):
        (clone / name).touch()
    fake_environment(clone)
    assert "-m src.train" in make(clone, "train").stdout
    assert "-m pytest" in make(clone, "test").stdout
    assert (
        "-m src.kindling.cli.new x classifier"
        in make(clone, "new", "NAME=x", "KIND=classifier").stdout
    )
    assert (
        "-m src.kindling.cli.mine x fizzbuzz"
        in make(clone, "mine", "NAME=x", "KEEP=fizzbuzz").stdout
    )


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


def test_uv_installs_where_it_is_there(clone: Path) -> None:
    uv = clone / "uv"
    uv.write_text('#!/bin/sh\necho "uv $*"\nmkdir -p .venv\n')
    uv.chmod(0o755)
    said = make(clone, "lint", f"UV={uv}").stdout
    assert "uv venv --quiet --clear --python python3 .venv" in said
    for extra in (".", ".[dev]"):
        expected = (
            f"uv pip install --quiet --python .venv/bin/python -c requirements.lock -e {extra}"
        )
        assert expected in said.splitlines()


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


def git(folder: Path, *words: str) -> str:
    own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", *own, *words], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_an_update_renews_the_engine_and_leaves_the_rest(tmp_path: Path) -> None:
    origin, copy = tmp_path / "origin", tmp_path / "copy"
    origin.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy2(ROOT / name, origin / name)
    write(
        origin,
        src__kindling__build="1",
        src__nets="1",
        tests__kindling__test_build="1",
        conf__a="1",
    )
    git(origin, "init", "-q")
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "one")
    git(tmp_path, "clone", "-q", str(origin), "copy")
    git(copy, "remote", "rename", "origin", "kindling")
    write(copy, src__nets="mine", conf__a="mine", src__models__mine="mine")
    git(copy, "add", "-A")
    git(copy, "commit", "-qm", "mine")
    write(origin, src__kindling__build="2", src__kindling__extra="2", src__nets="2", conf__a="2")
    write(origin, tests__kindling__test_build="2")
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "two")
    fake_environment(copy)
    done = make(copy, "update")
    assert done.returncode == 0, done.stderr
    read = {
        str(path.relative_to(copy)): path.read_text()
        for folder in ("src", "tests", "conf")
        for path in (copy / folder).rglob("*")
        if path.is_file()
    }
    assert read == {
        "src/kindling/build": "2",
        "src/kindling/extra": "2",
        "tests/kindling/test_build": "2",
        "src/nets": "mine",
        "src/models/mine": "mine",
        "conf/a": "mine",
    }
    assert "called: -m src.kindling.cli.check" in done.stdout
    assert "called: -m pytest" in done.stdout


def test_an_update_without_the_remote_says_how_to_add_it(clone: Path) -> None:
    git(clone, "init", "-q")
    done = make(clone, "update")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no git remote called kindling; add it once")
