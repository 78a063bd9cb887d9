"""A worker trains one trial after the other until the study has all of its trials."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from optuna import Study, Trial
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from src.kindling.errors import InputError, printable
from src.kindling.files.run_lock import HeldError
from src.kindling.layout import Plain
from src.kindling.process.requeue import requeue
from src.kindling.studies import space, storage, trials
from src.kindling.studies.definition import Definition
from src.kindling.studies.pruning import PrunedError, Pruning
from src.kindling.studies.recipe import Recipe
from src.kindling.studies.space import Value
from src.kindling.studies.trial_run import failure, train

WAIT = 0.5  # seconds between two checks of a study whose last trials other workers train
MOST_LOST = 3  # times in a row that a server may be lost


class TrialFailedError(Exception):
    """A trial has failed, and the study goes to the next."""


class TooManyFailuresError(Exception):
    """Too many trials in a row have failed."""


@dataclass
class Worker:
    """Trains trials of one study in this process, one after the other.

    Attributes:
        study: the study, with its sampler and pruner.
        definition: what it searches.
        recipe: the configuration that its trials vary.
        url: of its storage.
        folder: where its trials are.
        trials: the number of trials to reach.
        max_failures: failed trials in a row that end it.
        timeout: seconds until no further trial starts.
    """

    study: Study
    definition: Definition
    recipe: Recipe
    url: str
    folder: Path
    trials: int
    max_failures: int
    timeout: float | None = None
    _release: Callable[[], None] = field(default=lambda: None, repr=False)
    _trial: Trial | None = None
    _lost: int = 0

    def work(self) -> None:
        """Train trials until all are done, by this worker or by others.

        Raises:
            TooManyFailuresError: the latest trials have all failed.
            Stopped: by a signal; the trial is saved, and queued again.
        """
        deadline = time.monotonic() + (self.timeout or float("inf"))
        parent = os.getppid()  # the process that shows the progress of several workers, say
        try:
            while time.monotonic() < deadline and os.getppid() == parent and self._may_be_more():
                pass
        except SystemExit:
            self._give_back()
            requeue()
            raise

    def _may_be_more(self) -> bool:
        """Take a trial; a server that was lost meanwhile may have restarted."""
        try:
            with storage.explained():
                more = self._take_a_trial()
        except storage.StorageLostError as lost:
            self._lost += 1
            if self.url.startswith("sqlite") or self._lost > MOST_LOST:
                raise
            _say(str(lost))
            return True
        self._lost = 0
        return more

    def _take_a_trial(self) -> bool:
        """Train one trial, or wait for those of others; say whether there may be more."""
        with contextlib.ExitStack() as until_drawn:
            until_drawn.enter_context(storage.locked(self.url, self.folder, patient=True))
            progress = trials.take_up_lost(self.study)
            if progress.failed_in_a_row >= self.max_failures:
                raise TooManyFailuresError(
                    f"the last {progress.failed_in_a_row} trials have failed: {progress.error}"
                )
            if progress.done + progress.running < self.trials:
                # Other workers wait until this one has drawn a trial's settings.
                if not progress.waiting:
                    trials.queue(self.study)
                self._release = until_drawn.close
                self._optimize()
                return True
        if progress.running:
            time.sleep(WAIT)
        return progress.running > 0

    def _optimize(self) -> None:
        """Let Optuna draw a trial, train it, and store how it ended."""
        self._trial = None
        try:
            self.study.optimize(self._objective, n_trials=1, catch=(TrialFailedError,))
        except (ValueError, AssertionError, UpdateFinishedTrialError):
            if not self._is_taken_up():
                raise
            _say("the trial was taken up by another worker: this one showed no sign of life")

    def _is_taken_up(self) -> bool:
        """Return whether another worker took this one for dead, such as on a suspended machine."""
        if self._trial is None:
            return False
        trial = self.study.get_trials(deepcopy=False)[self._trial.number]
        return trial.state == TrialState.FAIL and trials.ERROR not in trial.user_attrs

    def _objective(self, trial: Trial) -> Any:
        """Train a trial's run; return the values of its metrics."""
        self._trial = trial
        number: int = self.study.sampler.number  # type: ignore[union-attr]
        with self._outcomes(trial, number):
            drawn = suggest(trial, self.recipe)
            run = self.folder / f"trial-{number:04d}"
            if trials.RUN not in trial.user_attrs:
                trial.set_user_attr(trials.RUN, run.name)
            self._release()
            metrics = self._trained(trial, number, drawn, run)
            for step, value in trials.reports(self.study, trial).items():
                trial.report(value, step)
            return self._values(trial, metrics)

    def _trained(
        self, trial: Trial, number: int, drawn: dict[str, Value], path: Path
    ) -> dict[str, float]:
        """Train the run of a trial, or one per seed; return its metrics, or their means."""
        facts = {"study": self.study.study_name, "trial": number}
        words = [*self.recipe.overrides, *(f"{k}={space.text(v)}" for k, v in drawn.items())]
        seeds = self.definition.seeds
        if seeds == 1:
            pruning = Pruning(trial, self._pruned_by)
            return _train(self._settings(drawn, number), path, words, facts, pruning)
        results = []
        for place in range(seeds):  # the same seeds in each trial: the pruner compares pairs
            settings = self._settings(drawn, place)
            seed = settings["seed"]
            results.append(_train(settings, path / f"seed-{seed}", [*words, f"seed={seed}"], facts))
            self._prune_by_seed(trial, results)
        return {name: fmean(result[name] for result in results) for name in results[0]}

    def _prune_by_seed(self, trial: Trial, results: list[dict[str, float]]) -> None:
        """Report the run of one more seed.

        Raises:
            PrunedError: the study stops the trial before its last seed.
        """
        name = self._pruned_by
        if name is None or name not in results[-1]:
            return
        trial.report(results[-1][name], len(results) - 1)
        if len(results) < self.definition.seeds and trial.should_prune():
            raise PrunedError(f"pruned after {len(results)} of {self.definition.seeds} seeds")

    @property
    def _pruned_by(self) -> str | None:
        """The metric that trials are pruned by; of several none."""
        names = self.definition.metrics
        return names[0] if len(names) == 1 else None

    def _settings(self, drawn: dict[str, Value], place: int) -> Plain:
        """Return the configuration of the run whose seed comes so many after the study's."""
        seed = {} if self.recipe.fixes_seed else {"seed": self.definition.seed + place}
        log_dir = str(self.folder.parent.parent)
        return self.recipe.settings(drawn | seed) | {"log_dir": log_dir}

    def _values(self, trial: Trial, metrics: dict[str, float]) -> list[float]:
        """Return the metrics that are optimized; note by how much others exceed what is allowed."""
        for name in [*self.definition.metrics, *self.definition.constraints]:
            if name not in metrics:
                raise InputError(
                    f"{name}: no such metric is logged; there are {', '.join(metrics)}"
                )
        for name, largest in self.definition.constraints.items():
            trial.set_constraint(name, metrics[name] - largest)
        return [metrics[name] for name in self.definition.metrics]

    @contextlib.contextmanager
    def _outcomes(self, trial: Trial, number: int) -> Iterator[None]:
        """Say in a line how a trial ends, and note why it failed."""
        started = time.perf_counter()
        try:
            yield
        except PrunedError as pruned:
            _say(f"trial {number}: {pruned}")
            raise
        except Exception as error:
            line = failure(error)
            trial.set_user_attr(trials.ERROR, line)
            _say(f"trial {number}: failed: {line}")
            raise TrialFailedError(line) from error
        else:
            _say(f"trial {number}: {time.perf_counter() - started:.1f} s")

    def _give_back(self) -> None:
        """Queue the trial again that a signal has stopped."""
        if self._trial is None:
            return
        with storage.locked(self.url, self.folder):
            trial = self.study.get_trials(deepcopy=False)[self._trial.number]
            if trial.state == TrialState.RUNNING:
                self.study.tell(trial.number, state=TrialState.FAIL)
                trials.requeue(self.study, trial, died=False)


def _train(*arguments: Any) -> dict[str, float]:
    """Train a run; wait for a worker that still trains it, though it was taken for dead."""
    while True:
        try:
            return train(*arguments)
        except HeldError:
            time.sleep(WAIT)


def _say(line: str) -> None:
    print(printable(line), flush=True)


def suggest(trial: Trial, recipe: Recipe) -> dict[str, Value]:
    """Draw a trial's settings: options of groups first, then the keys that those options have."""
    guess = trial.user_attrs.get(trials.GUESS)
    drawn: dict[str, Value] = {}

    def draw(dimensions: Any) -> None:
        for dimension in dimensions:
            if guess is None or dimension.key in guess:
                drawn[dimension.key] = dimension.draw(trial)

    draw(recipe.groups)
    draw(recipe.present(dict(drawn)))
    return drawn
