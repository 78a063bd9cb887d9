"""conf/slurm.sh on a real SLURM of two nodes: time limits, arrays, DDP, and what dies."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Command
from tests.kills import differences
from tests.kindling import examples
from tests.kindling.cluster.daemons import Cluster, until

pytestmark = pytest.mark.services
SCRIPT = str(ROOT / "conf" / "slurm.sh")
PAUSED = (
    f"hydra.searchpath=[file://{examples.CONF.parent}/cluster/conf]", "callbacks=paused",
)  # fmt: skip
RUN = ("trainer.accelerator=cpu", "trainer.check_val_every_n_epoch=5")
PAIR = ("trainer=ddp_cpu", "trainer.devices=1", "trainer.num_nodes=2", "trainer.max_epochs=60")
PAIR_OF_NODES = ("--nodes=2", "--ntasks-per-node=1")


class Jobs:
    """Submits conf/slurm.sh, with runs in one folder; nothing stays queued.

    Args:
        cluster: where to.
        folder: for runs and for what jobs print.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder, self.log_dir = cluster, folder, folder / "logs"
        self.submitted: list[str] = []

    def submit(self, name: str, *words: str, options: tuple[str, ...] = ()) -> str:
        """Submit a command of the project; return the number of the job."""
        # The nodes are all this host, which does not know their names.
        given = f"--export=ALL,PYTHON={sys.executable},OMP_NUM_THREADS=1,MASTER_ADDR=127.0.0.1"
        sbatch = (given, f"--chdir={ROOT}", "--time=5", "--cpus-per-task=1")
        output = f"--output={self.folder}/%A_%a.out"
        line = [*examples.arguments(name, *words), f"log_dir={self.log_dir}"]
        job = self.cluster.submit(*sbatch, output, *options, SCRIPT, name, *line)
        self.submitted.append(job)
        return job

    def printed(self, job: str) -> str:
        """Return what a job has printed."""
        return "".join(path.read_text() for path in sorted(self.folder.glob(f"{job}_*.out")))

    def until_queued_again(self, job: str) -> None:
        """Wait until SLURM has queued a job again."""
        until(lambda: self.restarts(job) == 1, 120)

    def restarts(self, job: str) -> int:
        """Return how often a job was queued again."""
        shown = self.cluster.ask("scontrol", "show", "job", job)
        return int(shown.partition("Restarts=")[2].split()[0])

    def worker_of(self, run: Path) -> int:
        """Return the process that trains a run: the one that holds its lock."""
        lock = (run / ".lock").stat()
        held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        return next(int(pid) for *_, pid, place, _, _ in held if place.endswith(f":{lock.st_ino}"))

    def completed(self, job: str) -> None:
        """Wait for the end of a job, which must be a good one."""
        assert self.cluster.wait(job) == "COMPLETED", self.printed(job)


@pytest.fixture
def jobs(cluster: Cluster, tmp_path: Path) -> Any:
    """Return what submits jobs."""
    made = Jobs(cluster, tmp_path)
    yield made
    for job in made.submitted:
        cluster.ask("scancel", "--quiet", job)
    for job in made.submitted:
        cluster.wait(job, 60)


def one_run(log_dir: Path) -> Path:
    """Return the only run of a folder."""
    [run] = (log_dir / "train" / "quadrants").iterdir()
    return run


def unlike(one: Path, other: Path) -> list[str]:
    """Return what differs between two runs, but for the callback that pauses and the devices."""
    configured = (": config: trainer: ", ": config: callbacks: ")
    return [line for line in differences(one, other) if not any(w in line for w in configured)]


def record(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def test_a_job_that_reaches_its_time_limit_is_queued_again_to_the_same_bits(
    jobs: Jobs, command: Command, tmp_path: Path
) -> None:
    words = (*RUN, "trainer.max_epochs=400", "steps_per_execution=4")
    # SLURM looks at its limits every 30 s: the signal comes 20 to 50 s after the start.
    job = jobs.submit("train", *words, *PAUSED, options=("--time=1", "--signal=USR1@10"))
    straight = Command(tmp_path / "straight")
    straight.here("train", *examples.arguments("train", *words))
    jobs.until_queued_again(job)
    assert "asking SLURM to requeue job" in jobs.printed(job)
    run = one_run(jobs.log_dir)
    assert record(run)["status"] == "stopped"
    jobs.completed(job)
    assert f"SLURM has restarted job {job}: its run continues" in jobs.printed(job)
    assert unlike(straight.latest, one_run(jobs.log_dir)) == []


def test_usr1_in_the_first_seconds_queues_the_job_again(jobs: Jobs) -> None:
    endless = ("trainer.max_epochs=100000", *RUN, *PAUSED)
    started = [jobs.submit("train", f"seed={n}", *endless) for n in range(4)]
    for number, job in enumerate(started):
        until(lambda job=job: f"{job}.0" in jobs.cluster.ask("squeue", "-hs", "-j", job), 60)
        time.sleep(0.4 * number)  # before Python starts; in its imports; in the first steps
        jobs.cluster.ask("scancel", "--signal=USR1", job)
    for job in started:
        jobs.until_queued_again(job)
        jobs.cluster.ask("scancel", job)


def test_an_array_of_workers_shares_a_study_and_one_of_them_is_killed(
    jobs: Jobs,
) -> None:
    optuna = pytest.importorskip("optuna")
    trials = pytest.importorskip("src.kindling.studies.trials")
    words = ("study.name=array", "optimizer.lr=tag(log, interval(1e-3, 0.1))", "study.trials=12",
             "study.heartbeat=2", "study/pruner=none", "trainer.max_epochs=20")  # fmt: skip
    job = jobs.submit("study", *words, *RUN, *PAUSED, options=("--array=1-4",))
    folder = jobs.log_dir / "study" / "array"
    until(lambda: len([*folder.glob("trial-*/checkpoints/last.ckpt")]) >= 3, 120)
    os.kill(jobs.worker_of(folder / "trial-0001"), signal.SIGKILL)
    jobs.cluster.wait(job)
    states = jobs.cluster.state(job).split()
    assert sorted(states) == ["COMPLETED"] * 3 + ["FAILED"], jobs.printed(job)
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/study.db")
    found = trials.latest(optuna.load_study(study_name="array", storage=storage))
    storage.engine.dispose()
    assert sorted(found) == list(range(12))
    assert {trial.state.name for trial in found.values()} == {"COMPLETE"}
    assert found[1].user_attrs[trials.ATTEMPT] == 1


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of two processes on one machine, without SLURM."""
    command = Command(tmp_path_factory.mktemp("pair"))
    words = ("trainer=ddp_cpu", *RUN, "trainer.max_epochs=60", "steps_per_execution=4")
    command("train", *examples.arguments("train", *words))
    return command.latest


def test_two_nodes_write_one_run_directory(jobs: Jobs, pair: Path) -> None:
    job = jobs.submit("train", *RUN, *PAIR, "steps_per_execution=4", options=PAIR_OF_NODES)
    jobs.completed(job)
    run = one_run(jobs.log_dir)
    assert "2 process(es)" in record(run)["device"]
    assert unlike(pair, run) == []


def test_a_job_whose_node_dies_is_queued_again_to_the_same_bits(jobs: Jobs, pair: Path) -> None:
    words = (*RUN, *PAIR, *PAUSED, "steps_per_execution=4")
    job = jobs.submit("train", *words, options=PAIR_OF_NODES)
    until(lambda: [*jobs.log_dir.glob("train/*/*/checkpoints/last.ckpt")], 120)
    jobs.cluster.kill_node("n2")
    jobs.until_queued_again(job)
    jobs.cluster.start_node("n2")
    jobs.completed(job)
    assert jobs.printed(job).count("its run continues") == 1
    assert unlike(pair, one_run(jobs.log_dir)) == []
