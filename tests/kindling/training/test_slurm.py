"""SLURM's variables: a requeued job resumes its run, and the tasks of srun share one."""

import json
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from src.kindling.process import requeue, signals
from tests.conftest import ROOT, Command, environment
from tests.forked import Forked
from tests.kindling.process.test_signals import LONG, endless_set_up

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
QUICK = ("model=line", "trainer.accelerator=cpu")
JOB = {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
JOB |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}


def in_a_job_without_end() -> None:
    """Take the signals as src/__init__.py does, and never come to the first step."""
    signals.install_handlers(last=requeue.requeue)
    endless_set_up()


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put this process into a job, with a `scontrol` that writes down what it is asked."""
    program, asked = tmp_path / "bin" / "scontrol", tmp_path / "asked"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    program.chmod(0o755)
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return asked


def test_usr1_saves_and_requeues_the_job_which_resumes(
    scontrol: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*LONG, "trainer.max_epochs=100")
    first = Forked(tmp_path, *words)
    first.wait_until(lambda: "step " in first.out)
    first.send(signal.SIGUSR1)
    assert (first.wait(), first.err) == (0, "")
    assert scontrol.read_text() == "requeue 77\n"
    assert first.out.endswith("asking SLURM to requeue job 77, which will continue\n")
    assert json.loads((first.run / "run.json").read_text())["status"] == "stopped"

    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    again = Forked(tmp_path, *words)
    assert (again.wait(), again.err) == (0, "")
    assert "SLURM has restarted job 77: its run continues" in again.out
    assert f"continuing in {first.run}" in again.out
    assert len(list((tmp_path / "logs/train/quadrants").iterdir())) == 1
    assert json.loads((first.run / "run.json").read_text())["status"] == "finished"


def test_usr1_before_anything_is_saved_queues_the_job_again(scontrol: Path, tmp_path: Path) -> None:
    forked = Forked(tmp_path, *LONG, first=in_a_job_without_end)
    forked.wait_until(lambda: "endless" in forked.out)
    forked.send(signal.SIGUSR1)
    assert forked.wait(60) == 0
    assert scontrol.read_text() == "requeue 77\n"
    assert "asking SLURM to requeue job 77, which will continue\n" in forked.out
    assert not list(forked.logs.rglob("*"))


def test_another_signal_queues_nothing_again(scontrol: Path, tmp_path: Path) -> None:
    forked = Forked(tmp_path, *LONG, first=in_a_job_without_end)
    forked.wait_until(lambda: "endless" in forked.out)
    forked.send(signal.SIGTERM)
    assert forked.wait(60) == 143
    assert not scontrol.exists()


def test_fewer_tasks_than_processes_are_refused(scontrol: Path, command: Command) -> None:
    done = command("train", *QUICK, "trainer=ddp_cpu", status=2)
    assert "trainer.devices=2: 2 processes, and this SLURM job has 1 task(s)" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not command.log_dir.exists()


def test_a_task_of_an_array_has_the_number_that_scontrol_knows(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert requeue.job() == "77"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert requeue.job() == "70_3"
    requeue.ask("70_3")
    assert scontrol.read_text() == "requeue 70_3\n"


def test_a_job_of_several_runs_finds_each_by_its_settings(
    scontrol: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("train", *QUICK, "trainer.max_epochs=1", "seed=1")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    done = command("train", *QUICK, "trainer.max_epochs=1", "seed=1")
    assert "is finished" in done.stdout
    command("train", *QUICK, "trainer.max_epochs=1", "seed=2")
    assert len(list((command.log_dir / "train/line").iterdir())) == 2
    assert not scontrol.exists()


def test_without_scontrol_it_says_so(
    scontrol: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    forked = Forked(tmp_path, *LONG)
    forked.wait_until(lambda: "step " in forked.out)
    forked.send(signal.SIGUSR1)
    assert forked.wait() == 0
    assert "to continue:" in forked.out
    assert "job 77 was not requeued: " in forked.out


def test_tasks_of_srun_share_one_run(scontrol: Path, command: Command) -> None:
    pair = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_STEP_ID": "0"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        pair |= {"MASTER_PORT": str(free.getsockname()[1]), "MASTER_ADDR": "127.0.0.1"}
    line = command.line("train", "trainer=ddp_cpu", "trainer.max_epochs=25", "data.batch_size=64")
    tasks = []
    for task in ("1", "0"):  # the further one first: it waits
        variables = environment(SLURM_PROCID=task, SLURM_LOCALID=task, **pair)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        tasks.append(subprocess.Popen(line, cwd=ROOT, env=variables, text=True, **pipes))
        time.sleep(0.5)
    further, first = (task.communicate(timeout=240) for task in tasks)
    assert [task.returncode for task in tasks] == [0, 0], (further, first)
    assert further == ("", "")
    assert "test/accuracy" in first[0]
    [run] = (command.log_dir / "train/quadrants").iterdir()
    assert "2 process(es)" in json.loads((run / "run.json").read_text())["device"]


def test_a_login_node_with_srun_changes_nothing(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (srun := tmp_path / "srun").write_text("#!/bin/sh\nexit 1\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = command.here("train", *QUICK, "trainer.max_epochs=1")
    assert done.startswith("line: run directory ")
    assert not (command.log_dir / "slurm").exists()
