"""SLURM: a requeued job finds its run, and the tasks of srun share one."""

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from src.kindling.errors import InputError
from src.kindling.files import run_directory
from src.kindling.layout import Plain
from src.kindling.process import ranks
from src.kindling.process.requeue import job

REQUEUED_RUN = "KINDLING_RUN_OF_THIS_JOB"  # tells launched ranks that their run is resumed
PATIENCE = 300.0  # seconds that a task of srun waits for the first one to create the run directory


def run_links(log_dir: str, overrides: Sequence[str]) -> list[Path]:
    """Return the link to the run of this job, `<log_dir>/slurm/<job>-<step>-<hash>`, if any.

    The hash is that of the overrides, since one job may train several runs.
    """
    return [] if job() is None or ranks.is_launched() else [_link(log_dir, overrides)]


def requeued_run(log_dir: str, overrides: Sequence[str]) -> Path | None:
    """Return the run that this job started before SLURM requeued it; None on its first start."""
    if ranks.is_launched() and "SLURM_STEP_ID" not in os.environ and not ranks.is_torchrun():
        return Path(os.environ[REQUEUED_RUN]) if REQUEUED_RUN in os.environ else None
    if job() is None or int(os.environ.get("SLURM_RESTART_COUNT") or 0) < 1:
        return None
    link = _link(log_dir, overrides)
    if not (link / "config.yaml").is_file():
        return None
    run = run_directory.target(link)
    os.environ[REQUEUED_RUN] = str(run)
    if os.environ.get("SLURM_PROCID", "0") == "0":  # the first task speaks for all
        print(f"SLURM has restarted job {job()}: its run continues")
    return run


def check_tasks(settings: Plain) -> None:
    """Refuse to train in fewer processes than were asked for.

    Under SLURM Lightning starts none by itself, except in a job named bash or interactive.

    Raises:
        InputError: the job has another number of tasks than the run is to have processes.
    """
    devices, tasks = settings["trainer"]["devices"], os.environ.get("SLURM_NTASKS", "")
    per_node = ranks.per_node(devices)
    if per_node < 0 or not tasks.isdigit() or ranks.is_launched():
        return
    by_hand = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if job() is None or by_hand or ranks.is_torchrun():
        return
    processes = per_node * settings["trainer"]["num_nodes"]
    if processes > 1 and processes != int(tasks):
        raise InputError(
            f"trainer.devices={devices}: {processes} processes, and this SLURM job has {tasks}"
            f" task(s); srun --ntasks={processes} starts as many"
        )


def wait_for_first_task(settings: Plain, overrides: Sequence[str]) -> None:
    """Wait for the run directory of srun's first task, if this is another one of the same run.

    Raises:
        InputError: the first task creates none.
    """
    task = os.environ.get("SLURM_PROCID", "0")
    trainer = settings["trainer"]
    if job() is None or task == "0" or ranks.is_torchrun():
        return
    if trainer["devices"] == 1 and trainer["num_nodes"] == 1:
        return  # tasks of one process each are runs of their own
    link, deadline = _link(settings["log_dir"], overrides), time.monotonic() + PATIENCE
    while not link.is_dir():
        if time.monotonic() > deadline:
            raise InputError(f"task 0 of job {job()} created no run directory in {PATIENCE:g} s")
        time.sleep(0.1)
    ranks.follow(run_directory.target(link))
    os.environ["LOCAL_RANK"] = task  # as in a rank that another process has launched: not 0


def _link(log_dir: str, overrides: Sequence[str]) -> Path:
    settings = hashlib.sha256(repr(list(overrides)).encode()).hexdigest()[:8]
    step = os.environ.get("SLURM_STEP_ID", "")
    return Path(log_dir) / "slurm" / "-".join(filter(None, (job(), step, settings)))
