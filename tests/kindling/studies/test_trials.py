"""Numbers, attempts and progress of trials, on Optuna's storage in memory."""

import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from src.kindling.studies import pruning, storage, trials
from src.kindling.studies.study import quiet_optuna


@pytest.fixture
def study() -> optuna.Study:
    quiet_optuna()
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def attempt(study: optuna.Study, state: TrialState, **notes: object) -> int:
    """Make a trial end so; return its number as a user sees it."""
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    for key, value in notes.items():
        trial.set_user_attr(key, value)
    number = next(n for n, t in trials.latest(study).items() if t.number == trial.number)
    study.tell(trial, 1.0 if state == TrialState.COMPLETE else None, state=state)
    return number


def test_attempts_share_a_number_and_later_trials_count_on(study: optuna.Study) -> None:
    assert attempt(study, TrialState.COMPLETE) == 0
    assert attempt(study, TrialState.FAIL, run="trial-0001") == 1
    trials.take_up_lost(study)
    assert attempt(study, TrialState.COMPLETE) == 1  # the second attempt comes first
    assert attempt(study, TrialState.COMPLETE) == 2
    latest = trials.latest(study)
    assert {n: t.state for n, t in latest.items()} == dict.fromkeys(range(3), TrialState.COMPLETE)
    assert [t.number for t in latest.values()] == [0, 2, 3]


def test_another_attempt_has_the_settings_values_and_notes_of_the_last(study: optuna.Study) -> None:
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.report(0.5, 3)
    trial.set_user_attr("run", "trial-0000")
    study.tell(trial, state=TrialState.FAIL)
    trials.take_up_lost(study)
    again = study.trials[-1]
    assert again.state == TrialState.WAITING
    assert again.params == study.trials[0].params
    assert again.intermediate_values == {3: 0.5}
    assert again.user_attrs == {"run": "trial-0000", "number": 0, "attempt": 1, "deaths": 1}


def test_settings_are_drawn_again_if_the_worker_died_while_drawing(study: optuna.Study) -> None:
    attempt(study, TrialState.FAIL)
    trials.take_up_lost(study)
    assert study.trials[-1].params == {}


def test_a_failed_trial_is_not_taken_up_and_a_taken_up_one_only_once(study: optuna.Study) -> None:
    attempt(study, TrialState.FAIL, error="ValueError: no")
    attempt(study, TrialState.FAIL, run="trial-0001")
    for _ in range(3):
        trials.take_up_lost(study)
    assert [t.state.name for t in study.trials] == ["FAIL", "FAIL", "WAITING"]


def test_a_trial_that_ends_its_worker_again_and_again_is_given_up(study: optuna.Study) -> None:
    attempt(study, TrialState.FAIL, run="trial-0000")
    for _ in range(trials.MOST_DEATHS):
        trials.take_up_lost(study)
        attempt(study, TrialState.FAIL)
    trials.take_up_lost(study)
    trials.take_up_lost(study)
    progress = trials.progress(trials.latest(study))
    assert (progress.done, len(study.trials)) == (1, trials.MOST_DEATHS + 2)
    assert progress.error == "its worker died 4 times"


def test_a_stop_is_not_a_death(study: optuna.Study) -> None:
    for _ in range(2 * trials.MOST_DEATHS):
        attempt(study, TrialState.FAIL, run="trial-0000")
        trials.requeue(study, 0, study.trials[-1], died=False)
    assert trials.take_up_lost(study)[0].state == TrialState.WAITING


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")  # no thread: the worker dies at once
def test_a_trial_whose_worker_dies_before_its_first_heartbeat_is_taken_up(tmp_path: Path) -> None:
    quiet_optuna()
    place = storage.opened(f"sqlite:///{tmp_path}/study.db", tmp_path, 1)
    place.grace_period = 0
    stored = optuna.create_study(storage=place)
    trials.next_waiting(stored, {})
    stored.ask()
    time.sleep(1.1)  # SQLite's clock counts seconds
    assert trials.take_up_lost(stored)[0].state == TrialState.WAITING
    place.engine.dispose()


def test_progress_counts_failures_since_the_last_success(study: optuna.Study) -> None:
    attempt(study, TrialState.FAIL, error="first")
    attempt(study, TrialState.COMPLETE)
    attempt(study, TrialState.FAIL, error="second")
    attempt(study, TrialState.FAIL, error="third")
    study.ask()
    study.enqueue_trial({"x": 0.5})
    assert trials.progress(trials.latest(study)) == trials.Progress(4, 1, 1, 2, "third")


def test_a_stream_without_a_length_reports_its_epochs() -> None:
    trainer: Any = SimpleNamespace(num_training_batches=math.inf, current_epoch=3)
    assert pruning._epochs(trainer) == 4
