"""A history of any length is read as curves of bounded size."""

import itertools
import math
import subprocess
import sys

import pytest

from src.kindling.errors import InputError
from src.kindling.results import history
from src.kindling.results.history import POINTS, read_history
from tests.conftest import ROOT, environment
from tests.kindling.results.test_runs import plant


def write(folder, lines):
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_long_curve_is_thinned_evenly_and_keeps_its_end_and_its_extremes(tmp_path):
    count = 10 * POINTS + 7
    values = [math.sin(i / 100) for i in range(count)]
    values[1235], values[4321], values[-1] = 50.0, -50.0, 0.25
    rows = [f"{i // 8},{i},{value}" for i, value in enumerate(values)]
    steps, found = read_history(write(tmp_path, ["epoch,step,a", *rows]))["a"]
    assert POINTS <= len(steps) <= 2 * POINTS + 3
    assert steps == sorted(steps)
    assert (steps[0], steps[-1], found[-1]) == (0, count - 1, 0.25)
    assert {50.0, -50.0} <= set(found)
    assert all(values[int(step)] == value for step, value in zip(steps, found, strict=True))
    regular = [s for s in steps if s not in (1235, 4321, count - 1)]
    assert {b - a for a, b in itertools.pairwise(regular)} == {regular[1]}


def test_a_short_curve_is_kept_whole_and_its_later_value_counts(tmp_path):
    rows = ["step,a,b", "0,1,", "1,,5", "2,nan,6", "0,3"]
    found = read_history(write(tmp_path, rows))
    assert found["b"] == ([1.0, 2.0], [5.0, 6.0])
    assert found["a"][0] == [0.0, 2.0]
    assert found["a"][1][0] == 3.0


def test_a_curve_is_thinned_evenly_however_it_is_divided_into_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "CELLS", 2 * 7)  # rows of two cells, seven per chunk
    count = 4 * POINTS + 1
    steps, _ = read_history(write(tmp_path, ["step,a", *(f"{i},{i}" for i in range(count))]))["a"]
    assert {b - a for a, b in itertools.pairwise(steps)} == {steps[1]}


def test_the_later_value_of_a_step_counts_in_a_long_curve_too(tmp_path):
    count = 4 * POINTS
    rows = [*(f"{i},{i}" for i in range(count + 1)), f"{count},0.5"]  # a step that a resume repeats
    steps, found = read_history(write(tmp_path, ["step,a", *rows]))["a"]
    assert (steps[-1], found[-1]) == (count, 0.5)


def test_a_row_without_a_finite_step_is_left_out(tmp_path):
    assert read_history(write(tmp_path, ["step,a", "inf,1", ",2", "3,4"])) == {"a": ([3.0], [4.0])}


def test_rows_longer_than_the_header_are_cut(tmp_path):
    assert read_history(write(tmp_path, ["step,a", "1,2,3,4"])) == {"a": ([1.0], [2.0])}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["step,a", "x" * 2**20], "longer line"),
        ([",".join(["step", *(f"m{i}" for i in range(1001))])], "more columns"),
    ],
    ids=["a long line", "many columns"],
)
def test_what_a_run_would_not_have_written_is_refused(tmp_path, lines, message):
    with pytest.raises(InputError, match=message):
        read_history(write(tmp_path, lines))


def test_without_steps_there_are_no_curves(tmp_path):
    assert read_history(write(tmp_path, ["a,b", "1,2"])) == {}
    assert read_history(write(tmp_path, [""])) == {}


MEASURED = r"""
import pathlib, re, sys, time
from src.kindling.results import runs
from src.kindling.results.page import page
start = time.process_time()
text = page([runs.read(pathlib.Path(sys.argv[1]))])
peak = re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
megabytes = int(peak[1]) / 2**10
print(len(text), megabytes, time.process_time() - start)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("rows", "most_seconds"), [(100_000, 3), pytest.param(1_000_000, 10, marks=pytest.mark.slow)]
)
def test_a_million_rows_take_less_than_300_mb_and_10_seconds(rows, most_seconds, tmp_path):
    path = plant(tmp_path / "run")
    with (path / "metrics.csv").open("w") as file:
        file.write("epoch,step,train/loss,train/lr,train/gradient_norm,val/loss\n")
        for step in range(rows):
            file.write(f"{step // 8},{step},{1 / (step + 1)},0.1,{step % 7},{step % 9}.5\n")
    assert (path / "metrics.csv").stat().st_size > 33 * rows
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    size, megabytes, seconds = map(float, done.stdout.split())
    assert size < 2**20
    assert megabytes < 300
    assert seconds < most_seconds  # of processor time
    assert history.POINTS > 1000  # more than a chart shows
