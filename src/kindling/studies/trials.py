"""The trials of a study; Optuna counts each attempt at one as a trial of its own.

A trial whose worker stopped or died is failed in Optuna's storage, and queued again as a new one
with the same settings, reported values and number. Everything here runs under the study's lock.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import optuna
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from src.kindling.studies.space import Value

# User attributes of a trial.
NUMBER, ATTEMPT, DEATHS = "number", "attempt", "deaths"
RUN, ERROR, GUESS = "run", "error", "guess"
MOST_DEATHS = 3  # a trial whose workers die this often is given up


def latest(study: Study) -> dict[int, FrozenTrial]:
    """Return the latest attempt of each trial, by number."""
    return dict(_numbered(study))


def _numbered(study: Study) -> Iterator[tuple[int, FrozenTrial]]:
    """Yield each attempt, in the order of their creation, with the number of its trial.

    Numbers count first attempts alone: 0, 1, 2, ...
    """
    count = 0
    for trial in study.get_trials(deepcopy=False):
        first = ATTEMPT not in trial.user_attrs
        yield count if first else int(trial.user_attrs[NUMBER]), trial
        count += first


@dataclass(frozen=True)
class Progress:
    """The progress of a study.

    Attributes:
        done: trials that have ended: completed, pruned or failed.
        complete: how many of those completed.
        running: trials that a worker trains.
        failed_in_a_row: how many of the latest to end have failed.
        error: the line of the latest failure.
    """

    done: int
    complete: int
    running: int
    failed_in_a_row: int
    error: str


def progress(attempts: dict[int, FrozenTrial]) -> Progress:
    """Return the progress of a study, from the latest attempt of each trial."""
    states = [trial.state for trial in attempts.values()]
    ended = [trial for trial in attempts.values() if trial.state.is_finished()]
    ended.sort(key=lambda trial: (trial.datetime_complete is not None, trial.datetime_complete))
    in_a_row = 0
    for trial in reversed(ended):
        if trial.state != TrialState.FAIL:
            break
        in_a_row += 1
    error = str(ended[-1].user_attrs.get(ERROR, "")) if in_a_row else ""
    return Progress(
        len(ended),
        states.count(TrialState.COMPLETE),
        states.count(TrialState.RUNNING),
        in_a_row,
        error,
    )


def take_up_lost(study: Study) -> dict[int, FrozenTrial]:
    """Queue the trials again whose workers died; return the latest attempt of each trial."""
    optuna.storages.fail_stale_trials(study)
    found = latest(study)
    lost = [n for n, t in found.items() if t.state == TrialState.FAIL and ERROR not in t.user_attrs]
    for number in lost:
        requeue(study, number, found[number], died=True)
    return latest(study) if lost else found


def requeue(study: Study, number: int, trial: FrozenTrial, died: bool) -> None:
    """Queue another attempt at a trial, from where the last one was left."""
    notes = dict(trial.user_attrs)
    notes[NUMBER], notes[ATTEMPT] = number, notes.get(ATTEMPT, 0) + 1
    notes[DEATHS] = notes.get(DEATHS, 0) + died
    begun = RUN in notes  # else all of its settings are drawn again, as they were
    state = TrialState.WAITING
    if notes[DEATHS] > MOST_DEATHS:
        state = TrialState.FAIL
        notes[ERROR] = f"its worker died {notes[DEATHS]} times"
    study.add_trial(
        optuna.create_trial(
            state=state,
            params=trial.params if begun else {},
            distributions=trial.distributions if begun else {},
            intermediate_values=trial.intermediate_values,
            user_attrs=notes,
            system_attrs=trial.system_attrs,
        )
    )


def reports(study: Study, number: int) -> dict[int, float]:
    """Return the values that all attempts at a trial have reported.

    An attempt that was taken for dead may report after another has begun.
    """
    mine = [trial for n, trial in _numbered(study) if n == number]
    return {step: value for t in mine for step, value in t.intermediate_values.items()}


def next_waiting(study: Study, attempts: dict[int, FrozenTrial]) -> tuple[int, dict[str, Any]]:
    """Return number and notes of the trial that Optuna starts next: the first that waits.

    If none waits, queue one: a trial that Optuna creates as running would be lost if its worker
    died before the first heartbeat.

    Args:
        study: the study.
        attempts: the latest attempt of each trial.
    """
    waiting = {t.number: n for n, t in attempts.items() if t.state == TrialState.WAITING}
    if waiting:
        number = waiting[min(waiting)]
        return number, attempts[number].user_attrs
    study.add_trial(optuna.create_trial(state=TrialState.WAITING))
    return len(attempts), {}


def add_guess(study: Study, guess: dict[str, Value]) -> None:
    """Queue a trial with these settings, unless the study has one; the recipe's may be empty."""
    if guess not in [trial.user_attrs.get(GUESS) for trial in study.get_trials(deepcopy=False)]:
        study.enqueue_trial(dict(guess), user_attrs={GUESS: dict(guess)})
