"""A study's directory that somebody else made: nothing is followed, waited for or shown raw."""

import os
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from src.kindling.studies import storage
from tests.conftest import has_command
from tests.kindling.conftest import Command

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows lets few make links")
ESCAPES = "\x1b[2J\x1b]0;title\x07\u202e"
LINE = ("model=line", "trainer.max_epochs=2", "trainer.accelerator=cpu", "~callbacks.figures")


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study as it was left by its owner."""
    command = Command(tmp_path_factory.mktemp("untouched") / "logs")
    words = (
        "optimizer=choice(sgd, adam)",
        "study.trials=1",
        "callbacks.checkpointing.monitor=train/loss",
    )
    command.here("study", "study.name=a", *LINE, *words)
    return command.log_dir


@pytest.fixture
def folder(untouched: Path, command: Command) -> Path:
    """A copy of its directory that is to be tampered with."""
    shutil.copytree(untouched, command.log_dir)
    return command.log_dir / "study" / "a"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder outside of the study that nothing may touch."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine\n")
    return tmp_path / "mine"


def refusals(command: Command, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines with which the commands that read a study refuse it."""
    lines = []
    for name, *words in (["study", "study.name=a", "study.trials=2"], ["report", "study=a"]):
        if not has_command(name):
            continue
        with pytest.raises(SystemExit) as stop:
            command.here(name, *words)
        line = capsys.readouterr().err
        assert (stop.value.code, line.count("\n")) == (2, 1), line
        assert line.rstrip("\n").isprintable()
        lines.append(line)
    return lines


PARTS = (
    storage.FILE,
    f"{storage.FILE}-journal",
    ".study.lock",
    "trial-0000",
    "workers",
    "workers/0.log",
)
PARTS += ("confirm", "confirm/trial-0000", "confirm/trial-0000/seed-1")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_link_or_a_pipe_is_refused(
    kind: str,
    part: str,
    folder: Path,
    mine: Path,
    command: Command,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = folder / part
    if path.exists():
        shutil.move(path, folder.parent / "moved")
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        path.symlink_to(mine / "file" if path.name.startswith((".", "study")) else mine)
    else:
        os.mkfifo(path)
    for line in refusals(command, capsys):
        assert str(path) in line
        assert ("is a link" if kind == "link" else "is not a regular file") in line
    assert (mine / "file").read_text() == "mine\n"
    assert [entry.name for entry in mine.iterdir()] == ["file"]


def test_a_study_that_cannot_be_written_gets_one_line(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    command.log_dir.mkdir()
    (command.log_dir / "study").touch()
    with pytest.raises(SystemExit) as stop:
        command.here("study", "study.name=a", *LINE, "optimizer.lr=interval(0.1,0.2)")
    assert stop.value.code == 2
    assert "/study/a cannot be created: Not a directory" in capsys.readouterr().err


def changed(folder: Path, table: str, column: str, old: str, new: str) -> None:
    """Replace text in the database of a study."""
    connection = sqlite3.connect(folder / storage.FILE)
    with connection:
        done = connection.execute(
            f"update {table} set {column} = replace({column}, ?, ?) where {column} like ?",
            (old, new, f"%{old}%"),
        )
        assert done.rowcount
    connection.close()


def test_names_and_values_are_shown_without_control_characters(
    folder: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = ESCAPES.encode("unicode_escape").decode().replace("\\x", "\\u00")
    changed(folder, "study_user_attributes", "value_json", '["train/loss"', f'["train/loss{raw}"')
    out = command.here("study", "study.name=a", "study.trials=0")
    assert "train/loss?" in out
    assert not [c for c in out if not (c.isprintable() or c == "\n")]
    if has_command("report"):
        out = command.here("report", "study=a")
        page = (folder / "report.html").read_text()
        assert not [c for c in out + page if c in ESCAPES and not c.isprintable()]


OTHERS: dict[str, Any] = {
    '"overrides": [': '"overrides": 3, "b": [',
    '"seed": 0': '"seed": "x"',
    '"modes"': '"other"',
    "choice(sgd": "nothing(sgd",
}


@pytest.mark.parametrize("old", OTHERS)
def test_a_definition_that_no_study_writes_is_refused(
    old: str, folder: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(folder, "study_user_attributes", "value_json", old, OTHERS[old])
    refusals(command, capsys)


def test_a_target_that_is_not_in_conf_is_not_built(
    folder: Path, command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    evil = f'"+callbacks.x._target_=os.mkdir", "+callbacks.x.path={tmp_path}/trace", '
    changed(
        folder, "study_user_attributes", "value_json", '"overrides": [', f'"overrides": [{evil}'
    )
    with pytest.raises(SystemExit) as stop:
        command.here("study", "study.name=a", "study.trials=4")
    assert stop.value.code != 0
    assert "os.mkdir" in capsys.readouterr().err
    assert not (tmp_path / "trace").exists()
