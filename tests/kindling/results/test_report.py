"""A report is one file: it holds everything, fetches nothing, and runs nothing that it was told."""

import base64
import importlib
import itertools
import re
import shlex
import struct
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from src.kindling import layout
from src.kindling.files import bounded, run_directory, run_record
from src.kindling.results import charts, pictures, runs
from src.kindling.results import page as page_module
from src.kindling.results.page import commands
from src.kindling.results.pictures import PNG, figures
from tests.kindling.results.test_runs import METRICS, plant

HISTORY = "step,train/loss,val/loss,train/lr\n9,1.5,,0.1\n19,1.25,0.5,0.01\n29,nan,0.25,1e-05\n"


def png(description=None):
    """Return a picture of one pixel, with or without words on it."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    words = b"" if description is None else chunk(b"tEXt", b"Description\0" + description)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixel = chunk(b"IDAT", zlib.compress(b"\0\xff"))
    return PNG + header + words + pixel + chunk(b"IEND", b"")


class Page(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.source, self.elements, self.text = text, [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def run(tmp_path):
    """A run with everything that a report shows."""
    return planted(tmp_path / "run")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page about such a run."""
    return Page(page_module.page([runs.read(planted(tmp_path_factory.mktemp("page") / "run"))]))


def planted(folder):
    path = plant(folder, seed=3)
    (path / "metrics.csv").write_text(HISTORY)
    (path / "figures").mkdir()
    (path / "figures" / "board.png").write_bytes(png(b"99 of 100 right"))
    (path / "figures" / "first_weights.png").write_bytes(png())
    record = {
        "command": ["/usr/bin/python3", "-m", "src.train", "seed=3", "model.name='a b'"],
        "git": {"commit": "0123abc", "dirty": False},
        "versions": {"torch": "2.13.0"},
        "device": "cpu, 1 process(es)",
        "start": "2026-11-21T10:00:00+00:00",
        "end": "2026-11-21T11:02:03+00:00",
        "status": "finished",
    }
    run_record.write_json(path / "run.json", record)
    return path


@pytest.fixture
def reported(tmp_path, monkeypatch, capfd):
    """Return a caller of the command, which returns the page that it wrote, or what it said."""
    monkeypatch.chdir(tmp_path)

    def called(*arguments, status=0):
        monkeypatch.setattr(sys, "argv", ["src/report.py", *arguments])
        if status:
            with pytest.raises(SystemExit) as stop:
                importlib.import_module("src.report").main()
            assert stop.value.code == status
            return capfd.readouterr()
        importlib.import_module("src.report").main()
        said = capfd.readouterr()
        assert said.err == ""
        path = said.out.strip().partition(": ")[2]
        return Page((tmp_path / path).read_text(encoding="utf-8"))

    return called


def test_the_page_has_facts_metrics_curves_figures_commands_and_configuration(page):
    for text in (
        *("2.13.0", "0123abc", "cpu, 1 process(es)", "1:02:03", "finished"),
        "git checkout 0123abc\npython -m src.train seed=3 'model.name='\"'\"'a b'\"'\"''\n"[:-1],
        "python -m src.train resume=/",
        "python -m src.predict run=/",
        "python -m src.evaluate run=/",
        "tensorboard --logdir /",
        "hidden_features: 100",
    ):
        assert text in page.text, text
    head = "".join(f'<th scope="col">{name}</th>' for name in ("metric", "train", "val", "test"))
    assert f"<tr>{head}</tr>" in page.source
    losses = "".join(
        f"<td>{METRICS[f'{stage}/loss']:.6g}</td>" for stage in ("train", "val", "test")
    )
    assert f'<tr><th scope="row">loss</th>{losses}</tr>' in page.source
    assert '<th scope="row">accuracy</th><td>-</td><td>-</td><td>0.5</td>' in page.source
    alternatives = [image["alt"] for image in page.all("img")]
    assert alternatives[-2:] == ["99 of 100 right", "figure of the run: first weights"]
    assert alternatives[0] == (
        "loss by optimizer step."
        " train: 1.5 at step 9, 1.25 at step 19, between 1.25 and 1.5."
        " val: 0.5 at step 19, 0.25 at step 29, between 0.25 and 0.5."
    )
    assert alternatives[1].startswith(
        "lr by optimizer step. train: 0.1 at step 9, 1e-05 at step 29"
    )


def test_nothing_is_fetched_and_no_script_runs(page):
    sources = [v for _, found in page.elements for k, v in found.items() if k in ("src", "href")]
    assert sources
    assert [source for source in sources if not source.startswith(("data:", "#"))] == []
    assert not page.all("script")
    policy = [found for found in page.all("meta") if "http-equiv" in found]
    assert policy[0]["content"].startswith("default-src 'none'; img-src data:")
    assert [k for _, found in page.elements for k in found if k.startswith("on")] == []
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_the_page_is_made_for_readers_of_all_kinds(page):
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    assert all("scope" in found for found in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(found["alt"] for found in page.all("img"))


def test_several_runs_are_compared_and_drawn_together(run, reported, tmp_path):
    for seed, value in ((4, 1.0), (5, 1.5)):
        (
            plant(tmp_path / f"r{seed}", METRICS | {"val/loss": value}, seed=seed) / "metrics.csv"
        ).write_text(HISTORY)
    plant(tmp_path / "failed", metrics=None, status="failed")
    page = reported("run=[run,r4,r5,failed]", "output=all.html")
    assert "fizzbuzz: 3 runs, 1 setting; best first, by the lowest val/loss" in page.text
    assert "0.5 ± 0" in page.text  # the accuracy
    assert re.search(r"best run: r4", page.text)
    text = next(i["alt"] for i in page.all("img") if i["alt"].startswith("train/loss"))
    assert [f"run {number}: " in text for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert "None: the run has not finished." in page.text
    assert {"href": "#run-4"} in page.all("a")
    identifiers = [found["id"] for _, found in page.elements if "id" in found]
    assert len(set(identifiers)) == len(identifiers)


def test_runs_are_words_patterns_and_latest(run, reported, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "latest").symlink_to("../run")
    assert "Facts" in reported().text
    assert (run / "report.html").is_file()
    plant(tmp_path / "logs" / "train" / "fizzbuzz" / "b", seed=1)
    assert "2 runs" in reported("ru*", "logs/train").text
    assert (tmp_path / "logs" / "report.html").is_file()


def test_a_run_that_has_nothing_yet_is_still_reported(reported, tmp_path):
    path = plant(tmp_path / "run", metrics=None, status="running")
    (path / "run.json").unlink()
    page = reported("run=run")
    assert "No history was logged" in page.text
    assert "To resume it" in page.text
    assert "To reproduce it" not in page.text


def test_a_resumed_run_is_reproduced_by_its_first_command(run, reported):
    record = runs.read(run).record
    resumed = {
        **record,
        "command": ["python", "-m", "src.train", "resume=run"],
        "earlier": [record],
    }
    run_record.write_json(run / "run.json", resumed)
    page = reported("run=run")
    assert "\npython -m src.train seed=3 " in page.text
    assert "times resumed" in page.text


def test_a_run_remembers_how_it_was_started_before(tmp_path):
    for _ in range(3):
        with run_record.record_run(tmp_path, "cpu"):
            pass
    record = bounded.read_json(tmp_path / "run.json")
    assert [told["status"] for told in record["earlier"]] == ["finished", "finished"]
    assert record["earlier"][0]["command"] == record["command"]


# Charts -----------------------------------------------------------------------------------------


def test_a_chart_is_svg_with_text_and_the_points():
    [chart] = charts.charts(
        {1: {"train/loss": ([1.0, 2.0], [3.0, 4.0]), "test/loss": ([2.0], [1.0])}}
    )
    root = ElementTree.fromstring(chart.svg)
    assert root.tag.endswith("svg")
    texts = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert {"optimizer step", "loss"} <= set(texts)
    assert len(chart.svg) < 30_000
    assert charts.charts({1: {"train/loss": ([1.0, 2.0], [3.0, 4.0])}})[0].svg == chart.svg


def test_a_long_history_makes_no_large_chart():
    steps = [float(step) for step in range(100_000)]
    [chart] = charts.charts({1: {"train/loss": (steps, steps)}})
    assert len(chart.svg) < 60_000
    assert "99999 at step 99999" in chart.text.replace("1e+05 at step 99999", "99999 at step 99999")


@pytest.mark.parametrize(
    "name", ["$x^2$", "_hidden", "a" * 99, "<b>&amp;", "\x1b[2J", "ä漢", "$\\frac{$"]
)
def test_any_name_of_a_metric_is_text(name):
    metric = f"train/{name}"
    histories = {number: {metric: ([1.0, 2.0], [1.0, 2.0])} for number in (1, 2)}
    for drawn in (charts.charts(histories), charts.charts({1: histories[1]})):
        assert ElementTree.fromstring(drawn[0].svg).tag.endswith("svg")


def test_values_that_cannot_be_drawn_are_left_out():
    inf = float("inf")
    history = {"a": ([1.0, 2.0], [inf, float("nan")]), "b": ([1.0, 2.0], [1e308, 5.0])}
    [chart] = charts.charts({1: history})
    assert chart.title == "b"
    assert "5 at step 2" in chart.text


# From a stranger --------------------------------------------------------------------------------

ATTACK = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[2J\u202e${7*7}{{7*7}}"


def test_what_a_stranger_wrote_stays_text(reported, tmp_path):
    path = plant(tmp_path / "run", seed=ATTACK, status=ATTACK, **{ATTACK.replace(".", ""): ATTACK})
    record = dict.fromkeys(["start", "end", "device", "platform", "python", "status"], ATTACK)
    record |= {"versions": {ATTACK: ATTACK}, "git": {"commit": ATTACK, "dirty": ATTACK}}
    record["command"] = ["python", "-m", "src.train", ATTACK]
    run_record.write_json(path / "run.json", record)
    (path / "metrics.csv").write_text(f'step,"train/{ATTACK.replace(chr(34), "")}"\n1,2\n')
    (path / "figures").mkdir()
    (path / "figures" / "<script>.png").write_bytes(png(ATTACK.encode("latin-1", "replace")))
    for words in (["run=run"], ["run=[run,run2]"]):
        page = reported(*words)
        assert not page.all("script")
        assert {k for _, found in page.elements for k in found if k.startswith("on")} == set()
        assert all(image["src"].startswith("data:image/") for image in page.all("img"))
        assert "<script>alert(1)</script>" in page.text
        assert "\x1b" not in page.text
        assert "\u202e" not in page.text
        assert "{{7*7}}" in page.text
        for image in page.all("img"):
            kind, _, content = image["src"].partition(",")
            assert kind == "data:image/png;base64" or b"<script" not in base64.b64decode(content)
        if not (tmp_path / "run2").exists():
            run_directory.write_config(plant(tmp_path / "run2"), runs.read(path).config)


@pytest.mark.parametrize(
    "word",
    [
        "model._target_=os.system",
        "hydra.sweeper=x",
        "hydra/launcher=x",
        "--config-dir=/x",
        "-cd",
        "a\nb",
    ],
)
def test_a_command_that_could_build_what_it_names_is_not_offered(run, word):
    record = {"command": ["python", "-m", "src.train", "seed=3", word], "status": "finished"}
    run_record.write_json(run / "run.json", record)
    assert "reproduce it" not in dict(commands(runs.read(run)))
    record["command"][-1] = "-m"
    run_record.write_json(run / "run.json", record)
    offered = dict(commands(runs.read(run)))
    assert offered["reproduce it"] == "python -m src.train seed=3 -m"


def test_folders_that_a_run_was_trained_with_are_named_and_not_used(run):
    folders = ["/my own/conf", str(run / "conf"), "a\0b", "\x1b[2J", 3]
    run_record.write_json(run / "run.json", {"config_dirs": folders, "status": "finished"})
    with layout.added_folders([]):
        offered = dict(commands(runs.read(run)))
    [what] = [what for what in offered if "if that is yours" in what]
    assert offered.pop(what) == "'--config-dir=/my own/conf'"
    assert "conf" not in "".join(offered.values())
    with layout.added_folders([Path("/my own/conf")]):  # given to the report: in each command
        assert what not in dict(commands(runs.read(run)))


@pytest.mark.parametrize(
    "content",
    [b"", b"GIF89a", b"<svg onload='alert(1)'/>", b"\x89PNG", PNG + b"\xff" * 40],
    ids=repr,
)
def test_a_figure_that_is_no_picture(run, content):
    (run / "figures" / "board.png").write_bytes(content)
    pictures, left_out = figures(run)
    shown = content.startswith(PNG)
    assert [picture.title for picture in pictures] == ["board"] * shown + ["first weights"]
    assert left_out == ["board.png"] * (not shown)


def test_a_figure_that_is_too_large_or_no_file_is_left_out(run, monkeypatch):
    monkeypatch.setattr(pictures, "LARGEST", 10)
    (run / "figures" / "pipe.png").symlink_to("/dev/zero")
    names = ["board.png", "first_weights.png", "pipe.png"]
    assert figures(run) == ([], names)
    monkeypatch.setattr(pictures, "MOST", 1)
    assert sorted(figures(run)[1]) == names
    (run / "figures" / "pipe.png").unlink()
    page = page_module.page([runs.read(run)])
    assert "or too many): first_weights.png, board.png." in page


def test_a_run_among_others_is_not_read_through_its_links(reported, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "private.png").write_bytes(png())
    run = plant(tmp_path / "some" / "a")
    (run / "figures").symlink_to(tmp_path / "mine")
    planted(tmp_path / "some" / "b")
    assert "figures is a link" in reported("some", status=2).err


# Mistakes ---------------------------------------------------------------------------------------

WRONG = {
    "run=nowhere": "nowhere: there is no such run directory",
    "run=nowhere*": "no run directory matches",
    "run=": "run=: must be the name of a run",
    "run=[run,null]": "must be the name of a run",
    "run=latest": "there is no run yet",
    "output=report.pdf run=run": "name a file that ends in .html",
    "output=no/report.html run=run": "the folder no does not exist",
    "rum=run": "rum: there is no such key: did you mean 'run'?",
    "run=broken": "broken/config.yaml cannot be read",
    "run=https://example.com": "only runs and checkpoints on this machine",
    "run=history": "history/metrics.csv is not a history",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_mistake_gets_one_line(run, reported, tmp_path, wrong):
    (plant(tmp_path / "broken") / "config.yaml").write_text("[")
    (plant(tmp_path / "history") / "metrics.csv").write_text("step,a\n1,x\n")
    before = sorted(tmp_path.rglob("*"))
    said = reported(*shlex.split(wrong), status=2)
    assert said.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", said.err)
    assert WRONG[wrong] in said.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("output", [None, "report.html"])
def test_a_report_that_cannot_be_written_names_the_setting(run, reported, output):
    (run / "report.html").mkdir()  # as a read-only run, for root too: the file cannot be made
    (run.parent / "report.html").mkdir()
    given = [] if output is None else [f"output={run}/x/report.html"]
    said = reported("run=run", *given, status=2)
    assert re.fullmatch(r"error: output[^\n]+\n", said.err)
    if output is None:
        assert "report.html cannot be written" in said.err
        assert "use output=FILE.html" in said.err
