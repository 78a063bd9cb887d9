"""What the tests of studies share; without the extra `study` they are skipped, with one line."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest

from src.kindling import layout
from src.kindling.config.hydra_calls import BASE

if importlib.util.find_spec("optuna") is None:  # the base install
    collect_ignore_glob = ["test_*.py"]


def pytest_report_header() -> str | None:
    """Say why the tests of studies are not there."""
    missing = importlib.util.find_spec("optuna") is None
    return "tests of studies skipped: pip install -e '.[study]'" if missing else None


@pytest.fixture
def composing() -> Iterator[None]:
    """Let Hydra compose configurations, as in a command."""
    with hydra.initialize_config_dir(str(layout.CONF), **BASE):
        yield


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that reads a study of `tmp_path/logs` back with Optuna alone."""
    import optuna

    engines = []

    def loaded(name: str, log_dir: Path = tmp_path / "logs") -> Any:
        storage = optuna.storages.RDBStorage(f"sqlite:///{log_dir}/study/{name}/study.db")
        engines.append(storage.engine)
        return optuna.load_study(study_name=name, storage=storage)

    yield loaded
    for engine in engines:
        engine.dispose()
