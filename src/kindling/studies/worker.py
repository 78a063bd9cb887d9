"""A worker trains one trial after the other until the study has all of its trials."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from optuna import Trial
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from src.kindling.errors import InputError
from src.kindling.process.requeue import requeue
from src.kindling.studies import processes, storage, trials
from src.kindling.studies.pruning import PrunedError
from src.kindling.studies.space import Dimension, Value
from src.kindling.studies.study import OpenStudy
from src.kindling.studies.trial_run import Metrics, failure, folder, say, trained

WAIT = 0.5  # seconds between two checks of a study whose last trials other workers train
MOST_LOST = 3  # times in a row that a server may be lost


class TrialFailedError(Exception):
    """A trial has failed; the study continues with the next one."""


class StudyFailedError(Exception):
    """Too many trials in a row have failed, or no trial is complete at the end."""


class Worker:
    """Trains trials of one study in this process, one after the other.

    Args:
        opened: the study.
    """

    def __init__(self, opened: OpenStudy) -> None:
        self.opened, self.study = opened, opened.study
        self._lost = 0
        self._until_drawn = contextlib.ExitStack()  # holds the lock while settings are drawn
        self._trial: Trial | None = None  # Optuna's, of the attempt that it trains
        self._number, self._notes = 0, dict[str, Any]()  # of the trial

    def work(self) -> None:
        """Train trials until all are done, by this worker or by others.

        Raises:
            StudyFailedError: the latest trials have all failed, or none is complete.
            Stopped: by a signal; the trial is saved, and queued again.
        """
        deadline = time.monotonic() + (self.opened.settings.timeout or float("inf"))
        parent = os.getppid()
        try:
            while time.monotonic() < deadline and self._may_be_more():
                if processes.WORKER in os.environ and os.getppid() != parent:
                    break  # the process that started this worker and shows its progress is gone
        except SystemExit:
            self._give_back()
            requeue()
            raise
        progress = trials.progress(trials.latest(self.study))
        if not progress.complete:
            why = f": {progress.error}" if progress.error else ""
            raise StudyFailedError(f"no trial is complete{why}")

    def _may_be_more(self) -> bool:
        """Take a trial; a server that was lost meanwhile may have restarted."""
        try:
            with storage.explained():
                more = self._take_a_trial()
        except storage.StorageLostError as lost:
            self._lost += 1
            if self.opened.url.startswith("sqlite") or self._lost > MOST_LOST:
                raise
            say(str(lost))
            return True
        self._lost = 0
        return more

    def _take_a_trial(self) -> bool:
        """Train one trial, or wait for those of others; say whether there may be more."""
        opened = self.opened
        with self._until_drawn as until_drawn:  # other workers wait until its settings are drawn
            until_drawn.enter_context(storage.locked(opened.url, opened.folder, patient=True))
            attempts = trials.take_up_lost(self.study)
            progress = trials.progress(attempts)
            if progress.failed_in_a_row >= opened.settings.max_failures:
                raise StudyFailedError(
                    f"the last {progress.failed_in_a_row} trials have failed: {progress.error}"
                )
            if progress.done + progress.running < opened.settings.trials:
                self._number, self._notes = trials.next_waiting(self.study, attempts)
                self._optimize()
                return True
        if progress.running:
            time.sleep(WAIT)
        return progress.running > 0

    def _optimize(self) -> None:
        """Let Optuna draw a trial, train it, and store how it ended."""
        self._trial = None
        self.study.sampler = self.opened.sampler(self._number)
        try:
            self.study.optimize(self._objective, n_trials=1, catch=(TrialFailedError,))
        except (ValueError, AssertionError, UpdateFinishedTrialError):
            if not self._is_taken_up():
                raise
            say("the trial was taken up by another worker: this one showed no sign of life")

    def _is_taken_up(self) -> bool:
        """Return whether another worker took this one for dead, such as on a suspended machine."""
        if self._trial is None:
            return False
        trial = self.study.get_trials(deepcopy=False)[self._trial.number]
        return trial.state == TrialState.FAIL and trials.ERROR not in trial.user_attrs

    def _objective(self, trial: Trial) -> list[float]:
        """Train a trial's run; return the values of its metrics."""
        self._trial = trial
        with self._outcomes(trial):
            drawn = self._drawn(trial)
            if trials.RUN not in self._notes:
                trial.set_user_attr(trials.RUN, folder(self.opened, self._number).name)
            self._until_drawn.close()
            metrics = trained(self.opened, trial, self._number, drawn)
            if trials.ATTEMPT in self._notes:
                for step, value in trials.reports(self.study, self._number).items():
                    trial.report(value, step)
            return self._values(trial, metrics)

    def _drawn(self, trial: Trial) -> dict[str, Value]:
        """Draw a trial's settings: options of groups first, then the keys that they have."""
        recipe, guess = self.opened.recipe, self._notes.get(trials.GUESS)
        drawn: dict[str, Value] = {}

        def draw(dimensions: Iterable[Dimension]) -> None:
            for dimension in dimensions:
                if guess is None or dimension.key in guess:
                    drawn[dimension.key] = dimension.draw(trial)

        draw(recipe.groups)
        draw(recipe.present(dict(drawn)))
        return drawn

    def _values(self, trial: Trial, metrics: Metrics) -> list[float]:
        """Return the metrics that are optimized; note by how much others exceed what is allowed."""
        definition = self.opened.definition
        for name in [*definition.metrics, *definition.constraints]:
            if name not in metrics:
                there = ", ".join(metrics)
                raise InputError(f"{name}: no such metric is logged; there are {there}")
        for name, largest in definition.constraints.items():
            trial.set_constraint(name, metrics[name] - largest)
        return [metrics[name] for name in definition.metrics]

    @contextlib.contextmanager
    def _outcomes(self, trial: Trial) -> Iterator[None]:
        """Say in a line how a trial ends, and note why it failed."""
        started = time.perf_counter()
        try:
            yield
        except PrunedError as pruned:
            say(f"trial {self._number}: {pruned}")
            raise
        except Exception as error:
            line = failure(error)
            trial.set_user_attr(trials.ERROR, line)
            say(f"trial {self._number}: failed: {line}")
            raise TrialFailedError(line) from error
        else:
            say(f"trial {self._number}: {time.perf_counter() - started:.1f} s")

    def _give_back(self) -> None:
        """Queue the trial again that a signal has stopped."""
        if self._trial is None:
            return
        with storage.locked(self.opened.url, self.opened.folder):
            trial = self.study.get_trials(deepcopy=False)[self._trial.number]
            if trial.state == TrialState.RUNNING:
                self.study.tell(trial.number, state=TrialState.FAIL)
                trials.requeue(self.study, self._number, trial, died=False)
