"""Rooms that can be deleted in one step: the rest is imported, collected, trains and answers.

tests/soak/soak_rooms.py runs the whole remaining suite in each of these copies.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from src.kindling.cli import mine
from tests.conftest import ROOT, environment
from tests.kindling import examples
from tests.warm import PYTHON

pytestmark = pytest.mark.slow

# What `rm -r` takes away.
OPTIONAL = {
    "speed": ["src/kindling/speed", "tests/kindling/speed"],
    "results": [
        "src/kindling/results",
        "src/compare.py",
        "src/report.py",
        "tests/kindling/results",
    ],
    "studies": [
        "src/kindling/studies",
        "src/study.py",
        "conf/study.yaml",
        "conf/study",
        "tests/kindling/studies",
    ],
    "export": [
        "src/kindling/export",
        "src/export.py",
        "conf/export.yaml",
        "tests/kindling/export",
    ],
    "serve": ["src/kindling/serve", "src/serve.py", "conf/serve.yaml", "tests/kindling/serve"],
    "tour": ["src/tour", "tests/tour"],
    "figures": ["src/figures", "src/kindling/figures", "tests/figures", "tests/kindling/figures"],
}
ROOMS = {name: paths for name, paths in OPTIONAL.items() if (ROOT / paths[0]).exists()}
DELETED = [path for name in OPTIONAL.keys() - ROOMS.keys() for path in OPTIONAL[name]]
NOT_COPIED = (".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "logs", "*.egg-info")
ONE_STEP = "src/kindling/speed is not there: one step per call, the same weights"
IMPORT_ALL = """
import importlib.util, pkgutil, src
names = [found.name for found in pkgutil.walk_packages(src.__path__, "src.")]
if importlib.util.find_spec("optuna") is None:  # the packages of studies are an extra
    names = [name for name in names if not name.startswith("src.kindling.studies.")]
for name in names:
    name.endswith("__main__") or importlib.import_module(name)
print(len(names))
"""

IMPORTED = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # Hydra is, in the warm interpreter


def copy_without(room: str, folder: Path) -> Path:
    """Copy the project, delete a room, or the examples as `make mine` does, and return the copy."""
    copy = folder / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    if room == "examples":
        mine.delete_examples(copy, [])
        mine.rename(copy, "my-project")
    for name in ROOMS.get(room, ()):
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return copy


def run(words: list[str], folder: Path, seconds: float = 240.0) -> str:
    """Run a command in a copy, to a good end; return its output.

    On standard error there is nothing but the line about a room that is not there.
    """
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment(PYTHONPATH=str(folder)),
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    lines = [line for line in done.stderr.splitlines() if ONE_STEP not in line]
    assert (done.returncode, lines) == (0, []), done.stdout[-3000:] + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("room", [*ROOMS, "examples"])
def test_the_rest_is_collected_and_trains(room: str, tmp_path: Path) -> None:
    copy = copy_without(room, tmp_path)
    (copy / "import_all.py").write_text(IMPORT_ALL)
    assert int(run([*PYTHON, "-m", "import_all"], copy)) > 30
    run([*PYTHON, "-m", "pytest", *IMPORTED, "-n", "0", "--collect-only", "-q"], copy)
    trained = ""
    for model in ("line", "quadrants", "teacher"):
        quick = [f"model={model}", "trainer.max_epochs=2", "trainer.accelerator=cpu", "logger=none"]
        trained += run([*PYTHON, "-m", "src.train", *examples.arguments("train", *quick)], copy)
    assert (ONE_STEP in trained) == (room == "speed")
    offered = set(re.findall(r"python -m src\.(\w+)", trained))
    assert "predict" in offered
    assert {name for name in offered if not (copy / "src" / f"{name}.py").is_file()} == set()
    run([*PYTHON, "-m", "src.predict", *examples.arguments("predict", "run=latest")], copy)


def test_the_engine_is_tested_without_any_of_the_examples(tmp_path: Path) -> None:
    copy = copy_without("examples", tmp_path)
    quick = ("-n", "2", "-q", "-x", "-m", "not slow and not services", "-p", "no:cacheprovider")
    words = [sys.executable, "-m", "pytest", *quick, "tests/kindling"]
    assert " passed" in run([*words, "-o", "addopts="], copy, seconds=3600)
