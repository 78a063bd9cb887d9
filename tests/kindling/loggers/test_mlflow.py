"""MLflow's own client finds what a run wrote, on disk and on a server: `make test-services`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.conftest import Command
from tests.kindling.loggers.ending import stop_after

mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: make test-services")
pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("default")]
QUICK = ("model=line", "trainer.accelerator=cpu", "logger=[csv,mlflow]")


class Told:
    """What MLflow knows of its runs, the oldest first."""

    def __init__(self, uri: str) -> None:
        self.client = mlflow.MlflowClient(uri)
        ids = [experiment.experiment_id for experiment in self.client.search_experiments()]
        self.runs = self.client.search_runs(ids, order_by=["attributes.start_time ASC"])

    def steps(self, name: str) -> list[int]:
        [run] = self.runs
        return [point.step for point in self.client.get_metric_history(run.info.run_id, name)]

    def artifacts(self, folder: str = "") -> set[str]:
        [run] = self.runs
        return {file.path for file in self.client.list_artifacts(run.info.run_id, folder)}


def database(command: Command) -> str:
    return f"sqlite:///{command.log_dir}/mlflow.db"


def test_a_run_has_one_mlflow_run_in_a_database_next_to_the_runs(command: Command) -> None:
    words = ("trainer.max_epochs=30", "logger.mlflow.checkpoint=true")
    command.here("train", *QUICK, *words)
    told, run = Told(database(command)), command.latest
    [there] = told.runs
    assert (there.info.run_name, there.info.status) == (run.name, "FINISHED")
    assert there.data.params["optimizer.lr"] == "0.1"
    assert there.data.metrics == pytest.approx(json.loads((run / "metrics.json").read_text()))
    assert told.steps("train/loss") == [9, 19, 29]
    assert {"config.yaml", "metrics.json", "images"} <= told.artifacts()
    assert told.artifacts("checkpoints") == {"checkpoints/best.ckpt"}
    pictures = {name.partition("+")[0] for name in told.artifacts("images")}
    assert pictures == {"images/views~predicted_against_true", "images/views~residuals"}
    assert not (Path.cwd() / "mlruns").exists()


def test_each_run_of_a_sweep_has_its_own(command: Command) -> None:
    command.here("train", "--multirun", *QUICK, "trainer.max_epochs=2", "seed=1,2")
    runs = Told(database(command)).runs
    assert [run.data.params["seed"] for run in runs] == ["1", "2"]
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_stopped_run_is_continued_without_gaps_or_doubles(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(25, patch, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            command.here("train", *QUICK, "trainer.max_epochs=50")
    [stopped] = Told(database(command)).runs
    assert (stopped.info.status, stopped.data.tags["status"]) == ("KILLED", "stopped")
    command.here("train", "resume=latest", "trainer.max_epochs=60")
    told = Told(database(command))
    assert told.steps("train/loss") == [9, 19, 29, 39, 49, 59]
    assert len(told.steps("val/loss")) == len(set(told.steps("val/loss")))
    [run] = told.runs
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "finished")
    assert run.data.params["trainer.max_epochs"] == "50"
    assert run.data.tags["changed.trainer.max_epochs"] == "60"


def test_a_run_that_was_moved_away_from_its_database_begins_a_new_one(
    command: Command, tmp_path: Path, capsys: Any
) -> None:
    command.here("train", *QUICK, "trainer.max_epochs=10")
    moved = tmp_path / "elsewhere" / "a" / "b" / "run"
    moved.parent.mkdir(parents=True)
    command.latest.rename(moved)
    capsys.readouterr()
    command.here("train", f"resume={moved}", "trainer.max_epochs=20")
    assert capsys.readouterr().err == ""
    told = Told(f"sqlite:///{tmp_path}/elsewhere/mlflow.db")
    assert told.steps("train/loss") == [19]


def test_a_failed_run_says_so(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("out of luck")

    stop_after(5, monkeypatch, fail)
    with pytest.raises(SystemExit):
        command.here("train", *QUICK)
    [run] = Told(database(command)).runs
    assert (run.info.status, run.data.tags["status"]) == ("FAILED", "failed")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_a_server_that_does_not_answer_is_found_before_anything_is_made(
    command: Command, capsys: Any
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(SystemExit) as stop:
        command.here("train", *QUICK, f"logger.mlflow.tracking_uri={uri}")
    assert stop.value.code == 2
    assert f"error: logger.mlflow.tracking_uri={uri}: " in capsys.readouterr().err
    assert not command.log_dir.exists()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A tracking server on this machine."""
    port = free_port()
    words = f"-m mlflow server --host 127.0.0.1 --port {port} --workers 1".split()
    where = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    where += ["--artifacts-destination", str(tmp_path / "artifacts")]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *words, *where], stdout=log, stderr=log, start_new_session=True
        )
        try:
            for _ in range(600):
                try:
                    urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}", process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_server_that_goes_away_costs_one_line_and_not_the_run(
    server: Any, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    uri, process = server
    to_server = (*QUICK, f"logger.mlflow.tracking_uri={uri}", "trainer.max_epochs=50")
    command.here("train", *to_server)
    [run] = Told(uri).runs
    assert (run.info.status, run.info.run_name) == ("FINISHED", command.latest.name)
    assert capsys.readouterr().err == ""
    stop_after(25, monkeypatch, lambda: os.killpg(process.pid, signal.SIGKILL))
    command.here("train", *to_server)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("warning: MLFlowLogger: ")
    assert (command.latest / "metrics.json").is_file()
