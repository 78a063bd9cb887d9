"""The command line: what it lists, runs, draws and refuses."""

import os
import signal
import subprocess
import sys

import pytest

import src.tour.__main__ as entry
from src.tour import CHAPTERS

from .conftest import ROOT

PNG = b"\x89PNG\r\n\x1a\n"
PLOTS = {"gradient_descent", "layers", "linear_regression", "two_layer_net", "fizzbuzz"}
PARTS = {"__init__", "__main__", "page", "two_layer_net_by_hand", "two_layer_net_by_nn"}


def test_every_file_is_a_chapter_or_a_known_part():
    files = {path.stem for path in (ROOT / "src" / "tour").glob("*.py")}
    assert files == PARTS | set(CHAPTERS)


def test_listing_has_one_line_a_chapter_in_reading_order(tour):
    result = tour()
    lines = result.stdout.splitlines()
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.split()[0] for line in lines] == list(CHAPTERS)
    for name, line in zip(CHAPTERS, lines, strict=True):
        sentence = line[len(name) :].strip()
        assert sentence.endswith(".")
        assert len(sentence) > 30


@pytest.mark.parametrize("words", [(), ("--help",), ("neurn",), ("neuron", "outpt=x")])
def test_listing_help_and_errors_do_not_import_torch(tour, words):
    imported = tour(*words, flags=("-X", "importtime")).stderr
    assert "importlib" in imported
    assert "torch" not in imported
    assert "numpy" not in imported


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(tour, flag):
    result = tour("neuron", flag)
    assert result.returncode == 0
    assert result.stdout.startswith("usage: python -m src.tour")
    assert all(option in result.stdout for option in ("output=DIR", "epochs=N", "steps=N"))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["neurn"], ["no chapter 'neurn': did you mean 'neuron'?", *CHAPTERS, "all"]),
        (["zzz"], ["no chapter 'zzz'; chapters: tensors", *CHAPTERS]),
        (["neuron", "layers"], ["one chapter is needed, not neuron and layers", *CHAPTERS]),
        (["output=x"], ["one chapter is needed, not none", *CHAPTERS]),
        (["neuron", "outpt=x"], ["no option 'outpt': did you mean 'output'?"]),
        (["neuron", "=x"], ["no option ''; options: output"]),
        (["--output", "x"], ["no option '--output'", "output=DIR"]),
        (["neuron", "--output=x"], ["no option '--output=x'", "output=DIR"]),
        (["neuron", "epochs=5"], ["no option 'epochs'", "options: output"]),
        (["fizzbuzz", "epoch=5"], ["did you mean 'epochs'?"]),
        (["fizzbuzz", "epochs=0"], ["epochs='0' is not a positive whole number"]),
        (["fizzbuzz", "epochs=-1"], ["epochs='-1'"]),
        (["fizzbuzz", "epochs=ten"], ["epochs='ten'"]),
        (["fizzbuzz", "epochs=" + "9" * 5000], ["is not a positive whole number"]),
        (["two_layer_net", "steps="], ["steps='' is not a positive whole number"]),
        (["neuron", "output="], ["output='' is not a folder"]),
        (["neuron", "output=pyproject.toml"], ["output='pyproject.toml' cannot be a folder"]),
        (["neuron", "output=pyproject.toml/x"], ["output='pyproject.toml/x' cannot be a folder"]),
        (["two\nlines"], ["no chapter 'two\\nlines'"]),
    ],
)
def test_bad_input_gives_one_line_and_status_2(tour, words, parts):
    result = tour(*words)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith("\n")
    for part in parts:
        assert part in result.stderr


def test_a_mistake_beside_output_leaves_no_folder(tour, tmp_path):
    assert tour("fizzbuzz", f"output={tmp_path}/new", "epochs=x").returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(entry.InputError, match="not a folder that can be written"):
        entry.folder(str(tmp_path))


def test_plots_without_matplotlib_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(entry, "find_spec", lambda name: None)
    with pytest.raises(entry.InputError, match="pip install matplotlib"):
        entry.folder(str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_plot_that_cannot_be_written_gives_one_line_and_status_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "gradient_descent.png").mkdir()
    assert entry.main(["gradient_descent", f"output={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "gradient_descent.png" in error


def test_all_runs_every_chapter_in_order_and_draws(tour, chapter, tmp_path):
    folder = tmp_path / "made" / "on the way"
    result = tour(f"output={folder}", "all", "epochs=2", "steps=3")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    headings = [line[2:].partition(":")[0] for line in lines if line.startswith("# ")]
    assert headings == list(CHAPTERS)
    drawn = [str(folder / f"{n}.png") if n in PLOTS else "none in this chapter" for n in CHAPTERS]
    assert [line[6:] for line in lines if line.startswith("plot: ")] == drawn
    assert {path.stem for path in folder.iterdir()} == PLOTS
    for path in folder.iterdir():
        content = path.read_bytes()
        assert content.startswith(PNG)
        assert len(content) > 10_000
    assert [line.split()[1] for line in lines if line.startswith("Epoch: ")] == ["0", "1"]
    assert sum(line.startswith("   2  ") for line in lines) == 4  # 3 steps: two tables end there
    # A chapter that draws random numbers does so from its own seed, whatever ran before it.
    assert chapter("layers").split("\n", 1)[1] in result.stdout


def test_interrupt_ends_with_status_130_and_no_traceback():
    command = [sys.executable, "-u", "-m", "src.tour", "fizzbuzz", "epochs=999999"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        while not run.stdout.readline().startswith(b"Training"):
            pass
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=60) == 130
        [said] = run.stderr.read().splitlines()
        assert said.startswith(b"error: interrupted")


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="this system has no SIGPIPE")
def test_a_closed_pipe_ends_quietly():
    command = [sys.executable, "-m", "src.tour"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        assert run.wait(timeout=60) == -signal.SIGPIPE
        assert run.stderr.read() == b""
