"""A run directory that somebody else made: no link is followed, and nothing waits for a pipe."""

import os
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from src.kindling.errors import InputError
from src.kindling.files import bounded, run_directory, run_lock, run_record
from tests.conftest import has_command
from tests.kindling.conftest import Command

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows lets few make links")
USES = ("train resume", "evaluate run", "predict run", "train init_from")
USES += ("export run format=pt2", "serve run port=0")
FILES = ("run.log", "run.json", ".lock", "metrics.csv", "metrics.json", "checkpoints/last.ckpt")


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """A run as it was left by its owner."""
    command = Command(tmp_path_factory.mktemp("untouched"))
    command.here("train", "model=line", "trainer.max_epochs=2", "trainer.accelerator=cpu")
    return command.latest


@pytest.fixture
def run(untouched, tmp_path):
    """A copy of it that is to be tampered with."""
    return Path(shutil.copytree(untouched, tmp_path / "run"))


@pytest.fixture
def mine(tmp_path):
    """A file outside of the run that nothing may touch."""
    path = tmp_path / "mine"
    path.write_text("mine\n")
    return path


def replaced(path, act):
    path.unlink(missing_ok=True)
    act(path)


def skip_if_missing(use):
    name = use.partition(" ")[0]
    if not has_command(name) or (name == "serve" and find_spec("fastapi") is None):
        pytest.skip("the command, or what it needs, is not there")


def refusal(capsys, command, name, *arguments):
    with pytest.raises(SystemExit) as stop:
        command.here(name, *arguments)
    line = capsys.readouterr().err
    assert (stop.value.code, line.count("\n")) == (2, 1)
    return line


@pytest.mark.parametrize("name", FILES)
def test_a_link_is_not_followed_and_its_target_not_touched(name, run, mine, command, capsys):
    replaced(run / name, lambda path: path.symlink_to(mine))
    line = refusal(capsys, command, "train", f"resume={run}", "trainer.max_epochs=3")
    assert f"{run / name} is a link" in line
    assert mine.read_text() == "mine\n"


@pytest.mark.parametrize("name", [*FILES, "config.yaml"])
def test_a_pipe_is_not_waited_for(name, run, command, capsys):
    replaced(run / name, os.mkfifo)
    line = refusal(capsys, command, "train", f"resume={run}", "trainer.max_epochs=3")
    assert f"{run / name} is not a regular file" in line


@pytest.mark.parametrize("name", run_directory.FILES)
def test_a_folder_in_place_of_a_file_is_refused(name, run):
    path = run / "checkpoints" / name if name.endswith(".ckpt") else run / name
    path.unlink(missing_ok=True)
    path.mkdir()
    with pytest.raises(InputError, match=rf"{path.name} is not a regular file"):
        run_directory.find(str(run), "logs")


@pytest.mark.parametrize("name", run_directory.FOLDERS)
@pytest.mark.parametrize("use", USES)
def test_a_folder_that_is_a_link_is_not_entered(use, name, run, tmp_path, command, capsys):
    skip_if_missing(use)
    (tmp_path / "elsewhere").mkdir()
    if (run / name).exists():
        (run / name).rename(tmp_path / "elsewhere" / name)
    (run / name).symlink_to(tmp_path / "elsewhere" / name)
    door, key, *more = use.split()
    assert f"{run / name} is a link" in refusal(capsys, command, door, f"{key}={run}", *more)
    if key == "run":  # a checkpoint is part of its run
        best = run / "checkpoints" / "best.ckpt"
        assert "is a link" in refusal(capsys, command, door, f"run={best}", *more)


@pytest.mark.parametrize("use", ["export run format=pt2", "serve run port=0"])
@pytest.mark.parametrize("name", ["config.yaml", "run.json"])
def test_export_and_serve_wait_for_no_pipe_and_follow_no_link(
    name, use, run, mine, command, capsys
):
    skip_if_missing(use)
    door, key, *more = use.split()
    replaced(run / name, os.mkfifo)
    line = refusal(capsys, command, door, f"{key}={run}", *more)
    assert f"{run / name} is not a regular file" in line
    replaced(run / name, lambda path: path.symlink_to(mine))
    assert f"{run / name} is a link" in refusal(capsys, command, door, f"{key}={run}", *more)


def test_a_checkpoint_named_by_its_path_is_part_of_its_run(run, mine):
    best = run / "checkpoints" / "best.ckpt"
    replaced(best, lambda path: path.symlink_to(mine))
    with pytest.raises(InputError, match=r"best\.ckpt is a link"):
        run_directory.find_checkpoint(str(best), "logs")


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "metrics.json"])
def test_compare_and_report_follow_no_link(name, run, mine, command, capsys):
    if not (Path(__file__).parents[3] / "src" / "compare.py").exists():
        pytest.skip("the results are deleted")
    replaced(run / name, lambda path: path.symlink_to(mine))
    for door in ("compare", "report"):
        assert "is a link" in refusal(capsys, command, door, str(run))


def test_what_a_command_writes_replaces_a_link_and_leaves_its_target(run, mine, command):
    output = run / "answers.csv"
    output.symlink_to(mine)
    checkpoint = run / "checkpoints" / "best.ckpt"
    shutil.copy(checkpoint, checkpoint.parents[2] / "best.ckpt")
    command.here("predict", f"run={checkpoint.parents[2] / 'best.ckpt'}", f"output={output}")
    assert mine.read_text() == "mine\n"
    assert not output.is_symlink()


def test_a_lock_is_not_truncated_before_it_is_held(tmp_path):
    (tmp_path / ".lock").write_text("somebody's")
    with run_lock.locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == "somebody's"


def test_the_log_is_opened_without_following_or_waiting(tmp_path, mine):
    (tmp_path / "link").symlink_to(mine)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError, match=name):
            bounded.open_append(tmp_path / name)
    assert mine.read_text() == "mine\n"


ESCAPES = "\x1b[2J\x1b]0;title\x07\u202e"


@pytest.mark.parametrize("key", ["train resume", "evaluate run", "predict run", "train init_from"])
def test_names_are_shown_without_control_characters(key, command, capsys):
    door, key = key.split()
    line = refusal(capsys, command, door, f'{key}="{ESCAPES}"')
    assert line.rstrip("\n").isprintable()


def test_a_run_in_a_folder_with_control_characters_prints_none(run, command, capsys):
    odd = run.rename(run.with_name(f"a{ESCAPES}b"))
    out = command.here("train", f'resume="{odd}"', "trainer.max_epochs=3")
    assert "continuing in" in out
    assert not [c for c in out if not (c.isprintable() or c == "\n")]
    assert (odd / "run.log").exists()


# Killed, and newest -------------------------------------------------------------------------------


def test_a_run_that_nobody_holds_and_that_has_not_ended_was_killed(run):
    running = {"status": "running"}
    assert run_record.status(run, running) == "killed"
    if not (pid := os.fork()):
        with run_lock.locked(run):
            (run / "ready").touch()
            signal.pause()  # until it is killed
        os._exit(0)
    while not (run / "ready").exists():
        pass
    assert run_record.status(run, running) == "running"
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert run_record.status(run, running) == "killed"
    assert run_record.status(run, {"status": "finished"}) == "finished"


def test_the_newest_run_is_the_one_that_started_last_in_any_time_zone(tmp_path):
    starts = {
        "2026-03-29_03": "2026-03-29T03:00:00+02:00",
        "2026-03-28_22": "2026-03-28T22:30:00-05:00",
    }
    for name, start in starts.items():
        path = tmp_path / "train" / "m" / name
        path.mkdir(parents=True)
        run_directory.write_config(path, {"seed": 0})
        run_record.write_json(path / "run.json", {"start": start})
    assert run_directory.latest(tmp_path).name == "2026-03-28_22"
    run_directory.link_to(tmp_path / "train" / "m" / "2026-03-29_03", tmp_path / "latest")
    assert run_directory.latest(tmp_path) == tmp_path / "latest"


def test_without_links_latest_is_the_newest_run(run, tmp_path, monkeypatch, capsys):
    def no_links(*_, **__):
        raise OSError(1, "no links here")

    log_dir = tmp_path / "logs"
    target = log_dir / "train" / "line" / "new"
    shutil.copytree(run, target)
    monkeypatch.setattr(os, "symlink", no_links)
    run_directory.link_to(target, log_dir / "latest")
    assert "was not updated" in capsys.readouterr().out
    assert run_directory.find("latest", str(log_dir)) == target
