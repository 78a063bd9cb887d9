"""A sweep counts its failed jobs, in whatever process, and is completed after it was killed."""

import json
import multiprocessing
import os
import pickle
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra._internal.hydra import Hydra
from hydra.types import RunMode

from src.kindling.cli import arguments, sweep
from src.kindling.errors import InputError
from src.kindling.files import run_directory, sweep_links
from src.kindling.process import signals
from src.kindling.training.run import _run_of_job
from tests.forked import Forked
from tests.kindling import examples


@pytest.fixture
def multirun(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job of a sweep sees of Hydra's configuration."""
    config = SimpleNamespace(get=lambda: SimpleNamespace(mode=RunMode.MULTIRUN))
    monkeypatch.setattr(sweep, "HydraConfig", config)


@pytest.mark.usefixtures("multirun")
@pytest.mark.parametrize("status", [1, 2, 143])
def test_a_failure_in_a_launchers_process_ends_the_sweep_with_its_status(
    status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = sweep.Failures()
    failures.process = -1  # that the sweep began in
    with pytest.raises(sweep.JobFailedError) as raised, failures.job():
        raise SystemExit(status)
    brought = pickle.loads(pickle.dumps(raised.value))  # as a launcher brings it back
    with failures:
        raise brought
    with pytest.raises(SystemExit) as stop:
        failures.exit()
    assert stop.value.code == status
    assert capsys.readouterr().err.startswith("error: a job failed")


@pytest.mark.usefixtures("multirun")
def test_a_failure_in_the_sweeps_own_process_leaves_the_others_their_turn() -> None:
    failures = sweep.Failures()
    for code in (1, 0, 1):
        with failures.job():
            if code:
                raise SystemExit(code)
    with pytest.raises(SystemExit) as stop:
        failures.exit()
    assert stop.value.code == 1


@pytest.mark.usefixtures("multirun")
def test_bad_input_in_the_sweeps_own_process_ends_it_at_once() -> None:
    with pytest.raises(SystemExit) as stop, sweep.Failures().job():
        raise SystemExit(2)
    assert stop.value.code == 2


def test_without_failures_nothing_ends() -> None:
    sweep.Failures().exit()


REFUSED = {
    "seed=glob(*)": r"no option matches",
    "optimizer=glob(none_of_them*)": r"no option matches",
    "seed=1,2 seed=3": r"^seed=1,2: give the values of seed at once",
    "seed=1 seed=2,3": r"^seed=2,3: give the values of seed at once",
    "optimizer.lr=interval(0.1,1)": r"--multirun takes choice\(...\) and range\(...\); src.study",
}


@pytest.mark.parametrize("typed", REFUSED)
def test_a_sweep_that_would_train_nothing_or_less_than_it_says_is_refused(typed: str) -> None:
    with pytest.raises(InputError, match=REFUSED[typed]):
        sweep.check("train", ["-m", f"--config-dir={examples.CONF}", "model=line", *typed.split()])


@pytest.mark.parametrize(
    ("words", "several"),
    [
        (["-m", "seed=1,2"], True),
        (["seed=1,2", "--multirun"], True),
        (["hydra.mode=MULTIRUN", "seed=1,2", "model=line"], True),
        (["hydra.mode=RUN"], False),
        (["seed=1"], False),
        (["--help"], False),
    ],
)
def test_a_sweep_is_recognized_however_it_is_asked_for(words: list[str], several: bool) -> None:
    assert sweep.is_asked_for("train", words) is several


def test_hydra_composes_a_configuration_only_for_a_mode_that_is_named() -> None:
    several = Hydra.get_mode(None, config_name="train", overrides=["hydra.mode=MULTIRUN"])
    assert several == RunMode.MULTIRUN
    assert Hydra.get_mode(None, config_name="there_is_none", overrides=["seed=1"]) is None


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (
            ["seed=1,2", "model=line", "-m", "--config-dir=x"],
            "-m --config-dir=x seed=1,2 model=line",
        ),
        (["-m", "--config-dir", "x", "seed=1"], "-m --config-dir x seed=1"),
        (["-m", "seed=1", "--config-dir", "x"], "-m --config-dir x seed=1"),
        (["seed=1", "--info"], "seed=1 --info"),  # `--info seed=1` is another command
        (["-m"], "-m"),
    ],
)
def test_flags_come_before_the_settings_to_which_others_are_appended(
    typed: list[str], words: str
) -> None:
    assert arguments.flags_first(typed) == words.split()


def die_in_the_second_run() -> None:
    """Have the second run of this process end by SIGKILL after its second checkpoint."""
    from src.kindling.callbacks.checkpointing import Checkpointing

    save, saved = Checkpointing._save, list[Any]()

    def killing(callback: Any, trainer: Any) -> None:
        save(callback, trainer)
        saved.append(trainer)
        if saved.count(trainer) == 2 and trainer is not saved[0]:
            trainer.strategy.checkpoint_io.finish()
            os.kill(os.getpid(), signal.SIGKILL)

    Checkpointing._save = killing  # type: ignore[method-assign]


def test_the_same_command_completes_a_sweep_that_was_killed(tmp_path: Path) -> None:
    words = ("-m", "model=line", "seed=1,2,3", "trainer.max_epochs=40", "logger=csv")
    killed = Forked(tmp_path, "train", *words, first=die_in_the_second_run)
    assert killed.wait() == -signal.SIGKILL
    started = set(killed.logs.glob("train/line/*"))
    [done, half] = sorted(started, key=lambda run: not (run / "metrics.json").exists())
    again = Forked(tmp_path, "train", *words)
    assert again.wait() == 0
    [new] = set(killed.logs.glob("train/line/*")) - started
    first, *lines = [
        line for line in again.out.splitlines() if line.startswith(("cont", "/", "line:"))
    ]
    assert first.startswith(f"continuing the sweep of {killed.logs}/sweep/")
    assert lines == [
        f"{done} is done: skipped",
        f"line: continuing in {half}",
        f"line: run directory {new}",
    ]
    records = [json.loads((run / "run.json").read_text()) for run in (done, half, new)]
    assert [(r["status"], len(r.get("earlier", []))) for r in records] == [
        ("finished", 0),
        ("finished", 1),
        ("finished", 0),
    ]
    assert not (killed.logs / "sweep").exists()  # the same command would start another one


def test_a_sweep_that_is_interrupted_ends_its_processes_and_says_how_it_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signals, "_state", signals._State())
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail(f"exit {code}"))
    monkeypatch.setattr(sys, "__stderr__", sys.stderr)
    job = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    job.start()
    sweeping = sweep.continued(["seed=1,2"], {str(tmp_path)})
    with sweeping, pytest.raises(pytest.fail.Exception, match="exit 130"):
        signals.exit_for_signal(signal.SIGINT)
    assert job.exitcode == -signal.SIGTERM
    assert "the same command continues it" in capfd.readouterr().err


def test_a_job_with_other_settings_than_its_run_had_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"log_dir": str(tmp_path), "resume": None, "seed": 1}  # conf/ may have changed
    earlier = tmp_path / "train" / "line" / "1"
    earlier.mkdir(parents=True)
    run_directory.write_config(earlier, settings | {"log_dir": "elsewhere"})
    monkeypatch.setenv(sweep_links.VARIABLE, "name")
    [link] = sweep_links.links(str(tmp_path), 0)
    run_directory.link_to(earlier, link)
    assert _run_of_job(settings, 0) == earlier
    assert [_run_of_job(settings | {"seed": 2}, 0), _run_of_job(settings, 1)] == [None, None]
