"""What the tests of the engine share: experiments and commands with small models of their own.

A project may delete every model of src/; these tests then stay as they are.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from src.kindling import layout
from src.kindling.build import Experiment
from tests import conftest
from tests.kindling import examples


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


class Command(conftest.Command):
    """Run `python -m src.<name>` as a user does whose own folder holds the examples."""

    def words(self, name: str, *arguments: str) -> list[str]:
        """Return the arguments of the command line."""
        return super().words(name, *examples.arguments(name, *arguments))


@pytest.fixture
def own_models() -> Iterator[None]:
    """Let a module's tests train the examples: `pytestmark = pytest.mark.usefixtures(...)`.

    Their YAMLs then count as the user's own in this process, as in the commands that it starts.
    """
    with layout.added_folders([examples.CONF]):
        yield


@pytest.fixture
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Experiment]:
    """Return a builder of experiments that write to a temporary directory, and draw nothing."""
    composed = compose if "own_models" in request.fixturenames else conftest.compose
    return lambda *overrides: conftest.built(tmp_path, composed, *overrides)


@pytest.fixture
def command(request: pytest.FixtureRequest, tmp_path: Path) -> conftest.Command:
    """Return a runner of commands whose runs go to a fresh directory."""
    kind = Command if "own_models" in request.fixturenames else conftest.Command
    return kind(tmp_path / "logs")
