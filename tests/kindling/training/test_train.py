"""python -m src.train as its user meets it: what it prints, what it leaves, how it ends."""

import csv
import json
import math
import os
import pty
import re
import select
import subprocess
import termios
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.kindling.build import build_trainer, errors_from
from src.kindling.errors import InputError
from src.kindling.training import summary
from tests.conftest import ROOT, environment, has_command, has_room
from tests.kindling import examples
from tests.kindling.conftest import Command, options

SHORT = ("trainer.max_epochs=25", "trainer.accelerator=cpu")  # one validation in each recipe

FIGURES = {"figures"} if has_room("figures") else set()  # in a run directory


class Run:
    """A finished training run of a model."""

    def __init__(
        self, model: str, command: Command, done: subprocess.CompletedProcess[str]
    ) -> None:
        self.model, self.command, self.done = model, command, done
        self.path = command.latest

    @property
    def metrics(self) -> dict[str, float]:
        content: dict[str, float] = json.loads((self.path / "metrics.json").read_text())
        return content


# A run is made once and looked at often. Tests that follow one another mostly go to one worker.
@pytest.fixture(scope="module", params=options("model"))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    command = Command(tmp_path_factory.mktemp(request.param) / "logs")
    done = command("train", f"model={request.param}", *SHORT)
    return Run(request.param, command, done)


def test_it_ends_quietly_with_a_table_and_the_next_command(run: Run) -> None:
    assert run.done.stderr == ""
    for name, value in run.metrics.items():
        shown = re.search(rf"  {name} +{re.escape(f'{value:.6g}')}( |\n)", run.done.stdout)
        assert bool(shown) == (name not in summary.HEALTH), name
    path = run.command.log_dir / "train" / run.model / run.path.name
    said = run.done.stdout.partition(f"\nresults: {path}\n")[2]
    folder = f"--config-dir={examples.CONF}"
    assert [line.removeprefix("next:").strip() for line in said.splitlines()] == [
        f"python -m src.predict {folder} run={path}",
        *([f"python -m src.report {folder} run={path}"] if has_command("report") else []),
        f"python -m src.train {folder} resume={path} trainer.max_epochs=50",
        f"tensorboard --logdir {run.command.log_dir}/train",
    ]
    assert max(map(len, run.done.stdout.partition("\nresults:")[0].splitlines()[1:])) <= 100


def test_the_run_directory_has_what_the_contract_promises(run: Run) -> None:
    assert run.path.parent == (run.command.log_dir / "train" / run.model).resolve()
    promised = {"config.yaml", "run.json", "run.log", "metrics.csv", "metrics.json"}
    folders = {"checkpoints", "tensorboard", *FIGURES}
    assert {path.name for path in run.path.iterdir()} == promised | folders
    checkpoints = {path.name for path in (run.path / "checkpoints").iterdir()}
    assert {"best.ckpt", "last.ckpt"} <= checkpoints <= {"best.ckpt", "last.ckpt", "previous.ckpt"}


def test_latest_is_a_relative_link_to_it(run: Run) -> None:
    link = run.command.log_dir / "latest"
    assert link.is_symlink()
    assert not os.path.isabs(os.readlink(link))
    assert link.resolve() == run.path


def test_config_yaml_is_plain_and_resolved(run: Run) -> None:
    text = (run.path / "config.yaml").read_text()
    content = yaml.safe_load(text)
    assert "${" not in text
    assert content["trainer"]["max_epochs"] == 25
    checkpoint = torch.load(run.path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["config"] == content


def test_run_json_says_what_ran_on_what_and_how_it_ended(run: Run) -> None:
    record = json.loads((run.path / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["command"][1:3] == ["-m", "src.train"]
    assert record["versions"]["torch"] == version("torch")  # without a tag such as +cu130
    assert record["device"].startswith("cpu")
    assert record["start"] <= record["end"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if head.returncode == 0:
        assert record["git"]["commit"] == head.stdout.strip()


def test_run_log_is_what_the_console_said(run: Run) -> None:
    assert (run.path / "run.log").read_text() == run.done.stdout


def test_metrics_are_named_stage_slash_name(run: Run) -> None:
    own = {"line": {"norm"}, "teacher": {"r2"}, "quadrants": {"accuracy"}}
    for stage in ("val", "test"):
        found = {name.split("/")[1] for name in run.metrics if name.startswith(f"{stage}/")}
        assert found == {"loss"} | own[run.model]
    assert {"train/loss", "train/lr", "train/samples_per_second"} <= set(run.metrics)


def test_the_history_has_the_final_values(run: Run) -> None:
    with (run.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    for name, value in run.metrics.items():
        logged = [float(row[name]) for row in rows if row[name]]
        assert logged[-1] == pytest.approx(value, rel=1e-6)


def test_tensorboard_has_the_same_final_values_and_no_step_twice(run: Run) -> None:
    events = read_events(run.path)
    for name, value in run.metrics.items():
        points = events.Scalars(name)
        assert points[-1].value == pytest.approx(value, rel=1e-6)
        steps = [point.step for point in points]
        assert steps == sorted(set(steps))
    trained = torch.load(run.path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    # Optimizer steps in every chart, from 0; the test comes after the last one.
    assert events.Scalars("train/loss")[-1].step == trained - 1
    every = yaml.safe_load((run.path / "config.yaml").read_text())["trainer"][
        "check_val_every_n_epoch"
    ]
    validated = 25 // every * every * trained // 25
    assert events.Scalars("val/loss")[-1].step == validated - 1
    assert events.Scalars("test/loss")[-1].step == trained


def read_events(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return events


def test_evaluate_repeats_the_test_from_the_checkpoint_alone(run: Run) -> None:
    done = run.command("evaluate")
    [directory] = (run.command.log_dir / "evaluate" / run.model).iterdir()
    found = json.loads((directory / "metrics.json").read_text())
    expected = {name: value for name, value in run.metrics.items() if name.startswith("test/")}
    assert found == pytest.approx(expected, rel=1e-6)
    assert done.stderr == ""
    assert run.command.latest == run.path  # an evaluation is never the latest run


def test_predict_answers_from_a_bare_checkpoint_elsewhere(run: Run, tmp_path: Path) -> None:
    moved = tmp_path / "moved.ckpt"
    moved.write_bytes((run.path / "checkpoints" / "best.ckpt").read_bytes())
    done = run.command("predict", f"run={moved}", f"output={tmp_path}/answers.csv")
    assert done.stderr == ""
    with (tmp_path / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert f"{len(rows)} rows written" in done.stdout


# One run each -----------------------------------------------------------------------------------


def test_two_processes_share_one_run_and_count_each_sample_once(command: Command) -> None:
    short = ("trainer=ddp_cpu", "trainer.max_epochs=25", "data.batch_size=64", "logger=csv")
    done = command(
        "train", *short, "~callbacks.figures", "data.val_fraction=0.105"
    )  # 97 validation rows
    [path] = (command.log_dir / "train" / "quadrants").iterdir()
    assert path.resolve() == command.latest
    metrics = json.loads((path / "metrics.json").read_text())
    # A share of 97 numbers, and of 100: were any counted twice, it would be one of 98 or 102.
    assert round(metrics["val/accuracy"] * 97, 3).is_integer()
    assert round(metrics["test/accuracy"] * 100, 3).is_integer()
    assert "2 process(es)" in json.loads((path / "run.json").read_text())["device"]
    assert done.stdout.count("run directory") == 1
    command.here("evaluate", f"run={path}")
    [evaluated] = (command.log_dir / "evaluate" / "quadrants").iterdir()
    again = json.loads((evaluated / "metrics.json").read_text())
    assert again["test/accuracy"] == pytest.approx(metrics["test/accuracy"], abs=1e-6)
    assert again["test/loss"] == pytest.approx(metrics["test/loss"], rel=1e-4)


def test_runs_started_at_once_never_share_a_directory(command: Command) -> None:
    quick = ("model=line", "trainer.max_epochs=1", "callbacks=none", "logger=none")
    running = [
        subprocess.Popen(
            command.line("train", *quick, f"seed={seed}"),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for seed in range(4)
    ]
    assert [process.communicate(timeout=240)[1] for process in running] == [b""] * 4
    assert [process.returncode for process in running] == [0] * 4
    runs = list((command.log_dir / "train" / "line").iterdir())
    seeds = {yaml.safe_load((path / "config.yaml").read_text())["seed"] for path in runs}
    assert seeds == set(range(4))
    assert command.latest in [path.resolve() for path in runs]
    assert [path.name for path in command.log_dir.iterdir() if path.name.startswith(".")] == []


def test_a_finished_run_says_so_and_a_longer_one_continues(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("model=line", "trainer.max_epochs=20", "logger=csv", "~callbacks.figures")
    command.here("train", *short)
    path = command.latest
    before = (path / "checkpoints" / "last.ckpt").read_bytes()
    assert "is finished" in command.here("train", "resume=latest")
    assert (path / "checkpoints" / "last.ckpt").read_bytes() == before
    command("train", f"resume={path}", "trainer.max_epochs=30")
    last = torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 30
    with pytest.raises(SystemExit):
        command.here("train", "resume=latest", "seed=4")
    assert capsys.readouterr().err.startswith("error: seed: 0 -> 4")


def test_on_a_terminal_one_bar_counts_the_whole_run(command: Command) -> None:
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (40, 150))
    process = subprocess.Popen(
        command.line("train", "trainer.accelerator=cpu"),
        cwd=ROOT,
        env=environment(TERM="xterm"),
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    screen = read_terminal(leader)
    assert process.wait(timeout=60) == 0
    total = torch.load(command.latest / "checkpoints" / "last.ckpt", weights_only=True)
    shown = [int(part.split("/")[0].split()[-1]) for part in screen.split("\r") if "step/s" in part]
    assert shown == sorted(shown)  # it never starts again
    assert f"/{total['global_step']} [" in screen
    assert "train/loss" in screen
    log = (command.latest / "run.log").read_text()
    assert "step/s" not in log


def read_terminal(leader: int) -> str:
    """Read what a program shows until it ends; bounded to two minutes."""
    shown, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline:
        if not select.select([leader], [], [], 1.0)[0]:
            continue
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    return shown.decode(errors="replace")


def test_no_history_is_kept_without_a_logger(command: Command) -> None:
    command.here("train", "model=line", "logger=none", "trainer.accelerator=cpu")
    names = {path.name for path in command.latest.iterdir()}
    assert names == {"config.yaml", "run.json", "run.log", "metrics.json", "checkpoints", *FIGURES}


@pytest.mark.parametrize("steps", [1, 1000])
def test_every_validation_takes_place_whatever_the_steps_per_call(
    command: Command, steps: int
) -> None:
    quick = ("model=quadrants", "trainer.max_epochs=50", "trainer.check_val_every_n_epoch=10")
    command.here("train", *quick, "logger=csv", f"steps_per_execution={steps}", "callbacks=none")
    with (command.latest / "metrics.csv").open(newline="") as file:
        epochs = [int(row["epoch"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert epochs == [9, 19, 29, 39, 49]


def test_a_fast_development_run_leaves_no_checkpoint(command: Command) -> None:
    assert "test/accuracy" in command.here("train", "debug=fast", "trainer.accelerator=cpu")
    assert not list(command.log_dir.glob("train/*/*/checkpoints"))


def test_random_targets_say_that_there_is_nothing_to_validate_or_test(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ("model=teacher", "data.targets=random", "trainer.max_epochs=3")
    printed = command.here("train", *quick, "trainer.accelerator=cpu")
    assert "no validation data" in printed
    assert "no test rows" in printed
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit) as stop:
        command.here("evaluate")
    assert stop.value.code == 2
    assert "no test rows" in capsys.readouterr().err


def test_the_profiler_prints_a_table_and_leaves_a_trace_by_layer(command: Command) -> None:
    done = command("train", "debug=profile", "trainer.max_epochs=2", "trainer.accelerator=cpu")
    assert "Self CPU time total" in done.stdout + done.stderr
    [trace] = command.latest.rglob("fit-*.pt.trace.json")
    names = {event.get("name", "") for event in json.loads(trace.read_text())["traceEvents"]}
    assert "[pl][module]torch.nn.modules.linear.Linear: net.hidden" in names


def test_a_sweep_makes_a_run_for_each_value(command: Command) -> None:
    quick = ("model=line", "trainer.max_epochs=1", "callbacks=none", "logger=none")
    command.here("train", "--multirun", "seed=1,2,3", *quick)
    runs = list((command.log_dir / "train" / "line").iterdir())
    seeds = {yaml.safe_load((path / "config.yaml").read_text())["seed"] for path in runs}
    assert seeds == {1, 2, 3}


def test_commands_work_from_any_directory(command: Command, tmp_path: Path) -> None:
    quick = ("model=line", "trainer.max_epochs=1", "trainer.accelerator=cpu")
    done = subprocess.run(
        command.line("train", *quick),
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert math.isfinite(json.loads((command.latest / "metrics.json").read_text())["test/norm"])


@pytest.mark.parametrize(
    ("error", "line"),
    [(KeyError("lr"), "trainer: lr"), (ValueError("`devices` is 0"), "trainer: `devices` is 0")],
)
def test_a_constructors_words_are_quoted_as_they_are(error: Exception, line: str) -> None:
    with pytest.raises(InputError) as refusal, errors_from("trainer"):
        raise error
    assert str(refusal.value) == line


def test_a_path_is_taken_as_it_is_written(tmp_path: Path, build: Any) -> None:
    command = Command(tmp_path / "$HOME" / "logs")  # Lightning would replace it, and a leading ~
    command.here("train", "model=line", "trainer.max_epochs=1", "~callbacks.figures")
    assert any(command.latest.glob("tensorboard/events.*"))
    assert [path.name for path in tmp_path.iterdir()] == ["$HOME"]
    settings = build().config
    assert Path(build_trainer(settings, Path("~/run")).default_root_dir) == Path("~/run")
