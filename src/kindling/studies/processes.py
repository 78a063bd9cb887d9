"""Several workers on this machine, each a process of its own, behind one progress display."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from src.kindling.errors import printable
from src.kindling.files import bounded
from src.kindling.process import signals
from src.kindling.studies import storage, trials
from src.kindling.studies.study import OpenStudy
from src.kindling.studies.summary import counts, ranked

WORKER = "KINDLING_STUDY_WORKER"  # set in a process that is one of several workers
LOOK = 0.3  # seconds between two checks of the workers
SECONDS_PER_LINE = 5.0  # where the output is not a terminal
STARTS = 3  # times that a worker is started again


def work(opened: OpenStudy, command: list[str]) -> None:
    """Run the workers until the study has its trials.

    Args:
        opened: the study.
        command: starts one worker.

    Raises:
        Stopped: by a signal, after the workers have saved their trials.
        WorkerFailedError: a worker has failed, with its line.
    """
    crew = Crew(opened, command)
    with signals.defer_signals(), crew.running(), _display(opened) as show:
        while not crew.is_done():
            if number := signals.pending_signal():
                crew.stop(number)
                raise signals.Stopped(number, "stopped; the trials are saved")
            show()
            time.sleep(LOOK)


class WorkerFailedError(Exception):
    """A worker has failed; the message is its own line."""


class Crew:
    """The processes of the workers.

    Args:
        opened: the study.
        command: starts one.
    """

    def __init__(self, opened: OpenStudy, command: list[str]) -> None:
        self.opened, self.command = opened, command
        self.logs = opened.folder / "workers"
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.starts: dict[int, int] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start the workers, and leave none behind."""
        self.logs.mkdir(exist_ok=True)
        try:
            for place in range(self.opened.settings.workers):
                self.start(place)
            yield
        finally:
            for process in self.processes.values():
                if process.poll() is None:
                    process.kill()
                process.wait()

    def start(self, place: int) -> None:
        """Start a worker; its lines go to a file."""
        self.starts[place] = self.starts.get(place, 0) + 1
        with bounded.open_append(self.logs / f"{place}.log") as log:
            self.processes[place] = subprocess.Popen(
                self.command,
                env=environment(place, self.opened.settings.workers),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
            )

    def is_done(self) -> bool:
        """Say whether all workers have ended; start one again that was killed.

        Raises:
            WorkerFailedError: one has failed.
        """
        for place, process in list(self.processes.items()):
            status = process.poll()
            if status is None or status == 0:
                continue
            if status > 0:
                raise WorkerFailedError(self.last_line(place))
            if self.starts[place] > STARTS:
                raise WorkerFailedError(f"worker {place} was killed {STARTS + 1} times")
            self.start(place)
        return all(process.poll() == 0 for process in self.processes.values())

    def last_line(self, place: int) -> str:
        """Return the last line of a worker."""
        text = (self.logs / f"{place}.log").read_text(encoding="utf-8", errors="replace")
        return text.strip().rpartition("\n")[2].removeprefix("error: ") or "a worker has failed"

    def stop(self, number: int) -> None:
        """Pass a signal on, and wait until the workers have saved."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
        for process in self.processes.values():
            process.wait()


def environment(place: int, workers: int) -> dict[str, str]:
    """Return a worker's environment: its share of the cores, and one of the GPUs."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    threads = {"OMP_NUM_THREADS": str(max(1, cores // workers))}
    gpus = _gpus()
    own_gpu = {"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {}
    return threads | os.environ | own_gpu | {WORKER: str(place)}


def _gpus() -> list[str]:
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [device for device in told.split(",") if device]
    return [path.name.removeprefix("nvidia") for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]


@contextlib.contextmanager
def _display(opened: OpenStudy) -> Iterator[Any]:
    """Yield a function that shows how far the study is."""
    bar = tqdm(
        total=opened.settings.trials,
        unit="trial",
        file=sys.stderr,
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
        leave=False,
    )
    told_at, told = time.monotonic(), ""

    def show() -> None:
        nonlocal told_at, told
        if bar.disable and time.monotonic() - told_at < SECONDS_PER_LINE:
            return
        line = told
        with contextlib.suppress(storage.StorageLostError), storage.explained():
            line = state(opened)
            bar.update(trials.progress(trials.latest(opened.study)).done - bar.n)
        if bar.disable and line != told:
            print(line, flush=True)
        told_at, told = time.monotonic(), line
        bar.set_postfix_str(line, refresh=False)

    with bar:
        yield show


def state(opened: OpenStudy) -> str:
    """Return how far a study is: `9 trials: 6 complete; best val/loss 0.01 (trial 4)`."""
    line = counts(trials.latest(opened.study))
    best = ranked(opened.study, opened.definition)
    if best:
        [metric, *_], (number, trial) = opened.definition.metrics, best[0]
        line += f"; best {metric} {trial.values[0]:.4g} (trial {number})"
    return printable(line)
