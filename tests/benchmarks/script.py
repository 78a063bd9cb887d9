"""A hand-written loop as the script that it would be: in a process of its own.

There the memory that a step frees may return to the system and come back page by page. A training
run keeps it (src/kindling/process/memory.py).
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
    """Takes steps when it is called, in a process that imports torch and no more.

    Args:
        loop: the name of its maker in raw_loops.py.
        arguments: the maker's, which JSON can hold.
    """

    def __init__(self, loop: str, *arguments: Any) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.script", json.dumps([loop, *arguments])]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, steps: int) -> None:
        """Wait until so many steps are taken."""
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
        self._process.communicate()  # which closes its input: it ends


def main() -> None:
    """Make the loop that the command line says; take as many steps as each line says."""
    torch.set_num_threads(1)
    name, *arguments = json.loads(sys.argv[1])
    loop = getattr(raw_loops, name)(*arguments)
    for line in sys.stdin:
        loop(int(line))
        print("taken", flush=True)


if __name__ == "__main__":
    main()
