"""The README keeps its word: its commands run, and the model that it adds passes the contract."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment
from tests.warm import PYTHON

README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRATCH = ("src", "conf", "tests", "pyproject.toml", "README.md")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found, f"the README has no {language} block"
    return found


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A copy of the project to work in, as a clone would be."""
    for name in SCRATCH:
        source = ROOT / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, tmp_path / name, ignore=ignore)
        else:
            shutil.copy2(source, tmp_path / name)
    return tmp_path


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(line)
    assert words[0] == "python", line
    done = subprocess.run(
        [*PYTHON, *words[1:]],
        cwd=folder,
        env=environment(PYTHONPATH=str(folder)),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.mark.parametrize("block", blocks("bash"), ids=lambda block: block.splitlines()[0])
def test_the_commands_run_one_after_the_other(block: str, scratch: Path) -> None:
    if "resume=" in block:  # what comes before it in the text: a run that was stopped
        run("python -m src.train trainer.max_epochs=100", scratch)
    for line in block.splitlines():
        assert run(line, scratch).stderr == ""


def test_a_model_is_added_with_the_four_files_of_the_text(scratch: Path) -> None:
    section = README.partition("## Adding a model")[2].partition("\n## ")[0]
    files = re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert [Path(name).stem for name, _ in files] == ["xor"] * 4
    for name, content in files:
        (scratch / name).write_text(content, encoding="utf-8")
    said = run("python -m src.train model=xor", scratch).stdout
    accuracy = float(said.partition("test/accuracy")[2].split()[0])
    assert accuracy > 0.9
    words = "-m pytest -n 0 -q tests/test_every_model.py tests/kindling/test_architecture.py"
    done = subprocess.run(
        [sys.executable, *words.split(), "-k", "xor or architecture"],
        cwd=scratch,
        env=environment(PYTHONPATH=str(scratch)),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_error_reads_as_the_text_says(scratch: Path) -> None:
    [block] = [block for block in blocks("console") if "error:" in block]
    command, expected = block.strip().split("\n")
    done = subprocess.run(
        [*PYTHON, *shlex.split(command.removeprefix("$ python"))],
        cwd=scratch,
        env=environment(PYTHONPATH=str(scratch)),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.strip()) == (2, expected)


def test_links_and_pictures_are_there() -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_pictures_are_small() -> None:
    pictures = [ROOT / path for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)]
    assert len(pictures) >= 2
    assert all(0 < picture.stat().st_size < 300 * 2**10 for picture in pictures)


def test_every_make_target_of_the_text_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", README))
    assert named
    assert named <= targets
