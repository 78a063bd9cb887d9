"""Signals at random instants: each run stops in order and in time, and resumes to the same bits."""

import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, Command, environment
from tests.forked import Forked
from tests.kills import differences
from tests.kindling.process.test_signals import LINES, STATUS, listens

SIGNALS = [number for number, _ in STATUS]
RUNS = {
    "fizzbuzz": ("train", "trainer.max_epochs=300", "trainer.accelerator=cpu", *LINES),
    "one_step_per_call": (
        *("train", "trainer.max_epochs=150", "trainer.accelerator=cpu", *LINES),
        *("steps_per_execution=1", "trainer.accumulate_grad_batches=2", "scheduler=plateau"),
    ),
    "validations_inside_epochs": (
        *("train", "model=two_layer_net", "trainer.accelerator=cpu", "data.rows=2000"),
        *("trainer.max_epochs=40", "trainer.val_check_interval=0.25", LINES[0]),
    ),
}


@pytest.mark.parametrize("name", RUNS)
def soak_twenty_five_signals_in_training(name: str, tmp_path: Path) -> None:
    straight = Forked(tmp_path / "straight", *RUNS[name])
    start = time.monotonic()
    assert straight.wait(600) == 0
    whole = time.monotonic() - start
    instants, sent, slowest = random.Random(name), 0, 0.0
    while sent < 25:
        folder, words = tmp_path / f"stopped{sent}", RUNS[name]
        ended = False
        while not ended:
            forked = Forked(folder, *words)
            words = ("train", "resume=latest")
            forked.wait_until(lambda f=forked: "step " in f.out or f.process.poll() is not None)
            time.sleep(instants.uniform(0, 0.2 * whole))
            number = instants.choice(SIGNALS)
            forked.send(number)
            start = time.monotonic()
            status = forked.wait(60)
            took = time.monotonic() - start
            assert forked.err == ""
            ended = has_finished(forked.run)
            if not ended:
                sent, slowest = sent + 1, max(slowest, took)
                assert status == dict(STATUS)[number]
                check_saved(forked)
        assert list(differences(straight.run, forked.run)) == []
    print(f"\n{name}: {sent} signals, {sent} consistent checkpoints, at most {slowest:.1f} s")
    assert slowest < 5


def has_finished(run: Path) -> bool:
    """Say whether run.json says that a run has come to its end."""
    return bool(json.loads((run / "run.json").read_text())["status"] == "finished")


def check_saved(forked: Forked) -> None:
    """Check that what a stopped run says of its checkpoint is so."""
    saved = torch.load(forked.run / "checkpoints/last.ckpt", weights_only=True)
    said = re.findall(r"stopped.*?(\d+)(?:, without saving)?; to continue:", forked.out)
    if said and "without saving" not in forked.out:
        assert int(said[0]) == saved["global_step"]
    assert forked.out.endswith(f" resume={forked.run}\n")


def soak_signals_from_the_first_import_to_the_last_line(command: Command) -> None:
    short = ("trainer.max_epochs=200", "trainer.accelerator=cpu")
    line = [sys.executable, "-m", "src.train", *short, f"log_dir={command.log_dir}"]
    start = time.monotonic()
    subprocess.run(line, cwd=ROOT, env=environment(), check=True, capture_output=True)
    whole = time.monotonic() - start
    instants, slowest, early = random.Random(0), 0.0, 0
    for count in range(25):
        number = instants.choice(SIGNALS)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(line, cwd=ROOT, env=environment(), text=True, **pipes)
        start = time.monotonic()
        while not listens(Path(f"/proc/{process.pid}/status").read_text()):
            time.sleep(0.001)
        time.sleep(instants.uniform(0, 1.1 * whole))
        process.send_signal(number)
        start = time.monotonic()
        out, err = process.communicate(timeout=60)
        slowest = max(slowest, time.monotonic() - start)
        assert "Traceback" not in out + err
        assert err.count("\n") <= 1
        early += "before anything was saved" in err
        if process.returncode == 0 and "next: " in out:
            continue
        assert process.returncode == dict(STATUS)[number], (count, out, err)
        assert ("to continue:" in out) != ("before anything was saved" in err)
    print(f"\n25 signals in {whole:.1f} s: {early} before the first step, at most {slowest:.1f} s")
    assert slowest < 5
    assert 0 < early < 25
