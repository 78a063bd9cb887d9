"""A run outlives those who read its output."""

import json
import shlex
import subprocess
import sys

import pytest

from src.kindling.cli.command import one_line_errors
from tests.conftest import ROOT, Command, environment
from tests.kindling import examples
from tests.warm import PYTHON

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
SHORT = examples.arguments("train", "model=line", "trainer.max_epochs=30", "~callbacks.figures")


@pytest.mark.parametrize("output", ["| head -1", ">&- 2>&-"])
def test_training_continues_into_the_log_when_nobody_reads(output: str, command: Command) -> None:
    # Not from the warm server where its client would lack the streams that it hands over.
    python = [sys.executable] if ">&-" in output else PYTHON
    words = [*python, "-m", "src.train", *SHORT, f"log_dir={command.log_dir}"]
    line = f"set -o pipefail; {shlex.join(words)} {output}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=ROOT, env=environment(), capture_output=True, timeout=240
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads((command.latest / "run.json").read_text())["status"] == "finished"
    assert "test/loss" in (command.latest / "run.log").read_text()


def test_a_pipe_that_breaks_elsewhere_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise BrokenPipeError(32, "Broken pipe")  # of a DataLoader's worker that has died
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: BrokenPipeError: [Errno 32] Broken pipe\n"
