"""Ranks that torchrun or the user has started, on one host or on two: they share one run."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import TCPStore

from src.kindling.errors import InputError
from src.kindling.process import ranks
from src.kindling.training import hosts
from tests.conftest import ROOT, Command, environment

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs processes as Linux has them"),
    pytest.mark.usefixtures("own_models"),
]
SHORT = ("trainer=ddp_cpu", "data.batch_size=64", "trainer.check_val_every_n_epoch=5")
SHORT += (
    "trainer.strategy.timeout=60",
    "steps_per_execution=1",
    "callbacks.progress.seconds_per_line=0.01",
)
AGENTS: list[TCPStore] = []  # the stores of torchrun's agents, where ranks meet
PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


def started(command: Command, *words: str, restarts: int = 0) -> list[subprocess.Popen[str]]:
    """Start rank 1, and then rank 0, with the variables that torchrun gives them."""
    if not restarts:  # torchrun keeps its store when it restarts the ranks
        AGENTS.append(TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
    shared = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(AGENTS[-1].port)}
    shared["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # a name server that is slow is not what is tested
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    shared |= {"TORCHELASTIC_RESTART_COUNT": str(restarts)}
    line = command.line("train", *words)
    further, first = (
        subprocess.Popen(
            line, cwd=ROOT, env=environment(RANK=rank, LOCAL_RANK=rank, **shared), **PIPES
        )
        for rank in ("1", "0")
    )
    return [first, further]


def ended(processes: list[subprocess.Popen[str]], status: int) -> str:
    """Return what rank 0 has printed; the other one prints nothing."""
    first, other = processes
    further, (out, err) = (process.communicate(timeout=120) for process in (other, first))
    assert [process.returncode for process in processes] == [status] * 2, out + err + further[1]
    assert (err, further) == ("", ("", "")), (err, further)
    return out


def test_the_ranks_of_torchrun_share_one_run_and_stop_and_continue_together(
    command: Command,
) -> None:
    [first, further] = both = started(command, *SHORT, "trainer.max_epochs=100000")
    assert first.stdout is not None
    while "val/loss" not in first.stdout.readline():
        assert first.poll() is None
    further.send_signal(signal.SIGTERM)
    assert ended(both, 143).count("stopped and saved after step") == 1
    [run] = (command.log_dir / "train" / "quadrants").iterdir()
    assert command.latest == run
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], "2 process(es)" in record["device"]) == ("stopped", True)

    # After a rank has died, torchrun starts all again with the same words.
    both = started(command, *SHORT, "trainer.max_epochs=100000", restarts=1)
    [first, further] = both
    assert first.stdout is not None
    assert f"continuing in {run}\n" in first.stdout.readline()
    while "val/loss" not in first.stdout.readline():
        assert first.poll() is None
    further.send_signal(signal.SIGTERM)
    assert ended(both, 143).count("stopped and saved after step") == 1

    words = ("resume=latest", f"trainer.max_epochs={last_epoch(run) + 5}", "allow_changes=true")
    assert f"continuing in {command.log_dir}/" in ended(started(command, *words), 0)
    assert [run] == list((command.log_dir / "train" / "quadrants").iterdir())
    assert json.loads((run / "run.json").read_text())["status"] == "finished"


def last_epoch(run: Path) -> int:
    from src.kindling.files.checkpoint import load_checkpoint

    return int(load_checkpoint(run / "checkpoints" / "last.ckpt")["epoch"]) + 1


def test_settings_that_rank_0_refuses_end_all(command: Command) -> None:
    words = (*SHORT, "init_from=/nowhere")
    first, further = started(command, *words)
    assert "/nowhere" in first.communicate(timeout=120)[1]
    further.communicate(timeout=120)
    assert (first.returncode, further.returncode) == (2, 2)
    assert not command.log_dir.exists()


TRAINER = {"devices": 1, "num_nodes": 2}


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Forget the variables of ranks afterwards."""
    for name in (ranks.VARIABLE, ranks.FIRST, "MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


def test_hosts_that_are_not_told_where_to_meet_are_refused(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(InputError, match=r"trainer.num_nodes=2: MASTER_PORT, NODE_RANK missing"):
        hosts.find_run(TRAINER)
    variables.setenv("TORCHELASTIC_RUN_ID", "none")
    variables.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match=r"trainer.devices=1: 2 process.*torchrun has started 3"):
        hosts.find_run(TRAINER)


def test_a_host_that_finds_no_rank_0_names_itself_and_the_address(
    variables: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    for name, value in {"ADDR": "127.0.0.1", "PORT": port}.items():
        variables.setenv(f"MASTER_{name}", value)
    variables.setenv("NODE_RANK", "1")
    variables.setattr(hosts, "PATIENCE", 1.0)
    message = f"MASTER_ADDR=127.0.0.1 MASTER_PORT={port}: rank 2 had no answer from rank 0"
    with pytest.raises(ConnectionError, match=message):
        hosts.find_run(TRAINER | {"devices": 2})


# Real ones ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_agents_of_torchrun_share_one_run(command: Command) -> None:
    words = (*SHORT, "trainer.devices=1", "trainer.num_nodes=2", "trainer.max_epochs=10")
    line = ["-m", "src.train", *command.words("train", *words)]
    meeting = ["--nnodes=2", "--nproc-per-node=1", f"--master-port={free_port()}"]
    agents = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *meeting, f"--node-rank={rank}", *line],
            cwd=ROOT,
            env=environment(),
            **PIPES,
        )
        for rank in (1, 0)
    ]
    said = [agent.communicate(timeout=240) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    [run] = (command.log_dir / "train" / "quadrants").iterdir()
    assert command.latest == run
    assert json.loads((run / "run.json").read_text())["status"] == "finished"


@contextlib.contextmanager
def two_hosts() -> Iterator[list[tuple[str, str]]]:
    """Yield two network namespaces that a cable connects, with the name of the device in each."""
    names = [f"kindling{os.getpid()}{end}" for end in "ab"]
    pairs = [(name, f"kin{os.getpid() % 10**6}{name[-1]}") for name in names]
    (one, left), (two, right) = pairs
    commands = [f"netns add {one}", f"netns add {two}"]
    commands += [f"link add {left} netns {one} type veth peer name {right} netns {two}"]
    for number, (name, device) in enumerate(pairs, start=1):
        commands += [f"-n {name} addr add 10.99.7.{number}/24 dev {device}"]
        commands += [f"-n {name} link set {end} up" for end in (device, "lo")]
    try:
        for words in commands:
            subprocess.run(["ip", *words.split()], check=True, timeout=10)
        yield pairs
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, timeout=10)


def can_make_hosts() -> bool:
    return os.name == "posix" and os.getuid() == 0 and Path("/usr/sbin/ip").exists()


@pytest.mark.slow
@pytest.mark.skipif(not can_make_hosts(), reason="network namespaces need root, and ip")
def test_two_hosts_share_one_run_and_end_when_the_cable_is_cut(command: Command) -> None:
    def start(*words: str) -> list[subprocess.Popen[str]]:
        shared = {
            "MASTER_ADDR": "10.99.7.1",
            "MASTER_PORT": "29511",
            "TORCH_CPP_LOG_LEVEL": "ERROR",
        }
        line = [sys.executable, "-m", "src.train", *command.words("train", *words)]
        return [
            subprocess.Popen(
                ["ip", "netns", "exec", name, *line],
                cwd=ROOT,
                env=environment(NODE_RANK=str(rank), GLOO_SOCKET_IFNAME=device, **shared),
                **PIPES,
            )
            for rank, (name, device) in enumerate(pairs)
        ]

    two = ("trainer.devices=1", "trainer.num_nodes=2", "trainer.strategy.timeout=20")
    with two_hosts() as pairs:
        first, further = start(*SHORT, *two, "trainer.max_epochs=100000")
        assert first.stdout is not None
        while "val/loss" not in first.stdout.readline():
            assert first.poll() is None, first.communicate()
        name, device = pairs[1]
        subprocess.run(["ip", "-n", name, "link", "set", device, "down"], check=True, timeout=10)
        cut = time.monotonic()
        said = [process.communicate(timeout=120)[1] for process in (first, further)]
        assert time.monotonic() - cut < 60
        assert [first.returncode, further.returncode] == [1, 1], said
        for rank, other, line in ((0, 1, said[0]), (1, 0, said[1])):
            wait = "error: ConnectionError: trainer.strategy.timeout=20: "
            assert line.startswith(f"{wait}rank {rank} had no answer from rank {other} in"), said
            assert line.count("\n") == 1
        [run] = (command.log_dir / "train" / "quadrants").iterdir()
        assert command.latest == run
        assert json.loads((run / "run.json").read_text())["status"] == "failed"

        subprocess.run(["ip", "-n", name, "link", "set", device, "up"], check=True, timeout=10)
        words = (f"trainer.max_epochs={last_epoch(run) + 5}", "allow_changes=true")
        both = start("resume=latest", *words)
        out = [process.communicate(timeout=120) for process in both]
        assert [process.returncode for process in both] == [0, 0], out
        assert json.loads((run / "run.json").read_text())["status"] == "finished"
