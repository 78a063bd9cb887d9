"""Runs are read back as what they were written as; a directory from a stranger is only data."""

import json
import math
import os

import pytest
import yaml

from src.kindling import layout
from src.kindling.errors import InputError
from src.kindling.files import run_directory, run_record
from src.kindling.results import runs
from src.kindling.results.history import read_history

SETTINGS = {
    "seed": 0,
    "log_dir": "logs",
    "resume": None,
    "steps_per_execution": 4,
    "model": {"_target_": "src.models.fizzbuzz.FizzBuzz", "hidden_features": 100},
    "data": {"_target_": "src.data.fizzbuzz.FizzBuzzData", "seed": 0},
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.01, "betas": [0.9, 0.999]},
    "trainer": {"_target_": "lightning.pytorch.Trainer", "max_epochs": 25},
    "callbacks": {"checkpointing": {"monitor": None, "mode": "min"}},
}
METRICS = {"test/accuracy": 0.5, "test/loss": 1.5, "train/loss": 1.0, "val/loss": 2.0}


def plant(path, metrics=METRICS, status="finished", start="2026-11-21T10:00:00+00:00", **changes):
    """Write a run directory as a run leaves it, with dotted settings changed."""
    settings = json.loads(json.dumps(SETTINGS))
    if "seed" in changes:
        changes = {"data.seed": changes["seed"], **changes}
    for key, value in changes.items():
        *groups, last = key.split(".")
        node = settings
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
    path.mkdir(parents=True)
    run_directory.write_config(path, settings)
    run_record.write_json(path / "run.json", {"start": start, "status": status})
    if metrics is not None:
        run_record.write_json(path / "metrics.json", metrics)
    return path


def test_a_run_is_read_back(tmp_path):
    run = runs.read(plant(tmp_path / "run", seed=3))
    assert (run.model, run.seed, run.status, run.unfit) == ("fizzbuzz", 3, "finished", None)
    assert run.metrics == METRICS
    assert run.settings["optimizer.lr"] == 0.01
    assert run.settings["optimizer.betas"] == [0.9, 0.999]
    assert run.settings["callbacks.checkpointing.mode"] == "min"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": "failed"}, "failed"),
        ({"status": "stopped"}, "stopped"),
        ({"metrics": None}, "without metrics"),
        ({"metrics": {}}, "without metrics"),
    ],
)
def test_a_run_that_has_nothing_to_compare_says_why(tmp_path, change, reason):
    assert runs.read(plant(tmp_path / "run", **change)).unfit == reason


def test_an_evaluation_is_no_training_run(tmp_path):
    path = plant(tmp_path / "run")
    run_record.write_json(path / "run.json", {"status": "finished", "checkpoint": "a.ckpt"})
    assert "evaluations" in runs.read(path).unfit


def test_the_history_has_each_step_once_and_gaps_where_nothing_was_logged(tmp_path):
    path = plant(tmp_path / "run")
    lines = ["epoch,step,train/loss,val/loss", "0,9,1.5,", "0,19,1.25,0.5", "1,9,1.0,", "1,29,nan,"]
    (path / "metrics.csv").write_text("\n".join(lines) + "\n")
    found = read_history(path)
    assert found["val/loss"] == ([19.0], [0.5])
    steps, values = found["train/loss"]
    assert steps == [9.0, 19.0, 29.0]
    assert values[:2] == [1.0, 1.25]
    assert math.isnan(values[2])
    assert read_history(tmp_path) == {}


# Which runs -------------------------------------------------------------------------------------


def test_runs_are_found_by_path_folder_pattern_and_latest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["train/fizzbuzz/1", "train/fizzbuzz/2", "train/two_layer_net/3", "evaluate/fizzbuzz/4"]
    for name in names:
        plant(tmp_path / "logs" / name)
    (tmp_path / "logs" / "latest").symlink_to("train/fizzbuzz/2")

    def found(*words):
        return [str(path) for path in runs.find(list(words), "logs")]

    trained = [f"logs/{name}" for name in names[:3]]
    assert found() == trained
    assert found("logs/train") == trained
    assert found("logs/train/fizzbuzz") == trained[:2]
    assert found("logs/train/fizzbuzz/") == trained[:2]
    assert found("logs/train/*/1", trained[2]) == [trained[0], trained[2]]
    assert found("logs/train/*") == trained
    assert found("latest") == [trained[1]]
    assert found("latest", trained[1], "logs/train/fizzbuzz") == [trained[1], trained[0]]
    assert found(trained[1], str(tmp_path / trained[1])) == [trained[1]]
    assert len(found("logs")) == 4


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("logs/study/z/trial-1", "'logs/study/z/trial-0001'?"),
        ("logs/study/z/trial-11", "'logs/study/z/trial-0011'?"),
        ("logs/study/zz/trial-0001", "'logs/study/z/trial-0001'?"),
        ("lgos/study/elsewhere", "'logs'?"),
        ("logs/study/z/trial-0001/checkpoints/lst.ckpt", "'{}/trial-0001/checkpoints/last.ckpt'?"),
        ("logs/else/where", ""),
    ],
)
def test_a_path_that_is_not_there_gets_the_nearest_that_is(tmp_path, monkeypatch, name, near):
    monkeypatch.chdir(tmp_path)
    for number in (0, 1, 11):
        run = tmp_path / "logs" / "study" / "z" / f"trial-{number:04d}" / "checkpoints"
        run.mkdir(parents=True)
        (run / "last.ckpt").touch()
    with pytest.raises(InputError, match="there is no such") as raised:
        run_directory.find_checkpoint(name, "logs")
    said = str(raised.value).partition(": did you mean ")[2]
    assert said == near.format("logs/study/z")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "there is no such run directory"),
        ("noth*", "no run directory matches"),
        ("empty", "neither a run directory nor a folder of them"),
        ("file", "is not a run directory"),
        ("https://example.com/run", "on this machine"),
        ("latest", "there is no run yet"),
        ("x" * 5000, "there is no such run directory"),
    ],
)
def test_a_name_of_no_run_says_so(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=said):
        runs.find([name], "logs")


def test_without_any_run_it_says_how_to_make_one(tmp_path):
    line = r"`python -m src\.train log_dir=\S+` makes one"
    with layout.added_folders([]), pytest.raises(InputError, match=line):
        runs.find([], str(tmp_path))


# From a stranger --------------------------------------------------------------------------------

DEEP_BLOCK = "".join("  " * i + "a:\n" for i in range(200))
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CONFIGS = {
    # config.yaml -> what the line says
    "": "does not hold keys",
    "[1]": "does not hold keys",
    "seed: 0": "names no model",
    "model: !!python/object/apply:os.system ['touch trace']": "cannot be read",
    "model: !!python/name:os.system": "cannot be read",
    "model: {a: *unknown}": "cannot be read",
    "model: &a {a: *a}": "more than a run",
    "model: {}\n" + LAUGHS: "more than a run",
    "model: {}\n" + DEEP_BLOCK: "more than a run",
    "model: " + "[" * 10**5: "cannot be read|more than a run",
    "- " * 4 * 10**5: "cannot be read|more than a run",
    "? " * 10**5: "cannot be read|more than a run",
    "model: {}\na: " + "9" * 5000: "cannot be read|more than a run",
    "model: {}\n" + "x: " + "y" * 2**21: "larger than any file that a run writes",
    "model: {}\n\x07: 1": "cannot be read",
    "2001-99-99: 1": "cannot be read",
}


@pytest.mark.parametrize("text", CONFIGS, ids=lambda text: repr(text[:40]))
def test_a_configuration_that_is_none_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    path = plant(tmp_path / "run")
    (path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=CONFIGS[text]):
        runs.read(path)
    assert not (tmp_path / "trace").exists()


def test_what_is_no_plain_value_becomes_text(tmp_path):
    path = plant(tmp_path / "run")
    more = "\nday: 2001-01-01\nnames: !!set {a, b}\nbytes: !!binary aGk=\n1: {2: ~}\n"
    with (path / "config.yaml").open("a") as file:
        file.write(more)
    settings = runs.read(path).settings
    assert settings["day"] == "2001-01-01"
    assert sorted(settings["names"]) == ["a", "b"]
    assert settings["bytes"] == "b'hi'"
    assert settings["1.2"] is None


NO_METRICS = [
    "[1]",
    '{"a": "b"}',
    '{"a": true}',
    '{"a": {"b": 1}}',
    '{"a\\u001b[2J": 1}',
    '{"a": 1' + "0" * 400 + "}",
    '{"a": 1' + "0" * 5000 + "}",
    json.dumps({"x" * 100: 1}),
    json.dumps({f"x{i}": i for i in range(1001)}),
    "[" * 10**5,
    "{",
    '{"a": 1}' + " " * 2**20,
]


@pytest.mark.parametrize("text", NO_METRICS, ids=lambda text: repr(text[:20]))
def test_metrics_that_are_none_are_refused(tmp_path, text):
    path = plant(tmp_path / "run")
    (path / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=r"metrics\.json"):
        runs.read(path)


def test_metrics_that_are_no_numbers_are_null_on_disk_and_nan_when_read(tmp_path):
    path = plant(tmp_path / "run", metrics={"a": math.nan, "b": math.inf, "c": 3})
    found = runs.read(path).metrics
    assert math.isnan(found["a"])
    assert math.isnan(found["b"])
    assert found["c"] == 3.0


@pytest.mark.parametrize(
    "text",
    ["step,a\n1,x\n", "step,a\nx,1\n", "step," + "a" * 200_000 + "\n1,1\n"],
    ids=["a word", "no step", "a long name"],
)
def test_a_history_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(InputError, match=r"metrics\.csv is not a history"):
        read_history(tmp_path)


def test_a_device_or_a_pipe_is_not_opened(tmp_path):
    path = plant(tmp_path / "run")
    (path / "run.json").unlink()
    os.mkfifo(path / "run.json")  # to open it would wait for a writer
    (path / "metrics.csv").symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"run\.json is not a regular file"):
        runs.read(path)
    with pytest.raises(InputError, match=r"metrics\.csv cannot be read: is a link"):
        read_history(path)
    assert yaml.safe_load((path / "config.yaml").read_text())["seed"] == 0
