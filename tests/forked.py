"""Commands with something in them that goes wrong, and commands of two ranks.

Started as tests/warm.py starts commands, so that rank 1 costs no import of torch either.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.fabric.strategies.launchers.subprocess_script import _hydra_subprocess_cmd

from tests.conftest import ROOT, environment
from tests.kindling import examples
from tests.warm import PYTHON


class Forked:
    """`python -m src.<name> ...` under way, in a folder of its own.

    Args:
        folder: where its output goes, and its runs, to `folder/logs`.
        name: the command.
        words: its settings; an example of the tests is trained unless another model is named.
        first: a function of a module that is called, in the command's process, before it starts.
        ranks: how many processes of a run there are, 1 or 2.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *words: str,
        first: Callable[[], None] | None = None,
        ranks: int = 1,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.logs = folder, folder / "logs"
        self._pid = folder / "pid"
        self._pid.unlink(missing_ok=True)
        called = f"{first.__module__}:{first.__name__}" if first else ""
        program = ["-m", "tests.forked", str(folder), called, str(ranks), name]
        with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
            self.process = subprocess.Popen(
                [*PYTHON, *program, *examples.arguments(name, *words), f"log_dir={self.logs}"],
                cwd=ROOT,
                env=environment(),
                stdout=out,
                stderr=err,
            )
        self.wait_until(lambda: self._pid.exists() and self._pid.read_text().endswith("."))
        self.pid = int(self._pid.read_text()[:-1])  # the command's; the process only stands for it

    def send(self, number: int) -> None:
        """Send a signal, if the command has not ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds: float = 120.0) -> int:
        """Return the exit status; a command that has not ended by then is killed, and fails."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            said = f"{self.out[-500:]} {self.err}"
            raise AssertionError(f"still running after {seconds} s: {said}") from None

    def wait_until(self, ready: Callable[[], object], seconds: float = 120.0) -> None:
        """Wait for something to become true while the command runs."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert self.process.poll() is None, f"it has ended: {self.out[-500:]} {self.err}"
            assert time.monotonic() < deadline, f"not in {seconds} s: {self.out[-500:]} {self.err}"
            time.sleep(0.005)

    def children(self) -> list[int]:
        """Return the ranks that it has forked and that have not ended, by their command line."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(p) for p in children if _command_line(p) == _command_line(self.pid)]

    @property
    def out(self) -> str:
        """What it has printed."""
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        """What it has printed to standard error."""
        return (self.folder / "err").read_text()

    @property
    def run(self) -> Path:
        """The run directory of this command, or of the newest that used its folder."""
        return (self.logs / "latest").resolve()


def _command_line(pid: int | str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def main(folder: str, first: str, ranks: str, name: str, *words: str) -> None:
    """Be the command."""
    Path(folder, "pid").write_text(f"{os.getpid()}.")
    import torch

    from src.kindling.process import signals
    from src.kindling.process.ddp import _Launcher

    torch.set_num_threads(1)
    sys.argv = [f"src/{name}.py", *words]
    if ranks == "2":
        rank = Rank()
        _Launcher._call_children_scripts = lambda launcher: rank.start(launcher)
    signals.install_handlers()
    if first:
        module, _, function = first.partition(":")
        getattr(importlib.import_module(module), function)()
    importlib.import_module(f"src.{name}").main()


class Rank:
    """Rank 1 of data-parallel training: forked early, and let go where Lightning would start it."""

    def __init__(self) -> None:
        reader, self._writer = os.pipe()
        self.returncode: int | None = None
        with warnings.catch_warnings():  # Python 3.12 on: some builds of torch start threads
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            os.close(self._writer)
            with os.fdopen(reader) as launched:
                environment, sys.argv[1:] = json.loads(launched.read() or os._exit(0))
            os.environ.update(environment)

    def start(self, launcher: Any) -> None:
        """Do what the launcher does: say in the environment where the ranks meet, start one."""
        meeting = launcher.cluster_environment
        os.environ.update(MASTER_ADDR=meeting.main_address, MASTER_PORT=str(meeting.main_port))
        os.environ.update(NODE_RANK="0", LOCAL_RANK="0", WORLD_SIZE="2")
        typed = _hydra_subprocess_cmd(local_rank=1)[0][-len(sys.argv) - 2 :]  # and Hydra's three
        with os.fdopen(self._writer, "w") as launched:
            json.dump([{**os.environ, "LOCAL_RANK": "1"}, typed], launched)
        launcher.procs = [self]

    def poll(self) -> int | None:
        """Return the exit status, as `subprocess.Popen` does."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Return the exit status, once there is one."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("rank 1", timeout)
            time.sleep(0.01)
        return self.returncode or 0

    def kill(self) -> None:
        """End it, if it has not ended."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


if __name__ == "__main__":
    main(*sys.argv[1:])
