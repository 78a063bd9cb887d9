"""Commands in forks of a process that has imported torch: half a second each instead of six."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

WARM = ["src.train", "src.experiment", "src.summary", "src.callbacks.signals", "src.loggers"]
WARM += ["src.models.fizzbuzz", "src.data.fizzbuzz", "torch.utils.tensorboard", "torch._dynamo"]
FORKS = multiprocessing.get_context("forkserver")


class Forked:
    """A command under way: `python -m src.<name> ...` but for the imports.

    Args:
        folder: where its output goes, and its runs, to `folder/logs`.
        words: the command's name and its settings.
        first: called in the command's process before it starts.
    """

    def __init__(self, folder: Path, *words: str, first: Callable[[], None] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.logs, self._out, self._err = folder / "logs", folder / "out", folder / "err"
        FORKS.set_forkserver_preload([*WARM, __name__])
        arguments = (folder, [*words, f"log_dir={self.logs}"], first)
        self.process: BaseProcess = FORKS.Process(target=_run, args=arguments)
        self.process.start()

    def send(self, number: int) -> None:
        """Send a signal, if the command has not ended."""
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def wait(self, seconds: float = 120.0, *, kill: bool = True) -> int:
        """Return the exit status; a command that has not ended by then is killed, and fails."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            if kill:
                self.send(signal.SIGKILL)
            raise AssertionError(f"still running after {seconds} s: {self.out[-500:]} {self.err}")
        return self.process.exitcode

    def wait_until(self, ready: Callable[[], object], seconds: float = 120.0) -> None:
        """Wait for something to become true while the command runs."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert self.process.exitcode is None, f"it has ended: {self.out[-500:]} {self.err}"
            assert time.monotonic() < deadline, f"not in {seconds} s: {self.out[-500:]} {self.err}"
            time.sleep(0.005)

    @property
    def out(self) -> str:
        """What it has printed."""
        return self._out.read_text() if self._out.exists() else ""

    @property
    def err(self) -> str:
        """What it has printed to standard error."""
        return self._err.read_text() if self._err.exists() else ""

    @property
    def run(self) -> Path:
        """The run directory of this command, or of the newest that used its folder."""
        return (self.logs / "latest").resolve()


def _run(folder: Path, words: list[str], first: Callable[[], None] | None) -> None:
    import torch

    from src import stopping, train

    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    torch.set_num_threads(1)
    sys.argv = [f"src/{words[0]}.py", *words[1:]]
    stopping.listen()
    if first is not None:
        first()
    assert words[0] == "train"
    train.main()
