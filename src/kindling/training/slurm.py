"""Under SLURM: a job that is queued again finds its run, and the tasks of srun share one."""

import hashlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from src.kindling.errors import InputError
from src.kindling.files import run_directory
from src.kindling.layout import Plain
from src.kindling.process import signals

REQUEUED_RUN = "KINDLING_RUN_OF_THIS_JOB"  # tells the further ranks that their run goes on
PATIENCE = 300.0  # seconds that a task of srun waits for the first one to make the run directory


def job() -> str | None:
    """Return the number by which SLURM knows this job, `7_1` in an array; None without SLURM."""
    names = ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")
    found = "_".join(os.environ.get(name, "") for name in names)
    if found == "_":
        found = os.environ.get("SLURM_JOB_ID", "")
    return found if re.fullmatch(r"\d+(_\d+)?", found) else None


def link_run(run: Path, log_dir: str, overrides: list[str]) -> None:
    """Keep a link to the run of this job, `<log_dir>/slurm/<job>-<step>-<hash of the settings>`."""
    if job() is not None and not run_directory.is_launched_rank():
        link = _link(log_dir, overrides)
        link.parent.mkdir(exist_ok=True)
        run_directory.link_to(run, link)


def requeued_run(log_dir: str, overrides: list[str]) -> Path | None:
    """Return the run that this job made before SLURM started it again; None in a first start.

    It is that of the same settings, because a job may train several runs, one after the other.
    """
    if run_directory.is_launched_rank() and "SLURM_STEP_ID" not in os.environ:
        return Path(os.environ[REQUEUED_RUN]) if REQUEUED_RUN in os.environ else None
    if job() is None or int(os.environ.get("SLURM_RESTART_COUNT") or 0) < 1:
        return None
    link = _link(log_dir, overrides)
    if not (link / "config.yaml").is_file():
        return None
    run = _target(link)
    os.environ[REQUEUED_RUN] = str(run)
    print(f"SLURM has started job {job()} again: its run goes on")
    return run


def wait_for_first_task(settings: Plain, overrides: list[str]) -> None:
    """Wait for the run directory of srun's first task, where this is another one of the same run.

    Raises:
        InputError: it makes none.
    """
    task = os.environ.get("SLURM_PROCID", "0")
    trainer = settings["trainer"]
    if job() is None or task == "0" or (trainer["devices"] == 1 and trainer["num_nodes"] == 1):
        return  # tasks of one process each are runs of their own
    link, deadline = _link(settings["log_dir"], overrides), time.monotonic() + PATIENCE
    while not link.is_dir():
        if time.monotonic() > deadline:
            raise InputError(f"task 0 of job {job()} made no run directory in {PATIENCE:g} s")
        time.sleep(0.1)
    run_directory.export_to_ranks(_target(link))
    os.environ["LOCAL_RANK"] = task  # as in a rank that another process has started: not 0


def _target(link: Path) -> Path:
    return Path(os.path.normpath(link.parent / os.readlink(link)))


def _link(log_dir: str, overrides: list[str]) -> Path:
    settings = hashlib.sha256(repr(overrides).encode()).hexdigest()[:8]
    step = os.environ.get("SLURM_STEP_ID", "")
    return Path(log_dir) / "slurm" / "-".join(filter(None, (job(), step, settings)))


def requeue(failure: str | None = None) -> bool:
    """Ask SLURM to queue this job again, which ends it, where SIGUSR1 has stopped the run."""
    stopped = failure is None and signals.pending_signal() == getattr(signal, "SIGUSR1", None)
    if stopped and job() is not None and not run_directory.is_launched_rank():
        signals.say(_requeue(str(job())))
    return False


def _requeue(number: str) -> str:
    try:
        done = subprocess.run(
            ["scontrol", "requeue", number], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"job {number} was not queued again: {error}"
    if done.returncode:
        return f"job {number} was not queued again: {' '.join(done.stderr.split())}"
    return f"job {number} is queued again, and will go on then"
