"""Checkpoints are written whole or not at all, and nothing but plain data is ever read."""

import concurrent.futures
import errno
import os
import pickle
import threading
from pathlib import Path

import pytest
import torch

from src.kindling.files.atomic_write import name_atomically, write_atomically
from src.kindling.files.checkpoint import AtomicCheckpointIO, load_checkpoint

posix = pytest.mark.skipif(os.name != "posix", reason="permissions of files are POSIX's")
CHECKPOINT = {
    "state_dict": {"net.weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)},
    "config": {"seed": 3, "model": {"_target_": "a.B", "betas": [0.9, 0.999], "name": None}},
    "epoch": 4,
}


class Hostile:
    """Unpickling one makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def target(tmp_path):
    """A file with old content, alone in its folder."""
    path = tmp_path / "folder" / "file.ckpt"
    path.parent.mkdir()
    path.write_bytes(b"old")
    return path


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


# Writing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"new", bytes(range(256)) * 4096])
def test_replaces_the_content_and_leaves_no_other_file(target, content):
    write_atomically(target, content)
    assert target.read_bytes() == content
    assert os.listdir(target.parent) == [target.name]


def test_takes_a_memoryview(target):
    write_atomically(target, memoryview(b"new"))
    assert target.read_bytes() == b"new"


@posix
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o000])
def test_permissions_follow_the_umask(tmp_path, mask):
    previous = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", b"new")
        assert os.umask(mask) == mask  # and it is still what it was
    finally:
        os.umask(previous)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("call", ["replace", "fsync", "open"])
def test_a_write_that_fails_keeps_the_old_file_and_removes_the_temporary(target, monkeypatch, call):
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(target.parent) == [target.name]


def test_a_write_that_is_interrupted_removes_the_temporary(target, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, b"new")
    assert os.listdir(target.parent) == [target.name]


def test_the_content_is_on_disk_before_it_gets_its_name(target, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)

        def noted(*arguments, name=name, original=original):
            calls.append(name)
            return original(*arguments)

        monkeypatch.setattr(os, name, noted)
    write_atomically(target, b"new")
    assert calls[:2] == ["fsync", "replace"]
    assert calls.count("replace") == 1


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
def test_a_file_gets_a_second_name_and_neither_changes_the_other(target, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", full_disk)  # as good a reason as any
    other, previous = target.with_name("other"), target.with_name("previous")
    write_atomically(other, b"new")
    name_atomically(target, other, previous)
    assert [path.read_bytes() for path in (target, other, previous)] == [b"new", b"new", b"old"]
    assert os.path.samefile(target, other) == links
    name_atomically(target, other)  # once more: there is nothing to do
    write_atomically(other, b"newer")
    assert [path.read_bytes() for path in (target, other, previous)] == [b"new", b"newer", b"old"]
    assert sorted(os.listdir(target.parent)) == sorted(p.name for p in (target, other, previous))


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_name_that_cannot_be_given_leaves_the_old_file(target, monkeypatch, call):
    other = target.with_name("other")
    other.write_bytes(b"new")
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(OSError, match="No space left"):
        name_atomically(target, other)
    assert target.read_bytes() == (b"old" if call == "replace" else b"new")
    assert sorted(os.listdir(target.parent)) == sorted([target.name, "other"])


def test_a_folder_that_is_not_there_raises(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        write_atomically(tmp_path / "nowhere" / "file", b"new")


def test_a_reader_sees_the_old_or_the_new_content_whole(tmp_path):
    path, contents = tmp_path / "file", [bytes([n]) * 50_000 for n in range(40)]
    path.write_bytes(contents[0])
    seen, done = set(), threading.Event()

    def read():
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for content in contents:
        write_atomically(path, content)
    done.set()
    reader.join()
    assert seen
    assert seen <= set(contents)


# Checkpoints there and back -----------------------------------------------------------------------


def assert_same(content, expected):
    assert content.keys() == expected.keys()
    for name, tensor in expected["state_dict"].items():
        assert torch.equal(content["state_dict"][name], tensor)
    rest = {"config", "epoch"}
    assert {key: content[key] for key in rest} == {key: expected[key] for key in rest}


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    path = tmp_path / "new" / "folder" / "best.ckpt"
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    assert_same(load_checkpoint(path), CHECKPOINT)
    assert_same(AtomicCheckpointIO().load_checkpoint(path), CHECKPOINT)
    assert os.listdir(path.parent) == ["best.ckpt"]


def test_what_cannot_be_serialized_leaves_the_old_file(target):
    with pytest.raises((pickle.PicklingError, AttributeError)):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "loss": lambda: 0}, target)
    assert target.read_bytes() == b"old"
    assert os.listdir(target.parent) == [target.name]


def blocked(monkeypatch):
    """Let nothing come to disk before the event that is returned."""
    event, fsync = threading.Event(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (event.wait(60), fsync(descriptor)))
    return event


def test_queued_operations_run_in_order_on_a_thread(tmp_path, monkeypatch):
    writer, event = AtomicCheckpointIO(), blocked(monkeypatch)
    best, last, gone = (tmp_path / name for name in ("best.ckpt", "last.ckpt", "step-1.ckpt"))
    gone.touch()
    weights = torch.zeros(3)
    with writer.in_background():
        writer.save_checkpoint({**CHECKPOINT, "state_dict": {"weights": weights}}, best)
        writer.remove_checkpoint(gone)
        writer.name_checkpoint(last, best)
    weights += 1  # training continues; the file has the weights of before
    writer.raise_failures()
    assert not best.exists()
    event.set()
    writer.teardown()
    assert sorted(os.listdir(tmp_path)) == ["best.ckpt", "last.ckpt"]
    assert load_checkpoint(last)["state_dict"]["weights"].tolist() == [0, 0, 0]
    assert threading.active_count() == 1 or "checkpoints" not in str(threading.enumerate())


def test_who_saves_by_himself_finds_the_file_and_those_before_it(tmp_path, monkeypatch):
    writer, event = AtomicCheckpointIO(), blocked(monkeypatch)
    with writer.in_background():
        writer.save_checkpoint({**CHECKPOINT, "epoch": 1}, tmp_path / "last.ckpt")
    threading.Timer(0.05, event.set).start()
    writer.save_checkpoint({**CHECKPOINT, "epoch": 2}, tmp_path / "last.ckpt")
    assert load_checkpoint(tmp_path / "last.ckpt")["epoch"] == 2
    assert load_checkpoint(tmp_path / "previous.ckpt")["epoch"] == 1


@pytest.mark.parametrize("call", ["finish", "teardown", "raise_failures", "save", "in_background"])
def test_a_failure_drops_the_rest_and_is_raised_by_the_next_call(tmp_path, monkeypatch, call):
    writer, last = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    writer.save_checkpoint(CHECKPOINT, last)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with writer.in_background():
            writer.save_checkpoint({**CHECKPOINT, "epoch": 5}, tmp_path / "best.ckpt")
            writer.remove_checkpoint(last)
        concurrent.futures.wait([writer._under_way])
    calls = {
        "save": lambda: writer.save_checkpoint(CHECKPOINT, tmp_path / "other.ckpt"),
        "in_background": lambda: writer.in_background().__enter__(),
    }
    with pytest.raises(OSError, match=r"No space left on device: .*best\.ckpt"):
        calls.get(call, getattr(writer, call, None))()
    assert os.listdir(tmp_path) == ["last.ckpt"]
    assert load_checkpoint(last)["epoch"] == CHECKPOINT["epoch"]
    writer.teardown()  # it is raised once


def test_removing_a_checkpoint_twice_is_not_an_error(target):
    AtomicCheckpointIO().remove_checkpoint(target)
    assert not target.exists()
    AtomicCheckpointIO().remove_checkpoint(target)
    assert not target.exists()


# Reading ------------------------------------------------------------------------------------------


def saved(path, content):
    torch.save(content, path)
    return path


def truncated(path, share):
    whole = saved(path, CHECKPOINT).read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


NO_CHECKPOINTS = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("state_dict: {}\n"),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 10),
    "a tenth": lambda path: truncated(path, 0.1),
    "half": lambda path: truncated(path, 0.5),
    "all but the end": lambda path: truncated(path, 0.99),
    "a tensor": lambda path: saved(path, torch.ones(2)),
    "a list": lambda path: saved(path, [CHECKPOINT]),
    "a dict without state_dict": lambda path: saved(path, {"epoch": 1}),
    "a state_dict that is not a dict": lambda path: saved(path, {"state_dict": 3}),
    "a class": lambda path: saved(path, {"state_dict": {}, "kind": Hostile}),
    "a path": lambda path: saved(path, {"state_dict": {}, "path": Path("x")}),
}


@pytest.mark.parametrize("kind", NO_CHECKPOINTS)
def test_refuses_what_is_not_a_checkpoint_and_names_it(tmp_path, kind):
    path = tmp_path / "file.ckpt"
    NO_CHECKPOINTS[kind](path)
    with pytest.raises(ValueError, match=r"file\.ckpt") as refusal:
        load_checkpoint(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_refuses_a_missing_file_and_names_it(tmp_path):
    with pytest.raises(FileNotFoundError) as refusal:
        load_checkpoint(tmp_path / "missing.ckpt")
    assert str(tmp_path / "missing.ckpt") in str(refusal.value)


def test_refuses_a_directory_and_names_it(tmp_path):
    with pytest.raises(FileNotFoundError) as refusal:
        load_checkpoint(tmp_path)
    assert str(tmp_path) in str(refusal.value)


@pytest.mark.parametrize("address", ["http://example.org/best.ckpt", "s3://bucket/best.ckpt"])
def test_refuses_an_address_and_names_it(address):
    for read in (
        lambda: load_checkpoint(Path(address)),
        lambda: AtomicCheckpointIO().load_checkpoint(address),
    ):
        with pytest.raises(FileNotFoundError) as refusal:
            read()
        assert str(Path(address)) in str(refusal.value)


# Torch warns before it obeys the variable; a warning that is an error would hide that it did.
@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
@pytest.mark.parametrize("forced", [False, True], ids=["plain", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
@pytest.mark.parametrize("form", ["torch.save", "legacy", "pickle"])
def test_runs_no_code_that_a_file_brings(tmp_path, monkeypatch, form, forced):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, trace = tmp_path / "file.ckpt", tmp_path / "trace"
    content = {**CHECKPOINT, "callbacks": [Hostile(trace)]}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch.save")
    calls = [
        lambda: load_checkpoint(path),
        lambda: AtomicCheckpointIO().load_checkpoint(path),
        lambda: AtomicCheckpointIO().load_checkpoint(path, weights_only=False),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"file\.ckpt"):
            call()
        assert not trace.exists()


def test_the_hostile_file_of_these_tests_is_hostile(tmp_path):
    trace = tmp_path / "trace"
    pickle.loads(pickle.dumps(Hostile(trace)))
    assert trace.exists()
