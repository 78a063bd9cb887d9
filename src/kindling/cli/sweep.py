"""What `--multirun` does beyond Hydra: all jobs are checked before the first, and fail alone."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from src.kindling.config.settings import validate
from src.kindling.errors import InputError
from src.kindling.layout import CONF, Plain


def is_asked_for(arguments: list[str]) -> bool:
    """Say whether a command line has a run for each of several values."""
    return bool(get_args_parser().parse_args(arguments).multirun)


def check(name: str, arguments: list[str], resolved: Callable[[DictConfig], Plain]) -> None:
    """Refuse a sweep as long as nothing of it is done, if one of its jobs is wrong in itself.

    Args:
        name: the command's, and its YAML's.
        arguments: the command line.
        resolved: makes plain data of a job's configuration.

    Raises:
        InputError, HydraException: a job cannot be composed, or a value is wrong.
    """
    overrides = get_args_parser().parse_args(arguments).overrides
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        options = GlobalHydra.instance().config_loader()  # what glob(*) chooses from
        parsed = OverridesParser.create(options).parse_overrides(overrides)
        for [*job] in BasicSweeper.split_arguments(parsed, None)[0]:  # what Hydra itself will do
            settings = resolved(hydra.compose(name, job))
            if "trainer" in settings and settings["resume"] is None:
                _check_job(settings, job)


def _check_job(settings: Plain, job: list[str]) -> None:
    try:
        validate(settings)
    except InputError as error:
        raise InputError(f"{error} (in the job {' '.join(job)})") from error


@contextmanager
def without_files(arguments: list[str]) -> Iterator[list[str]]:
    """Yield a command line with which Hydra keeps no files; each run keeps its configuration."""
    with TemporaryDirectory(prefix="kindling-") as folder:
        yield [*arguments, f"hydra.sweep.dir='{folder}'"]


@contextmanager
def job(failed: list[int]) -> Iterator[None]:
    """Note that a job of a sweep has failed, and let the others have their turn."""
    try:
        yield
    except SystemExit as stop:
        if HydraConfig.get().mode != RunMode.MULTIRUN or stop.code != 1:
            raise  # bad input is as bad for the next job, and a signal is meant for all
        failed.append(HydraConfig.get().job.num)


def end(failed: list[int]) -> None:
    """End with status 1 if a job has failed; its line is said already."""
    if failed:
        sys.exit(1)
