"""A study from its command line to its end, in one process and with one worker."""

import gc
import importlib.util
import json
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import optuna
import pytest
import sqlalchemy
import torch
import yaml

from src.kindling.files.run_lock import HeldError
from src.kindling.process import signals
from src.kindling.studies import start, storage, trial_run, trials
from tests.conftest import has_command
from tests.kindling.cli.test_command import Typed, typed  # noqa: F401 - a fixture
from tests.kindling.conftest import Command

QUICK = (
    "model=line", "trainer.max_epochs=20", "callbacks.checkpointing.monitor=train/loss",
    "~callbacks.figures", "logger=csv",
)  # fmt: skip
RATES = "optimizer.lr=tag(log, interval(1e-3, 0.5))"


def state(study: Any) -> list[Any]:
    """Return what a study has drawn and measured, trial by trial."""
    latest = trials.latest(study)
    return [
        (number, trial.params, trial.values, trial.intermediate_values, trial.state)
        for number, trial in sorted(latest.items())
    ]


def weights(run: Path) -> list[float]:
    held = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return [value for tensor in held.values() for value in tensor.flatten().tolist()]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the log_dir of a study of seven trials, and what its command printed."""
    log_dir = tmp_path_factory.mktemp("study")
    words = ("study.name=rates", *QUICK, RATES, "study.trials=7")
    return log_dir, Command(log_dir).here("study", *words)


def test_every_trial_is_an_ordinary_run_that_says_whose_it_is(done: Any, load: Any) -> None:
    log_dir, _ = done
    folder = log_dir / "study" / "rates"
    runs = sorted(folder.glob("trial-*"))
    assert [run.name for run in runs] == [f"trial-{n:04d}" for n in range(7)]
    study = load("rates", log_dir)
    for number, trial in trials.latest(study).items():
        record = json.loads((runs[number] / "run.json").read_text())
        status = {"COMPLETE": "finished", "PRUNED": "pruned"}[trial.state.name]
        assert (record["study"], record["trial"], record["status"]) == ("rates", number, status)
        metrics = json.loads((runs[number] / "metrics.json").read_text())
        assert trial.value == metrics["train/loss"]
        assert (runs[number] / "checkpoints" / "best.ckpt").is_file()
        assert (runs[number] / "metrics.csv").is_file()
    assert not (log_dir / "latest").exists()  # that is for runs of src.train


def test_trial_0_is_the_recipe_and_trial_n_trains_with_the_seed_n(done: Any, load: Any) -> None:
    log_dir, _ = done
    assert load("rates", log_dir).trials[0].params == {"optimizer.lr": 0.1}
    configs = [
        log_dir / "study" / "rates" / f"trial-{number:04d}" / "config.yaml" for number in range(7)
    ]
    assert [yaml.safe_load(path.read_text())["seed"] for path in configs] == list(range(7))


def test_a_trial_is_the_run_that_its_command_trains(done: Any, command: Command) -> None:
    log_dir, _ = done
    run = log_dir / "study" / "rates" / "trial-0000"
    command.here("train", *QUICK, "optimizer.lr=0.1", "seed=0")
    assert weights(run) == weights(command.latest)


def test_the_summary_names_the_best_and_the_command_that_trains_it_longer(done: Any) -> None:
    _, printed = done
    assert "study rates: 7 trials:" in printed
    assert re.search(r"python -m src\.train --config-dir=.* log_dir=.* model=line", printed)
    assert "trainer.max_epochs=40" in printed
    assert "importance for train/loss: optimizer.lr 100%" in printed


def test_a_study_with_one_worker_repeats_bit_for_bit(
    done: Any, command: Command, load: Any
) -> None:
    log_dir, _ = done
    command.here("study", "study.name=rates", *QUICK, RATES, "study.trials=4")
    assert state(load("rates")) == state(load("rates", log_dir))[:4]
    for number in range(4):
        run = Path("study") / "rates" / f"trial-{number:04d}"
        assert weights(command.log_dir / run) == weights(log_dir / run)


def test_a_study_that_is_continued_is_the_same_as_one_that_never_stopped(
    done: Any, command: Command, load: Any
) -> None:
    log_dir, _ = done
    command.here("study", "study.name=rates", *QUICK, RATES, "study.trials=2")
    command.here("study", "study.name=rates", "study.trials=6")  # knows the rest
    assert state(load("rates")) == state(load("rates", log_dir))[:6]


def test_a_trial_leaves_nothing_in_the_memory_of_its_worker(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []

    def fit(*arguments: Any, **named: Any) -> None:
        fit_of_lightning(*arguments, **named)
        gc.collect()
        kinds = [type(o) for o in gc.get_objects() if isinstance(o, type | re.Pattern | pl.Trainer)]
        held.append((len(warnings.filters), Counter(kind.__name__ for kind in kinds)))

    fit_of_lightning = pl.Trainer.fit
    monkeypatch.setattr(pl.Trainer, "fit", fit)
    words = ("model=line", "trainer.max_epochs=1", "~callbacks.figures", RATES, "study.trials=5")
    command.here("study", "study.name=m", *words)
    (filters, before), *_, (filters_later, after) = held[3:]
    assert filters_later == filters
    # torch keeps a class of each layer that it has traced for the Graphs tab.
    assert after - before in (Counter(), Counter(type=len(held[4:])))


def test_a_worker_that_was_taken_for_dead_leaves_its_trial_to_another(
    done: Any, command: Command, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, calls = trial_run.train, list[str]()

    def resumed(settings: Any, path: Path, *rest: Any) -> Any:
        calls.append(path.name)
        if calls.count("trial-0001") == 1:  # suspended, say, for longer than three heartbeats
            other = load("rates")
            other.tell(1, state=optuna.trial.TrialState.FAIL)
            trials.take_up_lost(other)
        if calls.count("trial-0001") == 2:
            raise HeldError("another process is training this run")
        return train(settings, path, *rest)

    monkeypatch.setattr(trial_run, "train", resumed)
    printed = command.here("study", "study.name=rates", *QUICK, RATES, "study.trials=4")
    assert calls == [f"trial-000{number}" for number in (0, 1, 1, 1, 2, 3)]
    assert "the trial was taken up by another worker" in printed
    assert printed.count("trial-0001: waiting for the process that holds this run") == 1
    assert state(load("rates")) == state(load("rates", done[0]))[:4]


@pytest.mark.parametrize("url", ["postgresql+psycopg://x", "sqlite:///x"])
def test_a_server_may_be_lost_and_return_and_a_file_may_not(url: str) -> None:
    from src.kindling.studies.worker import MOST_LOST, Worker

    opened: Any = SimpleNamespace(study=None, url=url)
    made = Worker(opened)
    lost = sqlalchemy.exc.OperationalError("commit", {}, Exception("server closed"))
    with mock.patch.object(made, "_take_a_trial", side_effect=lost):
        for _ in range(MOST_LOST if url.startswith("postgresql") else 0):
            assert made._may_be_more()
        with pytest.raises(storage.StorageLostError, match="storage: server closed; the same comm"):
            made._may_be_more()


def test_the_reason_of_a_lost_storage_is_found_under_the_assertion_of_optuna() -> None:
    def tell() -> None:
        try:
            full = sqlalchemy.exc.OperationalError("commit", {}, Exception("disk is full"))
            raise optuna.exceptions.StorageInternalError("invalid data, say") from full
        finally:
            raise AssertionError("Should not reach.")

    with (
        pytest.raises(storage.StorageLostError, match="storage: disk is full"),
        storage.explained(),
    ):
        tell()
    with pytest.raises(AssertionError, match="ours"), storage.explained():
        raise AssertionError("ours")


def test_a_study_whose_folder_is_renamed_is_named(done: Any, typed: Typed) -> None:  # noqa: F811
    log_dir, _ = done
    shutil.copytree(log_dir / "study" / "rates", log_dir / "study" / "other")
    said = typed("study", f"log_dir={log_dir}", "study.name=other", "study.trials=0")
    assert said == "error: study.name=other: its database is that of study.name=rates\n"


def test_another_study_seed_draws_other_settings(done: Any, command: Command, load: Any) -> None:
    log_dir, _ = done
    command.here("study", "study.name=rates", *QUICK, RATES, "study.trials=2", "study.seed=1")
    assert load("rates").trials[0].params == {"optimizer.lr": 0.1}
    assert load("rates").trials[1].params != load("rates", log_dir).trials[1].params


def test_trials_0_shows_the_state_and_trains_nothing(done: Any, load: Any) -> None:
    log_dir, _ = done
    before = state(load("rates", log_dir))
    printed = Command(log_dir).here("study", "study.name=rates", "study.trials=0")
    assert "study rates: 7 trials:" in printed
    assert state(load("rates", log_dir)) == before


def test_a_pruned_trial_can_be_evaluated_and_resumed(done: Any, tmp_path: Path) -> None:
    log_dir, _ = done
    folder = tmp_path / "study" / "rates"
    shutil.copytree(log_dir / "study" / "rates", folder)
    pruned = [
        run
        for run in sorted(folder.glob("trial-*"))
        if json.loads((run / "run.json").read_text())["status"] == "pruned"
    ]
    assert pruned
    command = Command(tmp_path)
    assert "test/loss" in command.here("evaluate", f"run={pruned[0]}")
    command.here("train", f"resume={pruned[0]}")
    assert json.loads((pruned[0] / "run.json").read_text())["status"] == "finished"


def test_conditional_keys_follow_the_options_that_are_drawn(command: Command, load: Any) -> None:
    command.here(
        "study", *QUICK, "study.trials=6", "study/sampler=random", "study/pruner=none",
        "optimizer=choice(sgd,momentum)", "optimizer.momentum=interval(0,0.9)",
        "optimizer.lr=tag(log, interval(1e-3,5e-2))",
    )  # fmt: skip
    found = load("line")  # the model's name
    drawn = [trial.params for trial in found.trials]
    assert {p["optimizer"] for p in drawn} == {"sgd", "momentum"}
    assert all(("optimizer.momentum" in p) == (p["optimizer"] == "momentum") for p in drawn[1:])
    assert drawn[0] == {"optimizer": "sgd"}  # the recipe's lr of 0.1 is outside of the space


@pytest.mark.parametrize(
    "sampler",
    [
        *("random", "cma_es", "nsga2"),
        *(pytest.param(name, marks=pytest.mark.services) for name in ("gp", "quasi_random")),
    ],
)
def test_other_samplers_draw_within_the_space(command: Command, load: Any, sampler: str) -> None:
    words = ("study.name=s", *QUICK, RATES, "study.trials=4", f"study/sampler={sampler}")
    command.here("study", *words, "trainer.max_epochs=2")
    drawn = [trial.params["optimizer.lr"] for trial in load("s").trials]
    assert len(set(drawn)) == 4
    assert all(1e-3 <= lr <= 0.5 for lr in drawn)


@pytest.mark.parametrize("choice", ["sampler=gp", "sampler=quasi_random", "pruner=wilcoxon"])
def test_what_needs_scipy_is_refused_where_it_is_missing(
    choice: str,
    typed: Typed,  # noqa: F811
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    missing = lambda name, *rest: None if name == "scipy" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", missing)
    said = typed("study", *QUICK, RATES, f"study/{choice}", f"log_dir={command.log_dir}")
    assert said == f"error: study/{choice} needs SciPy; pip install scipy\n"
    assert not command.log_dir.exists()


@pytest.mark.parametrize("pruner", ["asha", "hyperband"])
def test_other_pruners_stop_trials_early(command: Command, load: Any, pruner: str) -> None:
    words = ("study.name=p", *QUICK, "optimizer.lr=tag(log, interval(1e-6, 0.5))")
    own = {"asha": "study.pruner.min_resource=2", "hyperband": "study.pruner.max_resource=20"}
    choice = ("study/sampler=random", f"study/pruner={pruner}", own[pruner], "study.trials=10")
    command.here("study", *words, *choice, "study.confirm=1", "study.confirm_top=9")
    found = trials.latest(load("p"))
    confirmed = {path.name for path in (command.log_dir / "study/p/confirm").glob("trial-*")}
    complete = [number for number, trial in found.items() if trial.state.name == "COMPLETE"]
    assert confirmed == {f"trial-{number:04d}" for number in complete}  # the recipe among them
    pruned = [trial for trial in found.values() if trial.state.name == "PRUNED"]
    assert pruned
    assert {trial.state.name for trial in found.values()} == {"COMPLETE", "PRUNED"}
    assert all(0 < max(trial.intermediate_values) < 20 for trial in pruned)
    runs = [trial.user_attrs["run"] for _, trial in sorted(found.items())]
    assert runs == [f"trial-{number:04d}" for number in range(10)]  # each has its own


SEEDS = ("study.name=s", *QUICK, RATES, "trainer.max_epochs=3", "study.trials=2", "study.seeds=2")


def test_a_trial_of_several_seeds_has_the_mean_of_its_runs(command: Command, load: Any) -> None:
    command.here("study", *SEEDS, "study.seed=7")
    folder = command.log_dir / "study" / "s"
    for number, trial in trials.latest(load("s")).items():
        runs = [folder / f"trial-{number:04d}" / f"seed-{seed}" for seed in (7, 8)]
        losses = [json.loads((run / "metrics.json").read_text())["train/loss"] for run in runs]
        assert losses[0] != losses[1]
        assert trial.values == [pytest.approx(sum(losses) / 2, rel=1e-12)]
        assert trial.intermediate_values == dict(enumerate(losses))
        assert {json.loads((run / "run.json").read_text())["trial"] for run in runs} == {number}


def test_a_trial_stopped_between_its_seeds_keeps_the_runs_that_are_done(
    command: Command, load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = Command(tmp_path / "whole")
    whole.here("study", *SEEDS)
    train, begun = trial_run.train, []

    def stopped(settings: Any, path: Path, *rest: Any) -> Any:
        begun.append(path.name)
        if len(begun) == 4:  # the second run of the second trial
            raise SystemExit(130)
        return train(settings, path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(trial_run, "train", stopped)
        with pytest.raises(SystemExit):
            command.here("study", *SEEDS)
    kept = command.log_dir / "study" / "s" / "trial-0001" / "seed-0" / "checkpoints" / "last.ckpt"
    written = kept.stat().st_mtime_ns
    command.here("study", "study.name=s", "study.trials=2")
    assert kept.stat().st_mtime_ns == written
    assert state(load("s")) == state(load("s", whole.log_dir))


@pytest.mark.services
def test_wilcoxon_stops_a_trial_after_some_of_its_seeds(command: Command, load: Any) -> None:
    words = [*SEEDS, "study.seeds=8", "study.trials=4", "study/sampler=random"]
    words[words.index(RATES)] = "optimizer.lr=interval(1e-6, 1e-5)"
    command.here("study", *words, "study/pruner=wilcoxon")
    found = trials.latest(load("s"))
    assert found[0].state.name == "COMPLETE"  # the recipe, which is far better
    assert {found[number].state.name for number in (1, 2, 3)} == {"PRUNED"}
    assert all(2 <= len(found[number].intermediate_values) < 8 for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        pytest.param(
            ["study/pruner=wilcoxon"],
            "it compares seeds: set study.seeds=5, say",
            marks=pytest.mark.services,
        ),
        (["study.seeds=3", "seed=1"], "seed= fixes the seed of every run; leave it out"),
        (["study.seeds=0"], "study.seeds=0: must be greater than 0"),
    ],
)
def test_seeds_that_could_not_be_compared_are_refused(
    words: list[str],
    line: str,
    command: Command,
    typed: Typed,  # noqa: F811
) -> None:
    said = typed("study", *QUICK, RATES, *words, f"log_dir={command.log_dir}")
    assert line in said
    assert not command.log_dir.exists()


def test_a_grid_visits_each_value_once(command: Command, load: Any) -> None:
    words = (*QUICK, "optimizer.lr=choice(0.1,0.2,0.3)", "trainer.max_epochs=2")
    command.here("study", "study.name=g", *words, "study/sampler=grid", "study.trials=4")
    drawn = [trial.params["optimizer.lr"] for trial in load("g").trials]
    assert drawn[0] == 0.1  # the recipe
    assert sorted(drawn[1:]) == [0.1, 0.2, 0.3]


def test_several_metrics_are_optimized_together(command: Command, load: Any) -> None:
    printed = command.here(
        "study", "study.name=m", *QUICK, RATES, "trainer.max_epochs=3", "study.trials=3",
        "trainer.check_val_every_n_epoch=1",
        "study.metric=[val/loss,train/samples_per_second]",
    )  # fmt: skip
    study = load("m")
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert "val/loss" in printed
    assert "train/samples_per_second" in printed


def test_constraints_decide_which_trials_may_be_best(command: Command, load: Any) -> None:
    printed = command.here(
        "study", "study.name=c", *QUICK, RATES, "study.trials=3", "study/pruner=none",
        "study.constraints=['train/lr<=0.05']",
    )  # fmt: skip
    trials_ = load("c").trials
    assert [t.constraints["train/lr"] for t in trials_] == pytest.approx(
        [t.params["optimizer.lr"] - 0.05 for t in trials_]
    )
    best = printed.partition("optimizer.lr\n")[2].split()[0]
    assert trials_[int(best)].params["optimizer.lr"] <= 0.05
    none = command.here(
        "study", "study.name=n", *QUICK, RATES, "study.trials=1",
        "study.constraints=['train/lr<=0']",
    )  # fmt: skip
    assert none == "".join(re.findall(".*trial 0: .*\n", none)) + (
        "study n: 1 trial: 1 complete\nno trial keeps study.constraints\n"
    )


def test_guesses_and_a_space_in_settings_come_after_the_recipe(command: Command, load: Any) -> None:
    words = ("study", "study.name=y")
    command.here(
        *words, "study.trials=2", "trainer.max_epochs=2",
        "study.overrides=['model=line','logger=csv','optimizer.lr=interval(0,1)']",
        "study.guesses=[{},{optimizer.lr: 0.25},{optimizer.lr: 0.25},{optimizer.lr: 0.1}]",
    )  # fmt: skip
    assert [t.params["optimizer.lr"] for t in load("y").trials] == [0.1, 0.25]  # each once
    later = "study.guesses=[{optimizer.lr:0.25},{optimizer.lr:0.5},{optimizer.lr:0.6}]"
    for _ in range(2):
        command.here(*words, "study.trials=3", later)  # one more than there are trials
    found = load("y").trials
    assert [t.state.name for t in found] == ["COMPLETE"] * 3 + ["WAITING"]
    assert found[2].params["optimizer.lr"] == 0.5
    command.here(*words, "study.trials=5", later)
    assert load("y").trials[3].params["optimizer.lr"] == 0.6
    assert load("y").trials[4].params["optimizer.lr"] not in (0.1, 0.25, 0.5, 0.6)


def test_a_failing_trial_is_recorded_with_its_line_and_the_study_continues(
    command: Command, load: Any
) -> None:
    words = ("study.name=f", *QUICK, "study.trials=6", "study/sampler=random", "study/pruner=none")
    # A batch of more rows than there are is fine; a model that is too wide for memory is not.
    printed = command.here("study", *words, "optimizer.lr=choice(0.3,1e200)")
    states = [trial.state.name for trial in load("f").trials]
    assert set(states) == {"COMPLETE", "FAIL"}
    failed = next(trial for trial in load("f").trials if trial.state.name == "FAIL")
    assert failed.user_attrs["error"]
    assert f"failed: {failed.user_attrs['error']}" in printed


def test_too_many_failures_in_a_row_end_the_study(command: Command, load: Any) -> None:
    done = command(
        "study", "study.name=f", *QUICK, "optimizer.lr=choice(1e200,1e201)", "study.trials=9",
        status=1,
    )  # fmt: skip
    assert "the last 3 trials have failed" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert len(load("f").trials) in (3, 4)


def test_a_study_in_which_no_trial_is_complete_has_failed(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("study.name=f", *QUICK, "optimizer.lr=1e200", "data.noise=interval(5,6)")
    with pytest.raises(SystemExit) as stop:
        command.here("study", *words, "study.trials=1")
    assert stop.value.code == 1
    assert "error: StudyFailedError: no trial is complete: " in capsys.readouterr().err
    printed = command.here("study", "study.name=f", "study.trials=0")
    assert printed == "study f: 1 trial: 1 failed\nno trial is complete yet\n"


def test_a_stopped_study_prints_its_own_command_without_a_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["study.storage=postgresql://me:word@host/db", "study/sampler=random", "x=choice(1, 2)"]
    with pytest.raises(SystemExit), start._continuable(words):
        raise signals.Stopped(2, "stopped")
    told = capsys.readouterr().out
    assert told.endswith("src.study 'study.storage=***' study/sampler=random 'x=choice(1, 2)'\n")


WRONG = {
    "optimizer.lr=interval(1,0)": "optimizer.lr=interval(1,0): an interval goes from",
    "optimizer.momentum=interval(0,1)": "optimizer.momentum: there is no such key",
    "optimizer=interval(0,1)": "optimizer is a group; choice(...) draws one of its options",
    "optimizer=choice(sgd,choice(adam,adamw))": "a choice is between values, not between search",
    "optimizer.lr=interval(0,1) optimizer.lr=3": "optimizer.lr=3: optimizer.lr is searched, and",
    "optimizer.lr=3 optimizer.lr=interval(0,1)": "optimizer.lr is searched, and given twice",
    "study.seed=choice(1,2)": "study.seed=choice(1,2): only the settings of src.train are searched",
    "study.pruner=none": "study.pruner=none: choose an option: study/pruner=...",
    "study.metric=[]": "study.metric=: choose settings by a metric",
    "study.metric=[val/loss,val/loss]": "study.metric: val/loss is named twice",
    "study.constraints=['train/loss<=nan']": "study.constraints=train/loss<=nan: write a metric",
    "study/sampler=cma_es study.metric=[train/loss,val/loss]": "cma_es: it optimizes one metric",
    "study.trails=3": "study.trails: there is no such key: did you mean 'study.trials'?",
    "study.trials=x": "study.trials=x: must be a valid integer",
    "study.name=a/b": "study.name=a/b: use letters, digits",
    f"study.name={'a' * 101}": "at most 100",
    "study.pruner.n_warmup_steps=-1": "study.pruner.n_warmup_steps=-1: must be greater than or",
    "study.sampler.n_ei_candidates=0": "study.sampler.n_ei_candidates=0: must be greater than 0",
    "study/pruner=hyperband study.pruner.max_resource=0": "max_resource=0: must be greater than 0",
    "study.storage=postgresql://me:word@host:port/db": "study.storage: not an address such as",
    "study.metric=test/loss": "study.metric=test/loss: choose settings by a metric of train/",
    "study.metric=val/los": "study.metric=val/los: no run logs it: did you mean 'val/loss'?",
    "study.sampler.n_startup=3": "did you mean 'study.sampler.n_startup_trials'?",
    "study/sampler=tpee": "study/sampler=tpee: there is no such option: did you mean 'tpe'?",
    "study/sampler=grid": "a grid needs choice(...) or range(...), not an interval",
    "study.storage=mysql://x": "choose null (SQLite) or postgresql://",
    "init_from=nowhere": "nowhere: there is no such run directory",
    "callbacks.checkpointing.monitor=train/los": "no such metric is logged: did you mean 'train/l",
    "trainer=choice(cpu,ddp_cpu)": "trains in one process, trainer.devices=1; a run of several"
    " processes needs a command of its own (with trainer=ddp_cpu)",
    "trainer.devices=choice(1,2)": "needs a command of its own (with trainer.devices=2)",
    "study.constraints=['train/los<=1']": "study.constraints=train/los: no run logs it: did you",
    "study.guesses=[{optimizer.lr: 7}]": "study.guesses: optimizer.lr=7 is not in",
    "study.trials=0": "there is no such study",
    "optimizer.foo=3": "optimizer.foo: there is no such key",
    "resume=latest": "resume: a study continues by itself",
    "init_from=https://me:word@host/a": "init_from: looks like a secret, and a study stores its",
    "study.constraints=[lr]": "study.constraints=lr: write a metric and its largest value",
    "study.metric=val/loss trainer.max_epochs=3": "study.metric=val/loss: no run logs it",
    "study.mode=[min,max]": "study.mode: 2 for 1 metrics",
    "trainer=ddp_cpu": "trainer: each run of a --multirun or a study trains in one process",
}


@pytest.mark.parametrize("word", WRONG)
def test_bad_input_is_one_line_and_nothing_on_disk(typed: Typed, word: str) -> None:  # noqa: F811
    rates = [] if word.startswith("optimizer.lr") else [RATES]
    assert WRONG[word] in typed("study", *QUICK, *rates, *re.split(" (?=[a-z._]+=)", word))


def test_a_study_is_joined_by_its_name_and_differences_are_refused(
    done: Any,
    typed: Typed,  # noqa: F811
) -> None:
    log_dir, _ = done
    words = ("study", f"log_dir={log_dir}", "study.name=rates", "study.trials=0")
    other = typed(*words, *QUICK, "optimizer.lr=interval(0,1)")
    assert "optimizer.lr: tag(log, interval(1e-3, 0.5)) -> interval(0,1)" in other
    assert "cannot be compared" in other
    range_ = typed(*words, *QUICK, "optimizer.lr=tag(log, interval(1e-3, 0.4))")
    assert "study.allow_changes=true" in range_
    recipe = typed(*words, "model=quadrants", RATES)
    assert "study.overrides:" in recipe
    metric = typed(*words, "study.metric=val/loss")
    assert "study.metrics: train/loss -> val/loss" in metric


def test_a_changed_range_is_continued_if_allowed(
    command: Command, load: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("study.name=r", *QUICK, "trainer.max_epochs=2", "study.allow_changes=true")
    command.here("study", *words, "optimizer.lr=interval(0.1,0.4)", "study.trials=2")
    command.here("study", *words, "optimizer.lr=interval(0.5,0.6)", "study.trials=3")
    assert load("r").trials[2].params["optimizer.lr"] >= 0.5
    with pytest.raises(SystemExit):
        command.here("study", *words, "trainer.devices=choice(1,2)", "study.trials=4")
    assert "in one process" in capsys.readouterr().err
    assert len(load("r").trials) == 3


def test_a_metric_that_is_not_validated_falls_back_to_the_training_loss(
    command: Command, load: Callable[..., Any]
) -> None:
    words = ("model=teacher", "data.targets=random", "trainer.max_epochs=1", "logger=csv")
    command.here("study", "study.name=n", *words, "optimizer.lr=interval(1e-5,1e-4)",
                 "study.trials=1", "~callbacks.figures")  # fmt: skip
    assert load("n").metric_names == ["train/loss"]


def test_the_best_and_the_recipe_are_trained_again_with_other_seeds_and_compared(
    command: Command,
) -> None:
    words = ("study.name=c", *QUICK, RATES, "study.trials=3", "study/pruner=none")
    printed = command.here("study", *words, "study.confirm=2", "study.confirm_top=1")
    runs = sorted((command.log_dir / "study" / "c" / "confirm").glob("trial-*/seed-*"))
    assert {run.name for run in runs} == {"seed-100000", "seed-100001"}
    assert (runs[0].parent.name, len(runs)) in (("trial-0000", 2), ("trial-0000", 4))
    for run in runs:
        assert yaml.safe_load((run / "config.yaml").read_text())["seed"] == int(run.name[5:])
    assert ("best first, by the lowest train/loss" in printed) == has_command("compare")
    starts = [json.loads((run / "run.json").read_text())["start"] for run in runs]
    command.here("study", "study.name=c", "study.trials=3", "study.confirm=2",
                 "study.confirm_top=1")  # fmt: skip
    assert [json.loads((run / "run.json").read_text())["start"] for run in runs] == starts
