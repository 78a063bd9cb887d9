"""Two processes train together: what becomes of one when something happens to the other."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from torch.distributed import DistNetworkError

from src.kindling.files import run_lock
from src.kindling.process import ddp, ranks
from tests.forked import Forked
from tests.kindling.process.test_signals import LONG, assert_same

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
PAIR = ("trainer=ddp_cpu", "data.batch_size=64", "trainer.check_val_every_n_epoch=5")
PAIR += ("steps_per_execution=1",)


def train(folder: Path, *settings: str) -> tuple[Forked, int]:
    """Start a long run of two ranks; return it and the process of rank 1, once both train."""
    forked = Forked(folder, *LONG, *PAIR, *settings, ranks=2)
    forked.wait_until(lambda: "val/loss" in forked.out)
    [rank] = forked.children()
    return forked, rank


def exists(pid: int) -> bool:
    """Say whether a process has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_killed_rank_ends_the_run(tmp_path: Path) -> None:
    forked, rank = train(tmp_path)
    os.kill(rank, signal.SIGKILL)
    assert forked.wait(60) == 1
    assert forked.err.startswith("error: ConnectionError: rank 1 was ended by SIGKILL")
    assert forked.err.count("\n") == 1
    assert json.loads((forked.run / "run.json").read_text())["status"] == "failed"


def test_a_stopped_rank_ends_the_run_when_the_time_is_up(tmp_path: Path) -> None:
    forked, rank = train(tmp_path, "trainer.strategy.timeout=2")
    os.kill(rank, signal.SIGSTOP)
    assert forked.wait(60) == 1
    assert "rank 1 is stopped and did not respond for 2 s" in forked.err
    assert forked.err.count("\n") == 1
    assert not exists(rank)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_no_rank_outlives_the_one_that_started_it(number: signal.Signals, tmp_path: Path) -> None:
    forked, rank = train(tmp_path, "trainer.strategy.timeout=2")
    forked.send(number)
    assert forked.wait(60) == (1 if number == signal.SIGSTOP else -signal.SIGKILL)
    deadline = time.monotonic() + 5
    while exists(rank):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("to_all", [True, False])
def test_a_signal_stops_both_after_the_same_step_and_saves_once(
    to_all: bool, tmp_path: Path
) -> None:
    short = ("trainer.max_epochs=20", "~callbacks.figures", "logger=csv")
    short += ("callbacks.progress.seconds_per_line=0.001",)
    forked, rank = train(tmp_path / "stopped", *short)
    number = signal.SIGINT if to_all else signal.SIGTERM
    for process in (rank, forked.pid) if to_all else (rank,):
        os.kill(process, number)
    assert forked.wait(60) == 128 + number
    assert forked.err == ""
    assert forked.out.count("stopped and saved after step") == 1
    assert not exists(rank)
    if not to_all:
        return
    assert Forked(tmp_path / "stopped", "train", "resume=latest", ranks=2).wait() == 0
    straight = Forked(tmp_path / "straight", *LONG, *PAIR, *short, ranks=2)
    assert straight.wait() == 0
    for name in ("best", "last"):
        assert_same(*(run / f"checkpoints/{name}.ckpt" for run in (forked.run, straight.run)))


def failing_on_rank_1() -> None:
    """Let a step of rank 1 fail."""
    from src.kindling.model import BaseModule

    def failing(self: BaseModule, batch: object) -> object:
        if self.trainer.global_rank == 1:
            raise ValueError("rows of rank 1 are odd")
        return loss(self, batch)

    loss, BaseModule.training_loss = BaseModule.training_loss, failing


def test_a_failure_of_another_rank_is_the_line_on_the_console(tmp_path: Path) -> None:
    forked = Forked(tmp_path, *LONG, *PAIR, ranks=2, first=failing_on_rank_1)
    assert forked.wait(60) == 1
    assert "rank 1: ValueError: rows of rank 1 are odd (traceback: " in forked.err, forked.err
    assert forked.err.count("\n") == 1
    assert "rows of rank 1 are odd" in (forked.run / "run.log").read_text()
    assert not list(forked.run.glob(".rank-*"))


def rank_1_never_comes() -> None:
    """Let rank 1 wait for something else."""
    if os.environ.get("LOCAL_RANK") == "1":
        time.sleep(600)


def test_a_rank_that_never_comes_is_named_with_the_setting(tmp_path: Path) -> None:
    waits = ("trainer.strategy.timeout=2",)
    forked = Forked(tmp_path, *LONG, *PAIR, *waits, ranks=2, first=rank_1_never_comes)
    assert forked.wait(60) == 1
    assert "trainer.strategy.timeout=2: rank 1 did not join in these seconds" in forked.err
    assert forked.err.count("\n") == 1


def test_ranks_that_wait_for_each_other_are_told_that_one_takes_more_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Manual optimization with as many steps as a batch has pieces, and other lengths per rank."""
    launcher = ddp._Launcher(None, 2, 1, 20.0)
    gloo = "[gloo/transport/tcp/buffer.cc:78] Timed out waiting 20000ms for recv"
    said = launcher._silent(gloo) or ""
    assert said.startswith("trainer.strategy.timeout=20: rank 0 had no answer from rank 1 in these")
    assert said.endswith("; ranks wait for each other at each step: does each take as many?")
    reports = iter([f"ConnectionError: {said}"])
    launcher.procs = [mock.Mock(poll=lambda: 1)]
    monkeypatch.setattr(ddp, "GRACE", 0.2)
    monkeypatch.setattr(ddp.ranks, "reported_failure", lambda rank: next(reports, None))
    assert launcher._lost() == said  # not: rank 1 ended with exit status 1
    reports = iter(["ConnectionError: rank 1 had no answer from rank 0"])
    assert launcher._lost(said) == said  # what this rank knows by itself


def test_a_host_that_is_not_reached_is_named_with_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launcher = ddp._Launcher(None, 1, 2, 20.0)
    monkeypatch.setattr(ddp.ranks, "number", lambda: 1)
    text = "The client socket has timed out after 20000ms while trying to connect to (10.98.7.1, 1)"
    said = launcher._explained(DistNetworkError(text))
    assert said == "trainer.strategy.timeout=20: rank 0 did not join in these seconds"


def test_a_failure_that_nobody_has_read_is_not_that_of_the_next_start(tmp_path: Path) -> None:
    with mock.patch.dict(os.environ, {ranks.VARIABLE: str(tmp_path), "LOCAL_RANK": "1"}):
        ranks.report_failure("ValueError: of yesterday")
    with run_lock.locked(tmp_path), ranks.exported(tmp_path):
        assert ranks.reported_failure(1) is None


def nan_on_rank_1() -> None:
    """Let a loss of rank 1 be NaN."""
    from src.kindling.model import BaseModule

    def odd(self: BaseModule, batch: object) -> object:
        value: Any = loss(self, batch)
        return value * float("nan") if self.trainer.global_rank == 1 else value

    loss, BaseModule.training_loss = BaseModule.training_loss, odd


def test_a_loss_of_another_rank_that_is_nan_is_the_line_on_the_console(tmp_path: Path) -> None:
    forked = Forked(tmp_path, *LONG, *PAIR, ranks=2, first=nan_on_rank_1)
    assert forked.wait(60) == 1
    assert "rank 1: FloatingPointError: step 1: train/loss is nan" in forked.err, forked.err
    assert forked.err.count("\n") == 1
