"""Ask SLURM to requeue this job after SIGUSR1, whenever the signal came."""

import os
import re
import signal
import subprocess

from src.kindling.process import ranks, signals


def job() -> str | None:
    """Return SLURM's number of this job, `7_1` in an array; None without SLURM."""
    names = ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")
    found = "_".join(os.environ.get(name, "") for name in names)
    if found == "_":
        found = os.environ.get("SLURM_JOB_ID", "")
    return found if re.fullmatch(r"\d+(_\d+)?", found) else None


def requeue(failure: str | None = None) -> bool:
    """Queue this job again, which ends it, if SIGUSR1 has stopped the run; see `signals.at_exit`.

    A job that has saved nothing yet then starts from the beginning; with exit status 0 it would be
    lost.
    """
    stopped = failure is None and signals.pending_signal() == getattr(signal, "SIGUSR1", None)
    if stopped and not ranks.is_launched() and (number := job()) is not None:
        # First, since SLURM may end this process before it reads the answer.
        signals.say(f"asking SLURM to requeue job {number}, which will continue")
        if refused := ask(number):
            signals.say(refused)
    return False


def ask(number: str) -> str:
    """Run `scontrol requeue`; return one line about its failure, or an empty string."""
    try:
        done = subprocess.run(
            ["scontrol", "requeue", number], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"job {number} was not requeued: {error}"
    if done.returncode:
        return f"job {number} was not requeued: {' '.join(done.stderr.split())}"
    return ""
