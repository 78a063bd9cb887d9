"""A trial is an ordinary run, in the study's directory."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

import sqlalchemy
from optuna.exceptions import StorageInternalError

from src.kindling.config import masking
from src.kindling.errors import InputError, first_line
from src.kindling.files import bounded, run_record
from src.kindling.layout import Plain
from src.kindling.studies.pruning import PrunedError, Pruning
from src.kindling.training.run import Assignment, run


def train(
    settings: Plain, path: Path, overrides: list[str], facts: Plain, pruning: Pruning | None = None
) -> dict[str, float]:
    """Train a trial, or continue it where its last worker left it; its lines go to run.log alone.

    Args:
        settings: the resolved configuration.
        path: its run directory.
        overrides: what the study and its search space change in the configuration.
        facts: further content of run.json.
        pruning: reports to the study.

    Returns:
        The final metrics.

    Raises:
        PrunedError: the study has stopped it.
    """
    if run_record.is_finished(path):  # its worker died before it could tell the study
        return metrics(path)
    if not (path / "config.yaml").is_file():
        shutil.rmtree(path, ignore_errors=True)  # of a worker that died as it made the directory
    callbacks = [pruning] if pruning else []
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            return run(settings, overrides, assignment=Assignment(path, facts, callbacks))
        except PrunedError:
            run_record.write_json(path / "metrics.json", pruning.metrics if pruning else {})
            raise


def failure(error: Exception) -> str:
    """Return the line of a run that has failed.

    Raises:
        Exception: the error itself, where it is not the run's fault, such as a full disk: it ends
            the worker, and another takes the trial up.
    """
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or isinstance(error, StorageInternalError | sqlalchemy.exc.SQLAlchemyError):
        raise error
    line = masking.redacted(first_line(error))
    return line if isinstance(error, InputError) else f"{type(error).__name__}: {line}"


def metrics(path: Path) -> dict[str, float]:
    """Return the metrics of a run that has ended; one that is not a number is NaN."""
    held = bounded.read_json(path / "metrics.json")
    return {name: float("nan" if value is None else value) for name, value in held.items()}
