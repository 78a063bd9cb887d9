"""What the tests of the engine share: experiments and commands with small models of their own.

A project may delete every model of src/; these tests then stay as they are.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from src.kindling import layout
from src.kindling.build import Experiment
from tests import conftest
from tests.conftest import ROOT
from tests.kindling import examples

EXAMPLES = Path(examples.__file__).parent


def options(group: str) -> list[str]:
    """Return the options of a group: the examples', or those of conf/ where they have none."""
    return sorted(path.stem for path in (examples.CONF / group).glob("*.yaml")) or (
        conftest.options(group)
    )


def compose(*overrides: str) -> conftest.Plain:
    """Return the resolved configuration of a run, of an example unless another is named."""
    _, *words = examples.arguments("train", *overrides)  # without --config-dir, a command's
    with layout.added_folders([examples.CONF]):
        return conftest.compose(*words)


def copy_project(folder: Path) -> Path:
    """Copy src/ and conf/, with the examples in place of the models that the project has."""
    caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", folder / "src", ignore=caches)
    shutil.copytree(ROOT / "conf", folder / "conf")
    for group in ("model", "data", "experiment", "tuned"):
        shutil.rmtree(folder / "conf" / group, ignore_errors=True)
    shutil.copytree(examples.CONF, folder / "conf", dirs_exist_ok=True)
    shutil.copytree(EXAMPLES, folder / "tests" / "kindling" / "examples", ignore=caches)
    train = folder / "conf" / "train.yaml"
    text, count = re.subn(r"- model: \S+", f"- model: {examples.DEFAULT}", train.read_text())
    assert count == 1
    train.write_text(text)
    return folder


class Command(conftest.Command):
    """Run `python -m src.<name>` as a user does whose own folder holds the examples."""

    def words(self, name: str, *arguments: str) -> list[str]:
        """Return the arguments of the command line."""
        return super().words(name, *examples.arguments(name, *arguments))


@pytest.fixture(autouse=True)
def own_models() -> Iterator[None]:
    """Let the YAMLs of the examples count as the user's own, here as in the commands started."""
    with layout.added_folders([examples.CONF]):
        yield


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Experiment]:
    """Return a builder of experiments that write to a temporary directory, and draw nothing."""
    return lambda *overrides: conftest.built(tmp_path, compose, *overrides)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Return a runner of commands whose runs go to a fresh directory."""
    return Command(tmp_path / "logs")
