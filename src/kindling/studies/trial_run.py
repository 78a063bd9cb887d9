"""A trial is an ordinary run, or one per seed, in the study's directory."""

import contextlib
import errno
import os
import shutil
import time
from pathlib import Path
from statistics import fmean

import sqlalchemy
from optuna import Trial
from optuna.exceptions import StorageInternalError

from src.kindling.config import masking
from src.kindling.errors import InputError, first_line, printable
from src.kindling.files import bounded, run_record
from src.kindling.files.run_lock import HeldError
from src.kindling.layout import Plain
from src.kindling.studies import space
from src.kindling.studies.pruning import PrunedError, Pruning
from src.kindling.studies.space import Value
from src.kindling.studies.study import OpenStudy
from src.kindling.training.run import Assignment, run

WAIT = 0.5  # seconds between two attempts at a run that another process holds
Metrics = dict[str, float]


def trained(opened: OpenStudy, trial: Trial, number: int, drawn: dict[str, Value]) -> Metrics:
    """Train the run of a trial, or one per seed; return its metrics, or their means.

    Args:
        opened: the study.
        trial: what to report to.
        number: of the trial.
        drawn: its settings.

    Raises:
        PrunedError: the study has stopped it.
    """
    path = folder(opened, number)
    facts = {"study": opened.study.study_name, "trial": number}
    words = [*opened.recipe.overrides, *(f"{k}={space.text(v)}" for k, v in drawn.items())]
    seeds, metrics = opened.definition.seeds, opened.definition.metrics
    pruned_by = metrics[0] if len(metrics) == 1 else None  # of several none
    if seeds == 1:
        pruning = Pruning(trial, pruned_by)
        return _patiently(_settings(opened, drawn, number), path, words, facts, pruning)
    results: list[Metrics] = []
    for place in range(seeds):  # the same seeds in each trial: the pruner compares pairs
        settings = _settings(opened, drawn, place)
        seed = settings["seed"]
        run_of_seed = path / f"seed-{seed}"
        results.append(_patiently(settings, run_of_seed, [*words, f"seed={seed}"], facts))
        if pruned_by in results[-1]:
            trial.report(results[-1][pruned_by], place)
            if place + 1 < seeds and trial.should_prune():
                raise PrunedError(f"pruned after {place + 1} of {seeds} seeds")
    return {name: fmean(result[name] for result in results) for name in results[0]}


def folder(opened: OpenStudy, number: int) -> Path:
    """Return where a trial's run is, or its runs."""
    return opened.folder / f"trial-{number:04d}"


def _settings(opened: OpenStudy, drawn: dict[str, Value], place: int) -> Plain:
    """Return the configuration of the run whose seed comes so many after the study's."""
    seed = {} if opened.recipe.fixes_seed else {"seed": opened.definition.seed + place}
    return opened.recipe.settings(drawn | seed) | {"log_dir": str(opened.folder.parent.parent)}


def _patiently(
    settings: Plain, path: Path, words: list[str], facts: Plain, pruning: Pruning | None = None
) -> Metrics:
    """Train a run; wait for a process that still holds it, though its worker was taken for dead."""
    told = False
    while True:
        try:
            return train(settings, path, words, facts, pruning)
        except HeldError:
            if not told:
                say(
                    f"{path}: waiting for the process that holds this run, though it showed no sign"
                    " of life; if it is suspended, continue or end it"
                )
            told = True
            time.sleep(WAIT)


def train(
    settings: Plain, path: Path, overrides: list[str], facts: Plain, pruning: Pruning | None = None
) -> Metrics:
    """Train a run, or continue it where its last worker left it; its lines go to run.log alone.

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


def metrics(path: Path) -> Metrics:
    """Return the metrics of a run that has ended; one that is not a number is NaN."""
    held = bounded.read_json(path / "metrics.json")
    return {name: float("nan" if value is None else value) for name, value in held.items()}


def say(line: str) -> None:
    """Print a line of a worker at once."""
    print(printable(line), flush=True)
