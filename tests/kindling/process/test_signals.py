"""Signals: what is done and said, and with which status, from the first import to the last line."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from src.kindling import layout
from tests.conftest import ROOT, Command, environment
from tests.forked import Forked
from tests.kills import differences
from tests.kindling import examples
from tests.warm import PYTHON

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
LINES = ("callbacks.progress.seconds_per_line=0.01", "model.hidden_features=64")
LONG = ("train", "trainer.accelerator=cpu", "trainer.max_epochs=100000", *LINES)
STATUS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 0)]
HANGUP = pytest.param(
    signal.SIGHUP,
    129,
    marks=pytest.mark.skipif(
        signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, reason="under nohup it is ignored"
    ),
)


def resuming(forked: Forked) -> str:
    """Return the command line that resumes a run of the examples."""
    return f"python -m src.train --config-dir={examples.CONF} resume={forked.run}"


@pytest.mark.parametrize(("number", "status"), STATUS)
def test_during_imports_one_line_and_nothing_on_disk(
    number: signal.Signals, status: int, command: Command
) -> None:
    line = [sys.executable, *command.line("train")[len(PYTHON) :]]  # with its imports to do
    process = subprocess.Popen(line, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)
    while not listens(Path(f"/proc/{process.pid}/status").read_text()):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert err.endswith("interrupted before anything was saved\n")
    assert err.count("\n") == 1
    assert not command.log_dir.exists()


def listens(status: str) -> bool:
    """Say whether a process, by its /proc/PID/status, catches all three signals."""
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return all(int(mask, 16) >> (number - 1) & 1 for number, _ in STATUS)


def test_importing_the_project_takes_no_signal() -> None:
    code = "import signal; from src import train; print(signal.getsignal(signal.SIGTERM) == 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize(("number", "status"), [*STATUS[1:2], HANGUP])
def test_in_training_the_step_is_finished_and_saved(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    forked = Forked(tmp_path, *LONG)
    forked.wait_until(lambda: "step " in forked.out)
    forked.send(number)
    assert forked.wait() == status
    assert forked.err == ""
    saved = torch.load(forked.run / "checkpoints" / "last.ckpt", weights_only=True)
    said = f"stopped and saved after step {saved['global_step']}; to continue:\n"
    assert forked.out.endswith(f"{said}  {resuming(forked)}\n")
    assert json.loads((forked.run / "run.json").read_text())["status"] == "stopped"
    assert (forked.run / "run.log").read_text() == forked.out


HUNDRED = ("train", "trainer.max_epochs=100", "trainer.accelerator=cpu", *LINES)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    forked = Forked(tmp_path_factory.mktemp("straight"), *HUNDRED, "~callbacks.figures")
    assert forked.wait() == 0
    return forked.run


@pytest.mark.parametrize("number", [number for number, _ in STATUS])
def test_a_stopped_run_resumes_to_the_same_end(
    number: signal.Signals, straight: Path, tmp_path: Path
) -> None:
    forked = Forked(tmp_path, *HUNDRED, "~callbacks.figures")
    forked.wait_until(lambda: "step " in forked.out)
    forked.send(number)
    assert forked.wait() == dict(STATUS)[number]
    path = forked.run
    resumed = Forked(tmp_path, "train", "resume=latest")
    assert (resumed.wait(), resumed.err, resumed.run) == (0, "", path)
    assert json.loads((path / "run.json").read_text())["status"] == "finished"
    for name in ("best", "last"):
        assert_same(path / f"checkpoints/{name}.ckpt", straight / f"checkpoints/{name}.ckpt")


def test_a_stop_where_a_validation_is_due_loses_none(tmp_path: Path) -> None:
    words = ("train", "model=teacher", "trainer.accelerator=cpu", LINES[0])
    words += ("trainer.max_epochs=6", "trainer.val_check_interval=1", "~callbacks.figures")
    words += ("steps_per_execution=1",)  # a validation may be due after each
    forked = Forked(tmp_path / "stopped", *words)
    forked.wait_until(lambda: "step " in forked.out)
    forked.send(signal.SIGTERM)
    assert forked.wait() == 143
    resumed = Forked(tmp_path / "stopped", "train", "resume=latest")
    straight = Forked(tmp_path / "straight", *words)
    assert (resumed.wait(), straight.wait()) == (0, 0)
    assert list(differences(straight.run, resumed.run)) == []


# Worker processes, and further ranks --------------------------------------------------------------

FORKED = """
import os, signal, time, warnings
from src.kindling.process import signals
warnings.simplefilter("ignore")  # of Python 3.12 on: torch has threads
signals.install_handlers()
go, told = os.pipe()
if not (worker := os.fork()):
    if {handles}:
        signal.signal(signal.SIGTERM, lambda *_: None)
    os.write(told, b".")
    time.sleep(3)
    os._exit(7)
os.read(go, 1)
os.kill(worker, signal.{name})
print(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]), flush=True)
"""


@pytest.mark.parametrize(
    ("name", "handles", "ended"),
    [
        ("SIGINT", False, "7\n"),  # it reaches all processes of a terminal: the loader ends them
        ("SIGTERM", False, "-15\n"),
        ("SIGTERM", True, "7\n"),  # a byte in the pipe of its parent would end that one
    ],
)
def test_a_worker_process_keeps_its_signals_to_itself(name: str, handles: bool, ended: str) -> None:
    code = FORKED.format(name=name, handles=handles)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, ended, "")


ENDED = """
import os, signal
from src.kindling.process import signals
signals.install_handlers()
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_the_first_rank_speaks_for_all(rank: str, lines: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDED],
        cwd=ROOT,
        env=environment(LOCAL_RANK=rank),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr.count("interrupted before anything was saved\n") == lines
    assert done.stderr.count("\n") == lines


def assert_same(one: Path, other: Path) -> None:
    """Compare two checkpoints of one training: steps, weights, optimizer, schedule, bit for bit."""
    a, b = (torch.load(path, weights_only=True) for path in (one, other))
    assert a["global_step"] == b["global_step"]
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(a[part], b[part], rtol=0, atol=0)


# Where nothing can be finished, or nobody wants to wait for it -----------------------------------


def _endless(*_: object, **__: object) -> None:
    print("endless", flush=True)
    while True:
        time.sleep(1)


def endless_set_up() -> None:
    """Let the builder of experiments never return."""
    from src.kindling import build

    build.build = _endless


def deaf_set_up() -> None:
    """Let the set-up wait in a library, from which no Python code runs: for another rank."""
    import torch.distributed

    from src.kindling import build

    def waiting(*_: object) -> None:
        print("endless", flush=True)
        torch.distributed.TCPStore("127.0.0.1", 0, world_size=2, is_master=True)

    build.build = waiting


def endless_step() -> None:
    """Let the third training step never return."""
    from src.kindling.model import BaseModule

    step = BaseModule.training_step

    def third(self: BaseModule, batch: object, batch_idx: int) -> object:
        return _endless() if self.global_step >= 8 else step(self, batch, batch_idx)

    BaseModule.training_step = third


def slow_validation() -> None:
    """Let each batch of a validation take half a second, once there is a checkpoint."""
    from src.kindling.model import BaseModule

    step = BaseModule.validation_step

    def slow(self: BaseModule, batch: object, batch_idx: int) -> None:
        step(self, batch, batch_idx)
        if self.current_epoch:
            print("endless", flush=True)
            time.sleep(0.5)

    BaseModule.validation_step = slow


def endless_test() -> None:
    """Let the test never end."""
    from src.kindling.model import BaseModule

    BaseModule.test_step = _endless


@pytest.mark.parametrize(
    ("where", "number"),
    [
        (endless_set_up, signal.SIGTERM),
        (endless_set_up, signal.SIGUSR1),
        (deaf_set_up, signal.SIGINT),
    ],
)
def test_during_set_up_it_ends_at_once(
    where: Callable[[], None], number: signal.Signals, tmp_path: Path
) -> None:
    forked = Forked(tmp_path, *LONG, first=where)
    forked.wait_until(lambda: "endless" in forked.out)
    forked.send(number)
    assert forked.wait(60) == dict(STATUS)[number]
    assert forked.err.endswith("interrupted before anything was saved\n")
    assert forked.err.count("\n") == 1
    assert not list(forked.logs.rglob("*"))


def test_a_second_interrupt_does_not_wait_for_the_step(tmp_path: Path) -> None:
    forked = Forked(tmp_path, *LONG, "trainer.check_val_every_n_epoch=1", first=endless_step)
    forked.wait_until(lambda: "endless" in forked.out)
    # Saved twice, the second time by a thread that may still be writing.
    forked.wait_until(lambda: (forked.run / "checkpoints" / "previous.ckpt").exists())
    forked.wait_until(lambda: list((forked.run / "checkpoints").glob(".*.tmp")) == [])
    before = (forked.run / "checkpoints" / "last.ckpt").read_bytes()
    forked.send(signal.SIGINT)
    forked.send(signal.SIGTERM)  # hastens nothing
    with pytest.raises(subprocess.TimeoutExpired):
        forked.process.wait(1.5)
    forked.send(signal.SIGINT)
    assert forked.wait(60) == 130
    assert forked.err == ""
    assert forked.out.endswith(f"stopped at once; to continue:\n  {resuming(forked)}\n")
    assert (forked.run / "checkpoints" / "last.ckpt").read_bytes() == before
    assert json.loads((forked.run / "run.json").read_text())["status"] == "stopped"


def test_a_long_validation_is_left(tmp_path: Path) -> None:
    batches = ("trainer.check_val_every_n_epoch=1", "data.batch_size=2", "model.hidden_features=4")
    forked = Forked(tmp_path, *LONG, *batches, first=slow_validation)
    forked.wait_until(lambda: "endless" in forked.out)
    forked.send(signal.SIGTERM)
    assert forked.wait(60) == 143
    assert "stopped in the validation after step 878, without saving; to continue:" in forked.out
    saved = torch.load(forked.run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 439  # an epoch


def test_after_training_nothing_new_is_saved(tmp_path: Path) -> None:
    quick = ("train", "model=line", "trainer.accelerator=cpu")
    forked = Forked(tmp_path, *quick, first=endless_test)
    forked.wait_until(lambda: "endless" in forked.out)
    before = (forked.run / "checkpoints" / "last.ckpt").read_bytes()
    forked.send(signal.SIGTERM)
    assert forked.wait(60) == 143
    assert forked.err == ""
    assert f"to continue:\n  {resuming(forked)}\n" in forked.out
    assert (forked.run / "checkpoints" / "last.ckpt").read_bytes() == before


def test_the_command_that_resumes_is_quoted_for_its_readers() -> None:
    odd = 'it\'s 1, {two} & \\"three"=$HOME'
    with layout.added_folders([]):
        plain = layout.command_line("train", resume="logs/a")
        typed = shlex.split(layout.command_line("train", resume=odd))
    assert plain == "python -m src.train resume=logs/a"
    [override] = OverridesParser.create().parse_overrides(typed[3:])
    assert override.value() == odd
