"""DVCLive's own files have what the run directory has: `make test-services`."""

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Command
from tests.kindling.loggers.ending import stop_after

live = pytest.importorskip("dvclive.live", reason="dvclive is not installed: make test-services")
pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("default")]
QUICK = ("model=line", "trainer.accelerator=cpu", "logger=[csv,dvclive]")


@pytest.fixture(autouse=True)
def _without_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "get_dvc_repo", lambda: None)  # it would make one here


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "dvclive" / "metrics.json").read_text())
    return found


def points(run: Path, name: str) -> list[tuple[int, float]]:
    path = run / "dvclive" / "plots" / "metrics" / f"{name}.tsv"
    with path.open() as lines:
        rows = list(csv.reader(lines, delimiter="\t"))
    return [(int(step), float(value)) for step, value in rows[1:]]


def test_the_run_directory_has_all_that_dvclive_shows(command: Command) -> None:
    words = ("trainer.max_epochs=3", "trainer.log_every_n_steps=1", "logger.dvclive.report=html")
    command.here("train", *QUICK, *words)
    run = command.latest
    with (run / "metrics.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["train/loss"]]
    expected = [(int(row["step"]), pytest.approx(float(row["train/loss"]))) for row in rows]
    assert points(run, "train/loss") == expected
    assert [step for step, _ in points(run, "train/loss")] == [0, 1, 2]
    told = summary(run)
    assert told["status"] == "finished"
    metrics = json.loads((run / "metrics.json").read_text())
    for name, value in metrics.items():
        stage, _, rest = name.partition("/")
        assert told[stage][rest] == pytest.approx(value)
    params = yaml.safe_load((run / "dvclive" / "params.yaml").read_text())
    assert params == yaml.safe_load((run / "config.yaml").read_text())
    pictures = sorted((run / "dvclive" / "plots" / "images" / "views").iterdir())
    assert [path.name for path in pictures] == ["predicted_against_true.png", "residuals.png"]
    assert pictures[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "train" in (run / "dvclive" / "report.html").read_text()


def test_a_stopped_run_is_continued_without_gaps_or_doubles(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(25, patch, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            command.here("train", *QUICK, "trainer.max_epochs=50")
    assert summary(command.latest)["status"] == "stopped"
    command.here("train", "resume=latest")
    assert [step for step, _ in points(command.latest, "train/loss")] == [9, 19, 29, 39, 49]
    steps = [step for step, _ in points(command.latest, "val/loss")]
    assert len(steps) == len(set(steps))
    assert summary(command.latest)["status"] == "finished"


def test_each_run_of_a_sweep_has_its_own_and_a_failed_one_says_so(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.here("train", "--multirun", *QUICK, "trainer.max_epochs=2", "seed=1,2")
    runs = sorted((command.log_dir / "train" / "line").iterdir())
    configs = [yaml.safe_load((run / "dvclive" / "params.yaml").read_text()) for run in runs]
    assert [config["seed"] for config in configs] == [1, 2]

    def fail() -> None:
        raise RuntimeError("out of luck")

    stop_after(5, monkeypatch, fail)
    with pytest.raises(SystemExit):
        command.here("train", *QUICK)
    assert summary(command.latest)["status"] == "failed"
