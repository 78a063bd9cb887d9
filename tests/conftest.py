"""What the tests share: configurations composed in process, and commands run as users run them.

A command costs what it does itself, about half a second, and not the seconds of importing torch:
see tests/warm.py. `[*PYTHON, "-m", "src.x"]` in place of `[sys.executable, "-m", "src.x"]`, and the
`command` fixture, start it so.
"""

import copy
import functools
import importlib
import io
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import hydra
import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.kindling import build as building
from src.kindling import layout
from src.kindling.cli import composition
from src.kindling.config.hydra_calls import BASE
from src.kindling.config.settings import validate
from tests import warm
from tests.warm import PYTHON

ROOT = Path(__file__).resolve().parent.parent
Plain = dict[str, Any]


def options(group: str) -> list[str]:
    """Return the options of a configuration group, found on disk; to find none is a fault."""
    found = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
    assert found, f"conf/{group} has no option"
    return found


def has_room(name: str) -> bool:
    """Return whether `src/kindling/<name>` is there; some rooms may be deleted."""
    return (ROOT / "src" / "kindling" / name).is_dir()


def has_command(name: str) -> bool:
    """Return whether `python -m src.<name>` is there; some commands may be deleted."""
    return (ROOT / "src" / f"{name}.py").is_file() or (
        ROOT / "src" / name / "__main__.py"
    ).is_file()


SETTING = re.compile(r"((\w+\.)+\w+|seed|threads|compile|steps_per_execution|log_dir)=")


def compose(*overrides: str) -> Plain:
    """Return the resolved configuration that `python -m src.train` would train with.

    Hydra takes 0.15 s. It composes the same options once; settings then change a copy as it would.
    """
    options = [word for word in overrides if not SETTING.match(word)]
    changed = copy.deepcopy(with_options(tuple(layout.conf_folders()), tuple(options)))
    try:
        parsed = OverridesParser.create().parse_overrides(
            [word for word in overrides if SETTING.match(word)]
        )
        for setting in parsed:
            OmegaConf.update(changed, setting.key_or_group, setting.value(), merge=True)
    except (HydraException, OmegaConfBaseException):  # as Hydra says it
        changed = with_options(tuple(layout.conf_folders()), overrides)
    return composition.resolved(changed)


@functools.cache
def with_options(folders: tuple[Path, ...], overrides: tuple[str, ...]) -> DictConfig:
    """Return what Hydra composes from conf/ and the user's own folders, in this order."""
    with hydra.initialize_config_dir(str(folders[0]), **BASE):
        return hydra.compose("train", list(overrides))


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from all tests but `make test-gpu`, and start what commands are forked from."""
    if config.option.markexpr != "gpu":  # the others expect what a CPU computes
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of commands would each compile src/
    warm.skip_fsync()
    yaml.load = parsed_once(yaml.load)
    server = warm.server()
    server.__enter__()
    config.add_cleanup(lambda: server.__exit__(None, None, None))


def parsed_once(load: Callable[..., Any]) -> Callable[..., Any]:
    """Return `yaml.load` that parses a text once: Hydra loads the same 17 files in each command."""
    known: dict[str, bytes] = {}

    def loaded(stream: Any, Loader: Any) -> Any:
        if Loader.__name__ != "OmegaConfLoader" or not hasattr(stream, "seek"):
            return load(stream, Loader)
        start = stream.tell()
        text = stream.read()
        if text not in known:
            stream.seek(start)
            known[text] = pickle.dumps(load(stream, Loader))
        return pickle.loads(known[text])

    return loaded


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Keep torch to one thread: the models are small, and tests run side by side."""
    torch.set_num_threads(1)


def built(folder: Path, composed: Callable[..., Plain], *overrides: str) -> building.Experiment:
    """Build an experiment that writes to a folder and draws nothing."""
    settings = composed("trainer.accelerator=cpu", f"log_dir={folder}", *overrides)
    for drawing in ("progress", "figures"):
        settings["callbacks"].pop(drawing, None)
    validate(settings)
    return building.build(settings, folder)


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., building.Experiment]:
    """Return a builder of experiments that write to a temporary directory, and draw nothing."""
    return lambda *overrides: built(tmp_path, compose, *overrides)


class Command:
    """Run `python -m src.<name>` as a user does, with runs kept in a temporary directory."""

    def __init__(self, log_dir: Path) -> None:
        self.log_dir = log_dir

    def words(self, name: str, *arguments: str) -> list[str]:
        """Return the arguments of the command line."""
        return [*arguments, f"log_dir={self.log_dir}"]

    def line(self, name: str, *arguments: str) -> list[str]:
        """Return the command line."""
        return [*PYTHON, "-m", f"src.{name}", *self.words(name, *arguments)]

    def __call__(
        self, name: str, *arguments: str, status: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; fail unless the exit status is the one expected."""
        done = subprocess.run(
            self.line(name, *arguments),
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == status, f"{done.args}\n{done.stdout}\n{done.stderr}"
        return done

    def here(self, name: str, *arguments: str) -> str:
        """Run it in this process, which is faster, to a good end; return what it prints."""
        words = [f"src/{name}.py", *self.words(name, *arguments)]
        with mock.patch.object(sys, "argv", words), redirect_stdout(io.StringIO()) as out:
            importlib.import_module(f"src.{name}").main()
        return out.getvalue()

    @property
    def latest(self) -> Path:
        """The newest training run."""
        return (self.log_dir / "latest").resolve()


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Return a runner of commands whose runs go to a fresh directory."""
    return Command(tmp_path / "logs")


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment for a command: one thread, and a warning is an error."""
    quiet = {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return {**os.environ, **quiet, **changes}
