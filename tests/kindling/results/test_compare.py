"""python -m src.compare as its user meets it: tables, files, what is left out and refused."""

import csv
import importlib
import json
import math
import re
import shutil
import subprocess
import sys

import pytest

from src.kindling.results import runs
from src.kindling.results.significance import quantile
from tests.conftest import ROOT, environment
from tests.kindling.results.test_runs import METRICS, plant

RATES = {0.01: [1.0, 1.2, 1.1], 0.1: [0.5, 0.7, 0.6], 1.0: [2.0, 3.0, 2.5]}


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """The logs of a project, in its directory: three seeds of three learning rates."""
    monkeypatch.chdir(tmp_path)
    for rate, losses in RATES.items():
        for seed, value in enumerate(losses):
            metrics = METRICS | {"val/loss": value, "test/accuracy": 1.0, "train/lr": rate}
            path = tmp_path / "logs" / "train" / "fizzbuzz" / f"{rate}-{seed}"
            plant(path, metrics, seed=seed, **{"optimizer.lr": rate})
    return tmp_path / "logs" / "train" / "fizzbuzz"


@pytest.fixture
def compare(monkeypatch, capfd):
    """Return a caller of the command in this process: exit status, and what it said."""

    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["src/compare.py", *arguments])
        monkeypatch.setenv("COLUMNS", "100")
        try:
            importlib.import_module("src.compare").main()
        except SystemExit as stop:
            return stop.code, capfd.readouterr()
        return 0, capfd.readouterr()

    return called


def test_the_table_has_the_best_setting_first_with_its_interval_and_what_it_differs_from(
    logs, compare
):
    status, said = compare()
    assert (status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "fizzbuzz: 9 runs, 3 settings; best first, by the lowest val/loss"
    header, *rows = lines[2:6]
    assert re.split(r"\s{2,}", header.strip()) == [
        *("#", "runs", "mean", "sd", "95% interval", "differs from", "setting")
    ]
    half = quantile(2) * 0.1 / math.sqrt(3)
    cells = re.split(r"\s{2,}", rows[0].strip())
    interval = f"{0.6 - half:.4g} to {0.6 + half:.4g}"
    assert cells == ["1", "3", "0.6", "0.1", interval, "2, 3", "optimizer.lr=0.1"]
    assert [row.split()[-1] for row in rows] == [f"optimizer.lr={x}" for x in ("0.1", "0.01", "1")]
    assert "1 ± 0 " in said.out  # the accuracy
    assert "train/lr" not in said.out
    assert f"best run: {logs.relative_to(logs.parents[2])}/0.1-0\n" in said.out
    assert (
        "3 of 3 differences significant: Welch's t-test, p < 0.05 after Holm's correction for"
        in (said.out)
    )
    assert max(map(len, lines)) <= 100


def test_runs_are_named_as_words_patterns_and_keys(logs, compare):
    for words, count in {
        ("logs/train/fizzbuzz/0.1-0",): "1 run, 1 setting",
        ("logs/train/fizzbuzz/0.1-*",): "3 runs, 1 setting",
        ("logs/train/fizzbuzz/0.1-0", "logs/train/fizzbuzz/1.0-*"): "4 runs, 2 settings",
        ("runs=logs/train/fizzbuzz/0.1-0",): "1 run, 1 setting",
        ("runs=[logs/train/fizzbuzz/0.1-0,logs/train/fizzbuzz/0.1-1]",): "2 runs, 1 setting",
        ("logs/train", "last=2"): "2 runs, 1 setting",
        ("model=fizzbuzz",): "9 runs, 3 settings",
        ("model=[fizzbuzz]", "last=1"): "1 run, 1 setting",
    }.items():
        status, said = compare(*words)
        assert (status, said.err) == (0, "")
        assert f"fizzbuzz: {count};" in said.out, words


def test_a_folder_may_be_called_like_a_setting(logs, compare):
    plant(logs.parents[2] / "seed=1" / "a")
    status, said = compare("seed=1/a")
    assert status == 0
    assert "best run: seed=1/a" in said.out


def test_single_runs_are_called_by_their_names(logs, compare):
    _, said = compare("logs/train/fizzbuzz/*-0", "metric=test/accuracy")
    assert "by the highest test/accuracy" in said.out
    assert "0.01-0" in said.out
    assert "95% interval" not in said.out
    assert "no difference tested" in said.out


def test_models_have_tables_of_their_own(logs, compare):
    other = {"model._target_": "src.models.two_layer_net.TwoLayerNet"}
    plant(logs.parent / "two_layer_net" / "a", METRICS | {"test/r2": 0.5}, **other)
    _, said = compare()
    assert "fizzbuzz: 9 runs" in said.out
    assert "two_layer_net: 1 run" in said.out
    _, said = compare("metric=test/r2")
    assert "fizzbuzz: " not in said.out
    assert "skipped 9, of a model without test/r2: " in said.out
    assert "and 6 more\n" in said.out


def test_what_is_left_out_is_said(logs, compare):
    plant(logs / "a", status="failed")
    plant(logs / "b", status="stopped")
    plant(logs / "c", metrics=None)
    (plant(logs / "d") / "config.yaml").write_text("model: [")
    (plant(logs / "e") / "metrics.json").write_text('{"a": "\x1b[2J"}')
    plant(logs / "f", seed=0, start="2027-01-01", **{"optimizer.lr": 0.1})
    status, said = compare()
    assert status == 0
    assert "9 runs, 3 settings" in said.out
    for reason in ("failed", "stopped", "without metrics"):
        assert f"skipped 1, {reason}: logs/train/fizzbuzz/" in said.out
    assert "skipped 1, config.yaml cannot be read" in said.out
    assert "skipped 1, metrics.json cannot be read" in said.out
    assert "skipped 1, an older run of the same settings and seed: logs/train/fizzbuzz/0.1-0" in (
        said.out
    )
    assert "\x1b" not in said.out


def test_numbers_that_are_none_are_shown_and_rank_last(logs, compare):
    plant(logs / "nan", METRICS | {"val/loss": math.nan}, seed=9, **{"optimizer.lr": 0.1})
    status, said = compare()
    assert status == 0
    rows = said.out.splitlines()[3:6]
    assert rows[2].split()[:4] == ["3", "4", "nan", "-"]


# Files ------------------------------------------------------------------------------------------


def test_json_has_everything(logs, compare):
    status, said = compare("output=table.json")
    assert (status, said.out.splitlines()[-1]) == (0, "written to table.json")
    content = json.loads((logs.parents[2] / "table.json").read_text(), parse_constant=pytest.fail)
    [model] = content["models"]
    assert (model["metric"], model["best"], model["correction"]) == ("val/loss", "min", "Holm")
    first = model["settings"][0]
    assert first["settings"] == {"optimizer.lr": 0.1}
    assert first["metrics"]["val/loss"]["n"] == 3
    assert first["metrics"]["train/lr"]["mean"] == 0.1
    assert [run["seed"] for run in first["runs"]] == [0, 1, 2]
    found = {(d["first"], d["second"]): d for d in model["differences"]}
    assert set(found) == {(1, 2), (1, 3), (2, 3)}
    assert all(d["p_holm"] >= d["p"] and d["significant"] for d in found.values())


def test_csv_has_a_row_a_setting(logs, compare):
    compare("output=table.csv")
    with (logs.parents[2] / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["optimizer.lr"] for row in rows] == ["0.1", "0.01", "1.0"]
    assert [float(row["val/loss mean"]) for row in rows] == pytest.approx([0.6, 1.1, 2.5])
    assert [float(row["val/loss sd"]) for row in rows] == pytest.approx([0.1, 0.1, 0.5])
    assert rows[0]["seeds"] == "0 1 2"
    assert rows[0]["differs by val/loss from"] == "2, 3"


def test_markdown_has_the_tables(logs, compare):
    compare("output=table.md")
    said = (logs.parents[2] / "table.md").read_text()
    header, line, first, *_ = [text for text in said.splitlines() if text.startswith("|")]
    assert header.count("|") == line.count("|") == first.count("|")
    assert "| 0.6 | 0.1 |" in first
    assert "Holm's correction" in said


# Strangers --------------------------------------------------------------------------------------


def test_what_a_stranger_wrote_is_no_formula_no_html_and_no_order_to_a_terminal(logs, compare):
    key = "=HYPERLINK(1)"
    for value in ("\x1b]0;x\x07<script>alert(1)</script>", "=1+1"):
        plant(logs / f"s{len(value)}", **{key: value, "seed": "=2"})
    status, said = compare("logs/train/fizzbuzz/s*", "output=a.csv")
    assert (status, said.err) == (0, "")
    assert "\x1b" not in said.out
    assert "\x07" not in said.out
    with (logs.parents[2] / "a.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert f"'{key}" in cells
    assert "'=1+1" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    compare("logs/train/fizzbuzz/s*", "output=a.md")
    assert "<script>" not in (logs.parents[2] / "a.md").read_text()


# Mistakes ---------------------------------------------------------------------------------------

WRONG = {
    "nothing": "nothing: there is no such run directory",
    "logs/*/*/nothing*": "no run directory matches this pattern",
    "elsewhere": "elsewhere: neither a run directory nor a folder of them",
    "model=fizbuzz": "model=fizbuzz: no run of this model: did you mean 'fizzbuzz'?",
    "model=[a": "model=[a: cannot be parsed",
    "last=0": "last=0: must be a positive integer",
    "last=many": "last=many: must be a positive integer",
    "mode=more": "choose min or max",
    "metric=test/acuracy": "metric=test/acuracy: no run has it: did you mean 'test/accuracy'?",
    "metrik=test/loss": "metrik: there is no such key: did you mean 'metric'?",
    "output=table.txt": "name a file that ends in .csv, .json or .md",
    "output=nowhere/table.md": "the folder nowhere does not exist",
    "logs runs=logs": "use runs= for all of them or for none",
    "--last 3": "settings are key=value: last=3",
    "https://example.com/run": "only runs and checkpoints on this machine",
    "log_dir=elsewhere": "`python -m src.train log_dir=elsewhere` makes one",
    "latest log_dir=elsewhere": "there is no run yet",
    "runs=null": "runs=null: must be the name of a run",
    "runs=[logs,7]": "runs=['logs', 7]: must be the name of a run",
    "failed": "no run to compare: skipped 1, failed: failed",
    "broken": "broken/config.yaml cannot be read",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_mistake_gets_one_line(logs, compare, wrong):
    folder = logs.parents[2]
    (folder / "elsewhere").mkdir()
    plant(folder / "failed", status="failed")
    (plant(folder / "broken") / "config.yaml").write_text("[")
    before = sorted(folder.rglob("*"))
    status, said = compare(*wrong.split())
    assert (status, said.out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", said.err)
    assert WRONG[wrong] in said.err
    assert sorted(folder.rglob("*")) == before


def test_two_hundred_runs_are_compared(tmp_path, compare):
    for i in range(200):
        changes = {"seed": i % 5, "optimizer.lr": 0.01 * (i // 5 + 1), "model.width": i // 5 % 3}
        metrics = METRICS | {"val/loss": 1 + i // 5 + 0.1 * (i * 7 % 5)}
        plant(tmp_path / "logs" / "train" / "fizzbuzz" / f"{i:03}", metrics, **changes)
    status, said = compare(f"log_dir={tmp_path}/logs")
    assert (status, said.err) == (0, "")
    assert "200 runs, 40 settings" in said.out
    assert re.search(r"\d+ of 780 differences significant", said.out)
    assert len(said.out.splitlines()) < 200


def test_a_real_run_can_be_compared(command):
    quick = ("model=line", "trainer.max_epochs=2", "trainer.accelerator=cpu")
    for seed in (1, 2):
        command.here("train", f"seed={seed}", "logger=none", *quick)
    said = command.here("compare")
    assert "line: 2 runs, 1 setting; best first, by the lowest train/loss" in said
    assert runs.read(command.latest).model == "line"
    assert (ROOT / "conf" / "compare.yaml").is_file()


# Which is the newest ----------------------------------------------------------------------------


def test_the_newest_run_is_the_one_that_started_last_in_any_time_zone(logs, compare):
    for folder in logs.iterdir():
        shutil.rmtree(folder)
    plant(logs / "2026-11-21_23-00-00-a", start="2026-11-21T23:00:00+09:00", x=1)  # 14:00 UTC
    plant(logs / "2026-11-21_10-00-00-b", start="2026-11-21T10:00:00-05:00", x=2)  # 15:00 UTC
    plant(logs / "2026-10-25_02-30-00-c", start="2026-11-21T02:30:00+02:00", x=3)
    _, said = compare("last=1")
    assert "best run: logs/train/fizzbuzz/2026-11-21_10-00-00-b\n" in said.out
    plant(logs / "2026-11-21_10-30-00-d", start="2026-11-21T10:30:00+00:00", x=2)
    _, said = compare()
    assert "skipped 1, an older run of the same settings and seed" in said.out
    assert "seed: logs/train/fizzbuzz/2026-11-21_10-30-00-d" in said.out


def test_a_killed_run_is_not_running(logs, compare):
    plant(logs / "dead", status="running")
    _, said = compare()
    assert "skipped 1, killed: logs/train/fizzbuzz/dead" in said.out


def test_a_run_that_another_process_trains_is_running(logs, compare):
    path = plant(logs / "alive", status="running")
    hold = (
        "import sys, time, pathlib; from src.kindling.files.run_lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(path)],
        env=environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout.readline() == b"locked\n"
        assert "skipped 1, running: logs/train/fizzbuzz/alive" in compare()[1].out
    finally:
        holder.kill()
        holder.communicate()


# Where UTF-8 is missing -------------------------------------------------------------------------

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONWARNINGS": "ignore"}


@pytest.mark.parametrize("variables", [ASCII, {"PYTHONIOENCODING": "utf-8:strict"} | ASCII])
@pytest.mark.parametrize("name", ["compare", "report"])
def test_paths_with_umlauts_do_not_need_utf_8(tmp_path, name, variables):
    for seed in (1, 2):
        plant(tmp_path / "Läufe" / "train" / "fizzbuzz" / f"größer-{seed}", seed=seed)
    output = tmp_path / ("Übersicht.html" if name == "report" else "Übersicht.md")
    words = [str(tmp_path / "Läufe"), f"output={output}"]
    done = subprocess.run(
        [sys.executable, "-m", f"src.{name}", *words],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    text = output.read_text(encoding="utf-8")
    assert "±" in text
    assert ("größer-1" in text) == (name == "report")  # compare shows names as a terminal can
