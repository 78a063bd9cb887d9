"""DDP whose processes end when one of them does, instead of waiting for it."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from pydantic import PositiveFloat
from torch.distributed import DistStoreError

from src.kindling.process import ranks, signals

LAUNCHER = "KINDLING_LAUNCHER"  # the process that started a rank
POLL = 0.2  # seconds between two checks of the ranks
GRACE = 2.0  # seconds for a rank to end by itself before it is killed; rank 0 has twice as many


class DDP(DDPStrategy):
    """Lightning's `ddp`: one process per device, with synchronized gradients.

    If one of them ends, is killed or stops responding, the others end too, and rank 0 says so.

    Args:
        timeout: seconds that a process waits for another's answer before it gives up.
    """

    def __init__(self, timeout: PositiveFloat = 300.0, **options: Any) -> None:
        super().__init__(timeout=timedelta(seconds=timeout), **options)
        self.seconds = timeout

    def _configure_launcher(self) -> None:
        # Private: Lightning has no public way to choose the launcher. Its own kills rank 0 with
        # SIGKILL up to five seconds later, with nothing saved or printed.
        assert self.cluster_environment is not None
        self._launcher = _Launcher(
            self.cluster_environment, self.num_processes, self.num_nodes, self.seconds
        )

    def setup_environment(self) -> None:
        """Join the other ranks; a launched rank dies with the process that launched it."""
        if launcher := os.environ.get(LAUNCHER):
            _end_with(int(launcher))
        super().setup_environment()


class _Launcher(_SubprocessScriptLauncher):
    """Starts the other ranks of this machine, and watches them from rank 0."""

    def __init__(self, environment: Any, processes: int, nodes: int, timeout: float) -> None:
        super().__init__(environment, processes, nodes)
        self.timeout = timeout
        self._ending = False

    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `function` on all ranks; Lightning's words for fit, validate, test and predict."""
        if not self.cluster_environment.creates_processes_externally:
            self.cluster_environment.validate_settings(self.num_processes, self.num_nodes)
            os.environ[LAUNCHER] = str(os.getpid())
            self._call_children_scripts()
            del os.environ[LAUNCHER]
            threading.Thread(target=self._watch, name="ranks", daemon=True).start()
        # All ranks have joined; later calls start and watch none.
        try:
            with signals.at_exit(self._kill_all):
                return super().launch(function, *args, **kwargs)
        except BaseException as error:
            self._ending = True
            if LAUNCHER in os.environ and _is_stopped(os.getppid()):
                os.kill(os.getppid(), signal.SIGCONT)  # let rank 0 say that it was waited for
            lost = self._lost(self._explained(error)) if isinstance(error, Exception) else None
            self._end_all()
            if lost:
                raise ConnectionError(lost) from error
            raise

    def _kill_all(self, failure: str | None) -> bool:
        self.kill(signal.SIGKILL)
        return False

    def _watch(self) -> None:
        """End this process if it waits in a library, indefinitely, for a rank that has ended."""
        while not any(process.poll() for process in self.procs):
            time.sleep(POLL)
        time.sleep(2 * GRACE)  # mostly that wait ends in an exception
        if not self._ending:
            signals.exit_now(1, self._lost())

    def _lost(self, own: str | None = None) -> str | None:
        """Return the rank that has exited or does not answer; None if all are running.

        Args:
            own: what this process knows by itself; it comes before what ranks say of each other.
        """
        deadline = time.monotonic() + GRACE
        waited: dict[int, str] = {}  # what ranks have said that lost another one themselves
        while (self.procs or ranks.number() == 0) and time.monotonic() < deadline:
            for rank in self._others() if ranks.number() == 0 else ():
                if line := ranks.reported_failure(rank):
                    if not line.startswith("ConnectionError"):
                        return f"rank {rank}: {line}"
                    waited[rank] = line.removeprefix("ConnectionError: ")
            for rank, process in enumerate(self.procs, start=ranks.number() + 1):
                if (status := process.poll()) and rank not in waited:
                    if line := ranks.reported_failure(rank):
                        return f"rank {rank}: {line}"
                    return f"rank {rank} {_ending(status)}, so the others ended too"
                if _is_stopped(process.pid):
                    return f"rank {rank} is stopped and did not respond for {self.timeout:g} s"
            time.sleep(POLL)
        return own or next(iter(waited.values()), None)

    def _explained(self, error: Exception) -> str | None:
        """Explain an error of this process that comes from another rank's silence."""
        if isinstance(error, DistStoreError) or "client socket has timed out" in str(error):
            return self._missing()
        return self._silent(str(error)) if isinstance(error, RuntimeError) else None

    def _others(self) -> list[int]:
        return [r for r in range(self.num_processes * self.num_nodes) if r != ranks.number()]

    def _missing(self) -> str:
        """Say which ranks did not join this process, and which setting limits the wait."""
        others = self._others() if ranks.number() == 0 else [0]
        who = " or ".join(f"rank {rank}" for rank in others)
        return f"trainer.strategy.timeout={self.timeout:g}: {who} did not join in these seconds"

    def _silent(self, error: str) -> str | None:
        """Say that another rank is out of reach, if an error of the network means that."""
        several, me = self._others(), ranks.number()
        who = f"rank {several[0]}" if len(several) == 1 else "another rank"
        if not re.search("gloo|nccl", error, re.IGNORECASE):
            return None
        if re.search("timed out|timeout", error, re.IGNORECASE):
            wait = f"trainer.strategy.timeout={self.timeout:g}"
            line = f"{wait}: rank {me} had no answer from {who} in these seconds"
            return f"{line}; ranks wait for each other at each step: does each take as many?"
        if re.search("connection (closed|reset)|broken pipe", error, re.IGNORECASE):
            return f"rank {me} has lost its connection to {who}"
        return None

    def _end_all(self) -> None:
        """Give the ranks a moment to end by themselves; then kill them, including stopped ones."""
        deadline = time.monotonic() + GRACE
        for process in self.procs:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0))
            process.kill()


def _ending(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"


def _is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "T"
    except OSError:  # no such process, or no /proc
        return False


def _end_with(launcher: int) -> None:
    """Have the system kill this process when its parent ends, for whatever reason."""
    if sys.platform == "linux":  # elsewhere it ends when it next waits for its parent
        death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
        ctypes.CDLL(None).prctl(death_signal, signal.SIGKILL)
    if os.getppid() != launcher:
        os._exit(1)
