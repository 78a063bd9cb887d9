"""Freed memory stays with the process: counted in page faults of a process of its own."""

import subprocess
import sys

import pytest

# Six buffers of a megabyte a step, freed from the last to the first: what is on top goes back.
STEPS = """
import resource, sys
from src.kindling.process.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        buffers = [bytearray(2**20) for _ in range(6)]
        while buffers:
            buffers.pop()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(5)
print(faults(20))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_buffers_of_a_step_cause_no_page_faults_in_the_next() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", STEPS, how]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    assert faults("kept") < 100
    assert faults("as it comes") > 20 * 1000  # of 1,536 pages each
