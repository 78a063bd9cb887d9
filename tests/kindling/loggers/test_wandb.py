"""W&B's own files, written offline, say what the run directory says: `make test-services`."""

import json
import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Command
from tests.kindling.loggers.ending import stop_after

pytest.importorskip("wandb", reason="wandb is not installed: make test-services")
pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("default")]
QUICK = ("model=line", "trainer.accelerator=cpu", "logger=[csv,wandb]")
BLOCK = 2**15


def records(path: Path) -> Iterator[Any]:
    """Read a `.wandb` file: LevelDB's log format, with a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := BLOCK - place % BLOCK) < 7:  # too few for a header: padding
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def ended(path: Path) -> list[Any]:
    """Return the records of a run that has ended: W&B's service writes the last ones after it."""
    deadline = time.monotonic() + 30
    while True:
        found = list(records(path))
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.05)


class Told:
    """What W&B was told of a run, over all of its files."""

    def __init__(self, run: Path) -> None:
        files = sorted((run / "wandb").glob("offline-run-*/*.wandb"), key=os.path.getmtime)
        self.ids, self.names, self.exits = set(), set(), []
        self.history: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.artifacts: list[str] = []
        for record in (record for file in files for record in ended(file)):
            match record.WhichOneof("record_type"):
                case "run":
                    self.ids.add(record.run.run_id)
                    self.names.add(record.run.display_name)
                case "exit":
                    self.exits.append(record.exit.exit_code)
                case "history":
                    self.history.append(self.items(record.history.item))
                case "artifact":
                    self.artifacts.append(record.artifact.type)
                case "summary":
                    self.summary |= self.items(record.summary.update)
                case "config":
                    self.config |= self.items(record.config.update)

    @staticmethod
    def items(found: Any) -> dict[str, Any]:
        return {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in found}

    def steps(self, name: str) -> list[int]:
        return [point["trainer/global_step"] for point in self.history if name in point]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_a_run_has_one_wandb_run_with_all_that_there_is_to_say(command: Command) -> None:
    said = command.here("train", *QUICK, "trainer.max_epochs=30", "logger.wandb.checkpoint=true")
    told, run = Told(command.latest), command.latest
    assert told.names == {run.name}
    assert f"wandb: {command.log_dir}/train/line/{run.name}/wandb (offline)" in said
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert {key: told.config[key] for key in config} == config
    assert told.steps("train/loss") == [9, 19, 29]
    metrics = json.loads((run / "metrics.json").read_text())
    assert {name: told.summary[name] for name in metrics} == pytest.approx(metrics)
    assert told.summary["status"] == "finished"
    assert told.exits == [0]
    shown = {name for point in told.history for name in point}
    assert {"views/predicted_against_true/captions", "views/residuals/captions"} <= shown
    assert any(name.startswith("weights/") for name in shown)
    assert (told.steps("views/residuals/captions"), told.artifacts) == ([29], ["model"])


def test_each_run_of_a_sweep_has_its_own(command: Command) -> None:
    command.here("train", "--multirun", *QUICK, "trainer.max_epochs=2", "seed=1,2")
    runs = sorted((command.log_dir / "train" / "line").iterdir())
    told = [Told(run) for run in runs]
    assert [t.config["seed"] for t in told] == [1, 2]
    assert [t.names for t in told] == [{run.name} for run in runs]
    assert told[0].ids.isdisjoint(told[1].ids)


def test_a_stopped_run_is_continued_without_gaps_or_doubles(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(25, patch, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as stop:
            command.here("train", *QUICK, "trainer.max_epochs=50")
    assert stop.value.code == 143
    assert Told(command.latest).summary["status"] == "stopped"
    command.here("train", "resume=latest")
    told = Told(command.latest)
    assert len(told.ids) == 1
    assert told.steps("train/loss") == [9, 19, 29, 39, 49]
    assert len(told.steps("val/loss")) == len(set(told.steps("val/loss")))
    assert told.summary["status"] == "finished"
    assert told.exits == [1, 0]


def test_a_failed_run_says_so(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("out of luck")

    stop_after(5, monkeypatch, fail)
    with pytest.raises(SystemExit):
        command.here("train", *QUICK)
    told = Told(command.latest)
    assert (told.summary["status"], told.exits) == ("failed", [1])


def test_who_is_not_logged_in_hears_of_it_before_anything_is_made(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))  # where a .netrc would be
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(SystemExit) as stop:
        command.here("train", *QUICK)
    assert stop.value.code == 2
    assert "logger.wandb: not logged in; run `wandb login`, or" in capsys.readouterr().err
    assert not command.log_dir.exists()
