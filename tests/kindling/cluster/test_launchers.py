"""Sweeps through Hydra's launchers: joblib and submitit, in processes here and on a real SLURM."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Command, environment
from tests.kindling.cluster.daemons import Cluster
from tests.warm import PYTHON

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("own_models")]
PLUGINS = {"joblib": "hydra_joblib_launcher", "submitit_local": "hydra_submitit_launcher"}
PLUGINS["submitit_slurm"] = PLUGINS["submitit_local"]
QUICK = ("model=line", "trainer.accelerator=cpu", "trainer.max_epochs=2", "~callbacks.figures")


def line(command: Command, launcher: str, *words: str) -> list[str]:
    """Return the command line of a sweep through a launcher, in an interpreter of its own."""
    pytest.importorskip(f"hydra_plugins.{PLUGINS[launcher]}")
    folder = f"hydra.launcher.submitit_folder={command.log_dir}/submitit"
    places = [] if launcher == "joblib" else [folder, "hydra.launcher.timeout_min=5"]
    words = ("--multirun", f"hydra/launcher={launcher}", *places, *words)
    return [sys.executable, *command.line("train", *words)[len(PYTHON) :]]


def statuses(log_dir: Path) -> list[str]:
    """Return how the runs of a sweep have ended."""
    records = [json.loads(path.read_text()) for path in log_dir.glob("train/*/*/run.json")]
    return sorted(record["status"] for record in records)


def has_ended(group: int) -> bool:
    """Return whether a process group has no processes, at the latest after ten seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def check_one_of_three_has_failed(
    command: Command, launcher: str, variables: dict[str, str], *words: str
) -> None:
    swept = line(command, launcher, *QUICK, "optimizer.lr=1e200,0.1,0.2", *words)
    done: Any = subprocess.run(
        swept, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1, done
    assert "error: a job failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert statuses(command.log_dir) == ["failed", "finished", "finished"]


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_job_fails_in_another_process_and_the_others_are_trained(
    command: Command, launcher: str
) -> None:
    words = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []  # on one core too
    check_one_of_three_has_failed(command, launcher, environment(), *words)


def test_ctrl_c_ends_all_processes_of_a_sweep_and_the_same_command_completes_it(
    command: Command, tmp_path: Path
) -> None:
    epochs = "trainer.max_epochs=3000"
    words = ("hydra.launcher.n_jobs=2", *QUICK[:2], epochs, *QUICK[3:], "seed=1,2,3,4")
    swept = line(command, "joblib", *words)
    said = tmp_path / "said"
    with said.open("w") as out:
        done: Any = subprocess.Popen(
            swept, cwd=ROOT, env=environment(), stdout=out, stderr=out, start_new_session=True
        )
    deadline = time.monotonic() + 200
    while "finished" not in statuses(command.log_dir) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(done.pid, signal.SIGINT)
    assert done.wait(60) == 130
    assert "the same command continues it" in said.read_text()
    assert has_ended(done.pid)
    subprocess.run(swept, cwd=ROOT, env=environment(), check=True, timeout=300)
    assert statuses(command.log_dir) == ["finished"] * 4  # none was begun a second time


def test_a_sweep_on_slurm_is_one_job_per_run(command: Command, cluster: Cluster) -> None:
    variables = {**environment(), **cluster.environment, "PYTHONPATH": str(ROOT)}
    words = ("hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=null")
    check_one_of_three_has_failed(command, "submitit_slurm", variables, *words)
