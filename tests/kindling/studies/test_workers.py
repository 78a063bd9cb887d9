"""Nothing is lost: workers that are killed or stopped, and several at once."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from src import study
from src.kindling.studies import processes, trials
from tests.conftest import ROOT, environment
from tests.kindling import examples
from tests.kindling.conftest import Command

WORDS = (
    "study.name=k", "model=teacher", "data.rows=10000",
    "optimizer.lr=tag(log, interval(1e-3, 1e-1))", "trainer.max_epochs=4", "~callbacks.figures",
    "logger=csv", "study.trials=3", "study.heartbeat=1", "study/pruner=none",
)  # fmt: skip


def ended(found: Any, folder: Path) -> list[Any]:
    """Return settings, values, reports and weights of each trial."""
    return [
        (
            number,
            trial.params,
            trial.values,
            trial.intermediate_values,
            [
                value.sum().item()
                for value in torch.load(
                    folder / f"trial-{number:04d}" / "checkpoints" / "last.ckpt", weights_only=True
                )["state_dict"].values()
            ],
        )
        for number, trial in sorted(trials.latest(found).items())
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the log_dir of the study that nobody disturbs."""
    log_dir = tmp_path_factory.mktemp("undisturbed")
    Command(log_dir).here("study", *WORDS)
    return log_dir


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_trial_whose_worker_ends_is_taken_up_to_the_same_bits(
    undisturbed: Path, command: Command, load: Any, number: int
) -> None:
    worker = subprocess.Popen(
        command.line("study", *WORDS),
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    folder = command.log_dir / "study" / "k"
    until((folder / "trial-0001" / "checkpoints" / "last.ckpt").is_file)
    worker.send_signal(number)
    printed, _ = worker.communicate(timeout=120)
    status = {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -9)
    assert worker.returncode in (status, 137), printed  # 137: killed, as a warm command says it
    if number != signal.SIGKILL:
        assert re.search(r"python -m src\.study .*study\.name=k study\.trials=3", printed)
    command("study", "study.name=k", "study.trials=3", "study.heartbeat=1", "study/pruner=none")
    was = ended(load("k", undisturbed), undisturbed / "study" / "k")
    assert ended(load("k"), folder) == was
    attempts = load("k").trials
    assert [trial.state.name for trial in attempts].count("FAIL") == 1
    assert len(attempts) == 4


@pytest.mark.slow
def test_two_workers_start_one_study_at_the_same_time(command: Command, load: Any) -> None:
    words = ("study.name=k", "model=line", "optimizer.lr=interval(0.1,0.4)")
    line = command.line("study", *words, "study.trials=6", "logger=csv", "~callbacks.figures")
    workers = [
        subprocess.Popen(
            line, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    printed = [worker.communicate(timeout=240)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], printed
    found = load("k")
    assert len(found.trials) == 6
    assert all(trial.state.is_finished() for trial in found.trials)
    runs = sorted((command.log_dir / "study" / "k").glob("trial-*"))
    assert len(runs) == 6


def test_local_workers_take_flags_that_come_after_the_settings(
    command: Command, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = mock.Mock(return_value=mock.Mock(poll=lambda: 0))
    words = ["study.name=k", "model=line", "optimizer.lr=interval(0.1,0.4)", "study.trials=1"]
    words += ["~callbacks.figures", "study.workers=2", f"log_dir={command.log_dir}"]
    with monkeypatch.context() as patch:
        patch.setattr(processes, "subprocess", mock.Mock(Popen=start))
        patch.setattr(sys, "argv", ["src/study.py", *words, "--config-dir", str(examples.CONF)])
        study.main()
    assert start.call_count == 2
    (line,), named = start.call_args
    monkeypatch.setenv(processes.WORKER, named["env"][processes.WORKER])
    monkeypatch.setattr(sys, "argv", ["src/study.py", *line[3:]])
    study.main()  # as the process does that was not started
    assert [trial.state.name for trial in load("k").trials] == ["COMPLETE"]


@pytest.mark.slow
def test_local_workers_share_a_study_and_one_that_is_killed_is_replaced(
    command: Command, load: Any
) -> None:
    parent = subprocess.Popen(
        [
            sys.executable, "-m", "src.study", *WORDS, "study.workers=2", "study.trials=5",
            f"log_dir={command.log_dir}", *examples.arguments("study"),
        ],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    folder = command.log_dir / "study" / "k"
    until(lambda: list(folder.glob("trial-*/checkpoints/last.ckpt")))
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    printed, _ = parent.communicate(timeout=240)
    assert parent.returncode == 0, printed
    assert "study k: 5 trials: 5 complete" in printed
    assert len(trials.latest(load("k"))) == 5
    finished = [
        json.loads(path.read_text())["status"] for path in sorted(folder.glob("trial-*/run.json"))
    ]
    assert finished == ["finished"] * 5
