"""A hand-written loop as the script that it would be: in a process of its own.

There, memory that a step frees may be returned to the system and faulted in again page by page; a
training run keeps it (src/kindling/process/memory.py).
"""

import json
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

import torch

from tests.benchmarks import raw_loops
from tests.benchmarks.measure import ROOT


class Script:
    """Take steps when called, in a process that imports only torch.

    Args:
        loop: the name of its maker in raw_loops.py.
        arguments: the arguments of the maker; must fit into JSON.
    """

    def __init__(self, loop: str, *arguments: Any) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.script", json.dumps([loop, *arguments])]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, steps: int) -> None:
        """Take `steps` steps and wait for them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(steps, file=self._process.stdin, flush=True)
        if not self._process.stdout.readline():
            raise RuntimeError("the hand-written loop has ended")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()  # closes its input, which ends it


def main() -> None:
    """Make the loop named on the command line; take as many steps as each line of input says."""
    torch.set_num_threads(1)
    name, *arguments = json.loads(sys.argv[1])
    loop = getattr(raw_loops, name)(*arguments)
    for line in sys.stdin:
        loop(int(line))
        print("taken", flush=True)


if __name__ == "__main__":
    main()
