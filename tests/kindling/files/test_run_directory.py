"""A run directory belongs to one run, is found again, and says how the run went."""

import contextlib
import json
import os
import platform
import sys
import threading
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from src.kindling.errors import InputError
from src.kindling.files import bounded, run_directory, run_record
from src.kindling.process import ranks

links = pytest.mark.skipif(os.name != "posix", reason="Windows lets only some users make links")


@pytest.fixture(autouse=True)
def fresh_environment(monkeypatch):
    """Forget what another run has announced, now and afterwards."""
    for name in (ranks.VARIABLE, "LOCAL_RANK"):
        monkeypatch.setenv(name, "")  # so that it is put back as it was
        monkeypatch.delenv(name)


def full_disk(*_):
    raise OSError("No space left on device")


@pytest.fixture
def run(tmp_path):
    """A run directory, as training makes it."""
    path = run_directory.new_path(str(tmp_path / "logs"), "train", "fizzbuzz")
    run_directory.create(path)
    return path


# Making one -------------------------------------------------------------------------------------


def test_a_path_is_log_dir_command_model_time_and_something_unique(tmp_path):
    before = datetime.now().replace(microsecond=0)
    path = run_directory.new_path(str(tmp_path), "evaluate", "two_layer_net")
    assert path.parent == tmp_path / "evaluate" / "two_layer_net"
    time, _, unique = path.name.rpartition("-")
    assert before <= datetime.strptime(time, "%Y-%m-%d_%H-%M-%S") <= datetime.now()
    assert unique
    assert not path.parent.exists()  # chosen, not made


def test_paths_are_unique():
    assert len({run_directory.new_path("logs", "train", "fizzbuzz") for _ in range(1000)}) == 1000


def test_an_opened_run_has_its_folders_and_tells_child_processes_while_it_is_open(tmp_path):
    path = tmp_path / "a" / "b" / "c"
    with run_directory.opened(path, {}, device="cpu"):
        assert path.is_dir()
        assert os.environ[ranks.VARIABLE] == str(path)
    assert ranks.VARIABLE not in os.environ  # a later run's ranks would join this one


def test_create_refuses_a_directory_that_is_there(run):
    with pytest.raises(InputError) as refusal:
        run_directory.create(run)
    assert str(run) in str(refusal.value)


def test_create_refuses_a_place_with_a_file_in_the_way(tmp_path):
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(InputError) as refusal:
        run_directory.create(tmp_path / "logs" / "train" / "x")
    assert str(tmp_path / "logs" / "train" / "x") in str(refusal.value)
    assert (tmp_path / "logs").read_text() == "a file"


def test_a_further_rank_takes_the_directory_of_its_run(run, monkeypatch):
    monkeypatch.setenv(ranks.VARIABLE, str(run))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert ranks.is_launched()
    assert run_directory.new_path("logs", "train", "fizzbuzz") == run
    run_directory.create(run)  # there already, and no error
    assert os.listdir(run) == []


@pytest.mark.parametrize("rank", [None, "0"])
def test_the_first_rank_is_no_child(run, monkeypatch, rank):
    monkeypatch.setenv(ranks.VARIABLE, str(run))
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert not ranks.is_launched()
    assert run_directory.new_path("logs", "train", "fizzbuzz") != run


# Finding one ------------------------------------------------------------------------------------


def with_checkpoints(run, *names):
    run_directory.write_config(run, {"seed": 1})
    (run / "checkpoints").mkdir()
    for name in names:
        (run / "checkpoints" / name).write_bytes(b"")
    return run


@links
def test_finds_latest(run, tmp_path):
    logs = tmp_path / "logs"
    run_directory.write_config(run, {"seed": 1})
    run_directory.link_to(run, logs / "latest")
    assert run_directory.find("latest", str(logs)) == run.resolve()


def test_finds_a_run_by_its_path(run, tmp_path):
    run_directory.write_config(run, {"seed": 1})
    assert run_directory.find(str(run), str(tmp_path)) == run


def refusal_of(search, name, log_dir):
    with pytest.raises(InputError) as refusal:
        search(name, str(log_dir))
    return str(refusal.value)


FINDERS = [run_directory.find, run_directory.find_checkpoint]


@pytest.mark.parametrize("search", FINDERS)
def test_says_that_there_is_no_run_yet_and_what_makes_one(search, tmp_path):
    message = refusal_of(search, "latest", tmp_path)
    assert str(tmp_path / "latest") in message
    assert "python -m src.train" in message


@links
@pytest.mark.parametrize("search", FINDERS)
def test_says_that_latest_leads_nowhere(search, tmp_path):
    (tmp_path / "latest").symlink_to("train/gone")
    assert str(tmp_path / "latest") in refusal_of(search, "latest", tmp_path)


@pytest.mark.parametrize("search", FINDERS)
def test_names_the_directory_that_is_not_there(search, tmp_path):
    missing = str(tmp_path / "missing")
    assert missing in refusal_of(search, missing, tmp_path)
    latest = tmp_path / "latest"
    latest.mkdir()
    assert refusal_of(search, "lates", tmp_path).endswith(f": did you mean {str(latest)!r}?")


@pytest.mark.parametrize("search", FINDERS)
def test_names_the_directory_that_is_no_run(search, tmp_path):
    message = refusal_of(search, str(tmp_path), tmp_path)
    assert str(tmp_path) in message
    assert "config.yaml" in message


@pytest.mark.parametrize("search", FINDERS)
@pytest.mark.parametrize("address", ["http://example.org/run", "s3://bucket/run/best.ckpt"])
def test_refuses_an_address(search, address, tmp_path):
    assert address in refusal_of(search, address, tmp_path)


@pytest.mark.parametrize(
    ("names", "found"),
    [(["best.ckpt", "last.ckpt"], "best.ckpt"), (["last.ckpt"], "last.ckpt")],
)
def test_finds_the_best_checkpoint_or_else_the_last(run, names, found):
    with_checkpoints(run, *names)
    assert run_directory.find_checkpoint(str(run), "logs") == run / "checkpoints" / found


def test_says_that_a_run_has_no_checkpoint(run):
    message = refusal_of(run_directory.find_checkpoint, str(with_checkpoints(run)), "logs")
    assert str(run) in message
    assert "no checkpoint" in message


def test_takes_a_checkpoint_file_by_its_path(run):
    path = with_checkpoints(run, "last.ckpt") / "checkpoints" / "last.ckpt"
    assert run_directory.find_checkpoint(str(path), "logs") == path


def test_names_the_checkpoint_file_that_is_not_there(tmp_path):
    missing = str(tmp_path / "missing.ckpt")
    assert missing in refusal_of(run_directory.find_checkpoint, missing, tmp_path)


# latest -----------------------------------------------------------------------------------------


@links
def test_latest_is_a_relative_link_that_survives_a_move_of_the_logs(run, tmp_path):
    run_directory.link_to(run, tmp_path / "logs" / "latest")
    assert os.readlink(tmp_path / "logs" / "latest") == f"train/fizzbuzz/{run.name}"
    (tmp_path / "logs").rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "latest").samefile(tmp_path / "moved/train/fizzbuzz" / run.name)


@links
def test_latest_is_relative_when_the_paths_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = run_directory.new_path("logs", "train", "fizzbuzz")
    run_directory.create(path)
    run_directory.link_to(path, Path("logs/latest"))
    assert os.readlink("logs/latest") == os.path.join("train", "fizzbuzz", path.name)


@links
def test_a_reader_always_finds_a_run_behind_latest(tmp_path):
    runs = [tmp_path / "train" / str(n) for n in range(2)]
    for path in runs:
        path.mkdir(parents=True)
    run_directory.link_to(runs[0], tmp_path / "latest")
    seen, done = [], threading.Event()

    def read():
        while not done.is_set():
            try:
                seen.append(Path(os.readlink(tmp_path / "latest")).name)
            except OSError as error:
                seen.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(500):
        run_directory.link_to(runs[turn % 2], tmp_path / "latest")
    done.set()
    reader.join()
    assert set(seen) <= {"0", "1"}
    assert len(seen) > 10
    assert sorted(os.listdir(tmp_path)) == ["latest", "train"]


@links
def test_the_old_latest_is_there_until_the_new_one_takes_its_place(run, tmp_path, monkeypatch):
    logs, replace, during = tmp_path / "logs", os.replace, []

    def observed(source, target):
        during.append((os.readlink(target), os.readlink(source)))
        replace(source, target)

    (logs / "latest").symlink_to("train/old")
    monkeypatch.setattr(os, "replace", observed)
    run_directory.link_to(run, logs / "latest")
    assert during == [("train/old", f"train/fizzbuzz/{run.name}")]


@links
def test_a_directory_named_latest_is_left_alone_with_a_warning(run, tmp_path, capsys):
    (tmp_path / "logs" / "latest").mkdir()
    run_directory.link_to(run, tmp_path / "logs" / "latest")
    assert (tmp_path / "logs" / "latest").is_dir()
    assert str(tmp_path / "logs" / "latest") in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path / "logs")) == ["latest", "train"]


# config.yaml and *.json -------------------------------------------------------------------------

# Without what YAML 1.1 takes for ends of a line and YAML 1.2 does not: PyYAML loses them in keys.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029"), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
NODES = st.recursive(
    SCALARS,
    lambda node: st.lists(node, max_size=3) | st.dictionaries(TEXT, node, max_size=3),
    max_leaves=6,
)
PLAIN = st.dictionaries(TEXT, NODES, max_size=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all examples of a test."""
    return tmp_path_factory.mktemp("run")


@settings(max_examples=100, derandomize=True, deadline=None)
@given(config=PLAIN)
def test_a_configuration_comes_back_as_it_was_written(folder, config):
    run_directory.write_config(folder, config)
    assert bounded.read_config(folder / "config.yaml") == config


def test_a_configuration_keeps_its_order_and_has_no_tags(run):
    run_directory.write_config(run, {"seed": 1, "model": {"b": [1, "é"], "a": None}, "data": 1e-4})
    text = (run / "config.yaml").read_text(encoding="utf-8")
    assert list(yaml.safe_load(text)) == ["seed", "model", "data"]
    assert "é" in text
    assert "!" not in text


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\xff", b"a: !!python/object:os.x {}"])
def test_names_a_configuration_that_cannot_be_read(run, content):
    (run / "config.yaml").write_bytes(content)
    with pytest.raises(InputError) as refusal:
        bounded.read_config(run / "config.yaml")
    assert str(run) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_names_a_configuration_that_is_missing(run):
    with pytest.raises(InputError) as refusal:
        bounded.read_config(run / "config.yaml")
    assert str(run) in str(refusal.value)


def test_json_comes_back_as_it_was_written(tmp_path):
    content = {"test/accuracy": 1.0, "nested": {"list": [1, None, "é"]}}
    run_record.write_json(tmp_path / "metrics.json", content)
    assert json.loads((tmp_path / "metrics.json").read_text()) == content


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    run_record.write_json(path, {"old": 1})

    with pytest.raises(TypeError):
        run_record.write_json(path, {"new": object()})
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        run_record.write_json(path, {"new": 1})
    assert json.loads(path.read_text()) == {"old": 1}
    assert os.listdir(tmp_path) == ["metrics.json"]


# run.json and run.log ---------------------------------------------------------------------------


def record_of(run):
    return json.loads((run / "run.json").read_text())


def test_a_run_that_goes_through_is_recorded_as_finished(run):
    with run_record.record_run(run, "cpu, 1 process(es)") as record:
        during = record_of(run)
        record["checkpoint"] = "best.ckpt"
    assert (during["status"], during["end"]) == ("running", None)
    record = record_of(run)
    assert (record["status"], record["device"]) == ("finished", "cpu, 1 process(es)")
    assert record["checkpoint"] == "best.ckpt"
    assert record["python"] == platform.python_version()
    assert record["versions"]["torch"] == version("torch")
    assert record["versions"]["hydra-core"] == version("hydra-core")
    assert record["command"] == [sys.executable, *sys.orig_argv[1:]]
    start, end = (datetime.fromisoformat(record[key]) for key in ("start", "end"))
    assert start.tzinfo is not None
    assert start <= end


@pytest.mark.parametrize("status", [130, 143])
def test_a_run_that_is_stopped_is_recorded_as_stopped(run, status):
    with pytest.raises(SystemExit) as stop, run_record.record_run(run, "cpu"):
        raise SystemExit(status)
    assert stop.value.code == status
    assert record_of(run)["status"] == "stopped"
    assert record_of(run)["end"] is not None


def test_a_run_that_fails_is_recorded_with_its_traceback(run):
    def diverge():
        raise ZeroDivisionError("the loss\nis gone")

    with pytest.raises(ZeroDivisionError) as failure, run_record.record_run(run, "cpu"):
        diverge()
    assert record_of(run)["status"] == "failed"
    assert record_of(run)["end"] is not None
    assert failure.value.run_log == run / "run.log"
    log = (run / "run.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "in diverge" in log
    assert "ZeroDivisionError: the loss\nis gone" in log


def test_the_log_has_what_the_console_had(run, capsys):
    with run_record.record_run(run, "cpu"):
        print("to standard output, é")
        print("to standard error", file=sys.stderr)
        sys.stdout.write("a part")
        sys.stdout.write(" and another\n")
    print("afterwards")
    assert (run / "run.log").read_text(encoding="utf-8").splitlines() == [
        "to standard output, é",
        "to standard error",
        "a part and another",
    ]
    console = capsys.readouterr()
    assert console.out == "to standard output, é\na part and another\nafterwards\n"
    assert console.err == "to standard error\n"


def test_the_traceback_is_in_the_log_and_not_on_the_console(run, capsys):
    with contextlib.suppress(RuntimeError), run_record.record_run(run, "cpu"):
        raise RuntimeError("broken")
    console = capsys.readouterr()
    assert console.out + console.err == ""
    assert "RuntimeError: broken" in (run / "run.log").read_text()


def test_the_console_is_given_back_after_a_failure(run):
    streams = sys.stdout, sys.stderr
    with contextlib.suppress(RuntimeError), run_record.record_run(run, "cpu"):
        raise RuntimeError("broken")
    assert (sys.stdout, sys.stderr) == streams


def test_a_run_that_is_continued_adds_to_its_log(run):
    for text in ("first", "second"):
        with run_record.record_run(run, "cpu"):
            print(text)
    assert (run / "run.log").read_text() == "first\nsecond\n"


def test_a_full_disk_at_the_end_does_not_hide_the_first_error(run, monkeypatch):
    def fill_the_disk_and_fail():
        monkeypatch.setattr(os, "replace", full_disk)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), run_record.record_run(run, "cpu"):
        fill_the_disk_and_fail()


def test_git_state_is_a_commit_and_whether_files_differ_or_nothing_outside_git():
    state = run_record.git_state()
    assert state is None or (
        state.keys() == {"commit", "dirty"}
        and len(bytes.fromhex(state["commit"])) in (20, 32)
        and isinstance(state["dirty"], bool)
    )


def test_git_state_is_none_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_record.git_state() is None


def test_now_is_local_time_with_its_offset():
    time = datetime.fromisoformat(run_record.now())
    assert time.utcoffset() is not None
    assert abs((datetime.now().astimezone() - time).total_seconds()) < 5


def test_json_has_null_for_what_is_no_number(tmp_path):
    values = {"val/loss": float("nan"), "all": [1.5, float("-inf")], "steps": 3}
    run_record.write_json(tmp_path / "metrics.json", values)
    text = (tmp_path / "metrics.json").read_text()
    refused = pytest.fail  # what JSON does not have
    found = json.loads(text, parse_constant=refused)
    assert found == {"val/loss": None, "all": [1.5, None], "steps": 3}
