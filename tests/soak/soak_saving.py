"""kill -9 while a checkpoint is written: each file is the old or the new one, whole."""

import io
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch

from src.kindling.files.atomic_write import remove_leftovers
from src.kindling.files.checkpoint import AtomicCheckpointIO, load_checkpoint

KILLS = 120
SAVES = 6  # of a process that is killed
FOLDERS = {"in the temporary directory": tempfile.gettempdir(), "elsewhere": "/dev/shm"}
NAMES = {"best.ckpt", "last.ckpt", "previous.ckpt"}


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
    best, last, instants, left_over = (
        folder / "best.ckpt",
        folder / "last.ckpt",
        random.Random(where),
        0,
    )
    contents = serialized(range(1, SAVES + 1))
    start = time.monotonic()
    save(folder, contents)
    a_save = (time.monotonic() - start) / SAVES
    for _ in range(KILLS):
        before = number(last)
        # Serialised before, in memory, so that it is the writing that is killed.
        contents = serialized(range(before + 1, before + SAVES + 1))
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            remove_leftovers(folder)  # as a run does when it starts
            os.write(writer, b".")
            save(folder, contents)
            signal.pause()
        os.read(reader, 1)
        time.sleep(instants.uniform(0, SAVES * a_save))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
        assert number(last) >= before
        assert number(best) in (number(last), number(last) + 1)  # what the last counts on is there
        if (previous := folder / "previous.ckpt").exists():
            assert number(previous) in (number(last) - 1, number(last))
        left = set(os.listdir(folder)) - NAMES
        assert len(left) <= 1, left
        left_over += len(left)
    remove_leftovers(folder)
    assert set(os.listdir(folder)) <= NAMES
    print(
        f"\n{where}: {KILLS} kills, {left_over} of them while writing: 0 corrupt, nothing left over"
    )
    assert left_over > KILLS // 10


def serialized(numbers: range) -> dict[int, bytes]:
    """Return checkpoints of eight megabytes that all say the same number."""
    contents = {}
    for count in numbers:
        file = io.BytesIO()
        torch.save({"state_dict": {"weight": torch.full((2_000_000,), float(count))}}, file)
        contents[count] = file.getvalue()
    return contents


def save(folder: Path, contents: dict[int, bytes]) -> None:
    """Save each as the best and the last, by a thread, as a run does."""
    writer = AtomicCheckpointIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", lambda count, file: file.write(contents[count]))
        for count in contents:
            with writer.in_background():
                writer.save_checkpoint(count, folder / "best.ckpt")  # type: ignore[arg-type]
                writer.name_checkpoint(folder / "last.ckpt", folder / "best.ckpt")
        writer.teardown()


def number(path: Path) -> int:
    """Return the number that a whole checkpoint says."""
    least, most = load_checkpoint(path)["state_dict"]["weight"].aminmax()
    assert least == most
    return int(least)
