"""The stand-in for the interpreter behaves as the interpreter does, seen from outside."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

from tests.conftest import environment
from tests.warm import ADDRESS, PYTHON

pytestmark = pytest.mark.skipif(ADDRESS not in os.environ, reason="no pidfd here, so no stand-in")
WORDS = ["-m", "probe", "a b", "", "ü"]
SURROUNDINGS = """
import os, sys
print(__name__, sys.argv[1:], sys.orig_argv[1:], os.getcwd(), os.environ["COLUMNS"], sys.path[:2])
print(repr(sys.stdin.read()), os.path.basename(sys.argv[0]), __spec__.name)
print("said", file=sys.stderr)
"""

# Python may take a signal just before `signal.pause()`, which then waits for a second one.
WAITING = """
import os, time
print(os.getpid(), flush=True)
while True:
    time.sleep(0.01)
"""
COUNTING = """
import signal
signal.alarm(60)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
for count in range(200):
    print(count, flush=True)
    signal.sigwait([signal.SIGUSR1])
"""


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    return tmp_path / "probe.py"


def ended(python: list[str], folder: Path, *options: str) -> tuple[int, str, str]:
    """Return how a program ends and what it says, whatever the line numbers of a traceback."""
    done = subprocess.run(
        [*python, *options, *WORDS],
        cwd=folder,
        env=environment(PYTHONPATH="/somewhere"),
        input="typed\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    # Torch's extensions may report leaks of the interpreter that is not cleaned up.
    said = done.stderr.partition("nanobind: ")[0].splitlines()
    return done.returncode, done.stdout, (said or [""])[-1]


@pytest.mark.parametrize(
    ("program", "status"),
    [
        (SURROUNDINGS, 0),
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit('a word')", 1),
        ("print('begun'); raise ValueError('wrong')", 1),
        ("import atexit; atexit.register(print, 'last')", 0),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("import warnings; warnings.warn('loud')", 1),
    ],
)
def test_a_program_ends_as_it_would(program: str, status: int, probe: Path) -> None:
    probe.write_text(program)
    found = ended(PYTHON, probe.parent, "-W", "error")
    assert found == ended([sys.executable], probe.parent, "-W", "error")
    assert found[0] == status


def test_torch_is_there_before_the_program_is(probe: Path) -> None:
    probe.write_text("import sys; print('lightning.pytorch' in sys.modules, 'src' in sys.modules)")
    assert ended(PYTHON, probe.parent)[1] == "True False\n"


def test_a_server_with_threads_leaves_the_program_to_a_new_interpreter(probe: Path) -> None:
    """Stand in for a build of torch whose import starts a thread."""
    thread = "from threading import *\nThread(target=Event().wait, args=[60], daemon=True).start()"
    (probe.parent / "sitecustomize.py").write_text(thread)
    probe.write_text(SURROUNDINGS)
    threaded = {**os.environ, "PYTHONPATH": str(probe.parent)}
    address = f"{probe.parent}/socket"
    words = [sys.executable, PYTHON[-1], "--serve", address]
    with subprocess.Popen(words, stdin=-1, stdout=-1, env=threaded, process_group=0) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with mock.patch.dict(os.environ, {ADDRESS: address}):
            assert ended(PYTHON, probe.parent) == ended([sys.executable], probe.parent)
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_the_program(number: signal.Signals, probe: Path) -> None:
    probe.write_text(WAITING)
    with subprocess.Popen(
        [*PYTHON, "-m", "probe"], cwd=probe.parent, stdout=-1, stderr=-1, text=True
    ) as process:
        assert process.stdout is not None
        program = int(process.stdout.readline())
        process.send_signal(number)
        assert status_of(process) == -number
    deadline = time.monotonic() + 60
    while Path(f"/proc/{program}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_signal_is_passed_on_at_whatever_instant_it_comes(probe: Path) -> None:
    probe.write_text(COUNTING)
    with subprocess.Popen([*PYTHON, "-m", "probe"], cwd=probe.parent, stdout=-1) as process:
        assert process.stdout is not None
        for count in range(200):  # one that is not passed on leaves the next line out
            assert int(process.stdout.readline()) == count
            process.send_signal(signal.SIGUSR1)
        assert status_of(process) == 0


def status_of(process: subprocess.Popen) -> int:
    """Return the exit status of a process; one that does not end is killed, and the test fails."""
    try:
        return process.wait(timeout=60)
    finally:
        process.kill()
