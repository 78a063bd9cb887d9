"""kill -9 while a checkpoint is written: the file is the old or the new one, whole."""

import os
import random
import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch

from src import checkpoint_io
from src.atomic_write import remove_leftovers

KILLS = 120
FOLDERS = {"beside the temporary directory": tempfile.gettempdir(), "elsewhere": "/dev/shm"}


@pytest.mark.parametrize("where", FOLDERS)
def soak_kills_during_saving(where: str) -> None:
    if not os.path.isdir(FOLDERS[where]):
        pytest.skip(f"there is no {FOLDERS[where]}")
    elsewhere = os.stat(FOLDERS[where]).st_dev != os.stat(tempfile.gettempdir()).st_dev
    assert elsewhere == (where == "elsewhere")
    with tempfile.TemporaryDirectory(dir=FOLDERS[where]) as name:
        kills(where, Path(name))


def kills(where: str, folder: Path) -> None:
    """Kill a process that saves, again and again, and look at what it leaves."""
    target, instants, amid = folder / "last.ckpt", random.Random(where), 0
    start = time.monotonic()
    for count in range(10):
        save(target, count)
    a_save = (time.monotonic() - start) / 10
    for _ in range(KILLS):
        before = number(target)
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            remove_leftovers(folder)  # as a run does when it starts
            for count in range(before + 1, before + 10**6):
                os.write(writer, b".")
                save(target, count)
        os.read(reader, 1)
        time.sleep(instants.uniform(0, 3 * a_save))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
        assert number(target) >= before
        if (previous := folder / "previous.ckpt").exists():
            number(previous)
        left = set(os.listdir(folder)) - {"last.ckpt", "previous.ckpt"}
        assert len(left) <= 1, left
        amid += len(left)
    remove_leftovers(folder)
    assert set(os.listdir(folder)) <= {"last.ckpt", "previous.ckpt"}
    print(f"\n{where}: {KILLS} kills, {amid} of them amid writing: 0 corrupt, no leftover stays")
    assert amid > KILLS // 10


def save(target: Path, count: int) -> None:
    """Save eight megabytes that all say the same number."""
    content = {"state_dict": {"weight": torch.full((2_000_000,), float(count))}}
    checkpoint_io.AtomicCheckpointIO().save_checkpoint(content, target)


def number(path: Path) -> int:
    """Return the number that a whole checkpoint says."""
    [first, *others] = set(checkpoint_io.load(path)["state_dict"]["weight"].tolist())
    assert not others
    return int(first)
