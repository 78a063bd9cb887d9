"""Extend Hydra's `--multirun`: check all jobs before the first one starts, and isolate failures."""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig

from src.kindling.cli import composition
from src.kindling.errors import InputError
from src.kindling.files import sweep_links
from src.kindling.layout import Plain, conf_texts
from src.kindling.process import signals

GRACE = 30.0  # seconds that a job may take to save
HYDRAS_OWN = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def is_asked_for(name: str, arguments: list[str]) -> bool:
    """Return whether a command line asks for a sweep, by `--multirun` or by `hydra.mode`."""
    parsed = get_args_parser().parse_args(arguments)
    if parsed.multirun:
        return True
    if parsed.help or parsed.hydra_help:
        return False
    yamls = (text for _, _, text in conf_texts() if "MULTIRUN" in text)
    if not any("MULTIRUN" in text.upper() for text in (*parsed.overrides, *yamls)):
        return False
    with composition.initialized():
        return bool(_configuration(name, parsed.overrides).hydra.mode == RunMode.MULTIRUN)


def _mode(_: Hydra, config_name: str, overrides: list[str], **more: Any) -> RunMode | None:
    return RunMode.MULTIRUN if is_asked_for(config_name, overrides) else None


Hydra.get_mode = _mode  # type: ignore[assignment, method-assign] # Hydra composes once more to learn it


def _configuration(name: str, overrides: list[str]) -> DictConfig:
    loader = GlobalHydra.instance().config_loader()
    return loader.load_configuration(name, overrides, RunMode.MULTIRUN)


def check(name: str, arguments: list[str]) -> set[str]:
    """Refuse a sweep before it starts if any of its jobs is invalid.

    Other sweepers than Hydra's own choose values as they go: their jobs are checked one at a time.

    Args:
        name: name of the command and of its YAML.
        arguments: the command line.

    Returns:
        The folders in which the jobs keep their runs.

    Raises:
        InputError, HydraException: a job does not compose, or a value is invalid.
    """
    overrides = get_args_parser().parse_args(arguments).overrides
    log_dirs = set()
    with composition.initialized():
        whole = _configuration(name, overrides)
        sweeper = whole.hydra.sweeper
        if sweeper._target_ != HYDRAS_OWN:
            return {str(whole.log_dir)}
        swept = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
        loader = GlobalHydra.instance().config_loader()  # resolves glob(*)
        parsed = OverridesParser.create(loader).parse_overrides([*swept, *overrides])
        _check_values(parsed, parsed[len(swept) :])
        for [*job] in BasicSweeper.split_arguments(parsed, None)[0]:  # as Hydra itself does
            settings = composition.resolved(hydra.compose(name, job))
            log_dirs.add(str(settings["log_dir"]))
            if "trainer" in settings and settings["resume"] is None:
                _check_job(settings, job)
    return log_dirs


def _check_values(sweeps: list[Override], typed: list[Override]) -> None:
    """Refuse a sweep without values, and several for one key, of which Hydra takes the last."""
    keys = [override.get_key_element() for override in typed]
    for override, key in zip(typed, keys, strict=True):
        if override.is_sweep_override() and keys.count(key) > 1:
            raise InputError(f"{override.input_line}: give the values of {key} at once, {key}=A,B")
    for override in sweeps:
        if override.is_interval_sweep():
            raise InputError(
                f"{override.input_line}: --multirun takes choice(...) and range(...); src.study"
                " draws from an interval"
            )
        if override.is_discrete_sweep() and not [*override.sweep_string_iterator()]:
            raise InputError(f"{override.input_line}: no option matches")


def _check_job(settings: Plain, job: list[str]) -> None:
    from src.kindling.config import conflicts
    from src.kindling.config.settings import validate

    try:
        validate(settings)
        conflicts.check(settings["trainer"], job)
    except InputError as error:
        raise InputError(f"{error} (in the job {' '.join(job)})") from error


@contextmanager
def continued(arguments: list[str], log_dirs: set[str]) -> Iterator[list[Path]]:
    """Let the jobs find the runs that an interrupted sweep of this command line has made."""
    words = [word for word in arguments if not word.startswith("log_dir=")]
    with signals.at_exit(_end_jobs), sweep_links.kept(words, log_dirs) as links:
        yield links


def _end_jobs(failure: str | None) -> bool:
    """End a launcher's processes, each after its step, and say how the sweep is continued.

    Those of joblib would otherwise never end, each holding the memory of a run.
    """
    end = time.monotonic() + GRACE
    while (processes := multiprocessing.active_children()) and time.monotonic() < end:
        for process in processes:
            process.terminate()  # in training, it finishes the step and saves
        time.sleep(0.2)
    for process in processes:
        process.kill()
    line = "error: the sweep was interrupted; the same command continues it"
    return failure is None and signals.say(line, sys.__stderr__)


@contextmanager
def without_files(arguments: list[str]) -> Iterator[list[str]]:
    """Yield a command line with which Hydra writes no files; runs store their own configuration."""
    with TemporaryDirectory(prefix="kindling-") as folder:
        yield [*arguments, f"hydra.sweep.dir='{folder}'"]


class JobFailedError(Exception):
    """Raised when a job fails in a launcher's process, which has printed the reason."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Failures:
    """Record the failed jobs of a sweep, and let the other jobs run."""

    def __init__(self) -> None:
        self.process, self.statuses = os.getpid(), list[int]()

    @contextmanager
    def job(self) -> Iterator[None]:
        """Record a failure of the job in this block.

        Raises:
            JobFailedError: in a launcher's process; Hydra re-raises it in the sweep's own process.
        """
        try:
            yield
        except SystemExit as stop:
            if HydraConfig.get().mode != RunMode.MULTIRUN or not isinstance(stop.code, int):
                raise
            if os.getpid() != self.process:
                raise JobFailedError(stop.code) from None
            if stop.code != 1:
                raise  # bad input affects every job, and a signal stops the sweep
            self.statuses.append(stop.code)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        """Record a failure of a job in another process."""
        if isinstance(error, JobFailedError):
            self.statuses.append(error.status)
            print("error: a job failed; the reason is printed above", file=sys.stderr)
        return isinstance(error, JobFailedError)

    def exit(self) -> None:
        """Exit with the status of the first failed job, whose error has been printed."""
        if self.statuses:
            sys.exit(self.statuses[0])
