"""Measuring with a clock that is set by hand, and a real run with marks."""

import json
from unittest import mock

import pytest

pytest.importorskip("src.tour", reason="the hand-written loops of the benchmarks are in src/tour")
from tests.benchmarks import __main__ as bench
from tests.benchmarks import guests, measure, raw_loops, script, steps, table
from tests.benchmarks.table import Result


class Clock:
    """A clock that is moved by hand."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    def work(self, seconds):
        self.time += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(measure, "now", clock.now)
    monkeypatch.setattr(steps, "now", clock.now)
    return clock


def test_marks_time_a_whole_period_and_nothing_of_the_other_loop(clock):
    marks = steps.Marks(lambda steps: clock.work(7.0 * steps), period=3, warm=2)
    for epoch in range(marks.epochs):
        marks.at_epoch_start(epoch, step=4 * epoch)
        # Epochs 2, 5, 8, ... take longer, as if a run validated once per period.
        clock.work(100.0 if epoch < 2 else 8.0 + 12.0 * (epoch % 3 == 2))
    assert marks.ours == [(20 + 8 + 8) / 12] * measure.ROUNDS
    assert marks.against == [7.0] * measure.ROUNDS


def test_works_alternate_after_a_warm_up(clock):
    order = []

    def work(name, seconds):
        return lambda: (order.append(name), clock.work(seconds))

    assert measure.alternately(work("a", 1.0), work("b", 3.0), rounds=2) == [[1.0] * 2, [3.0] * 2]
    assert order == ["a", "b"] * 3


def test_the_ratio_is_the_median_over_the_rounds():
    assert measure.ratio([1, 2, 900], [2, 2, 3]) == 1  # of 1/2, 1 and 300


@pytest.mark.parametrize(
    ("measured", "goal", "at_least", "kept", "verdict"),
    [
        (0.9, 1.0, False, True, "met"),
        (1.1, 1.0, False, True, "missed"),
        (0.9, 1.0, False, False, "missed"),  # fast, but the second condition does not hold
        (60.0, 50.0, True, True, "met"),
        (40.0, 50.0, True, True, "missed"),
        (2.4, None, False, True, ""),
        (None, 0.1, False, True, "skipped"),
    ],
)
def test_verdicts(measured, goal, at_least, kept, verdict):
    assert Result("row", "what", measured, goal, at_least, kept=kept).verdict == verdict


def test_the_table_is_markdown_with_medians_and_the_json_has_each_round():
    result = Result("fast", "a / b", 0.5, 1.0, False, [1e-6, 9e-6, 2e-6], [4e-6], "us per step")
    header, rule, line = table.markdown([result]).splitlines()
    assert [cell.strip() for cell in header.strip("|").split("|")] == list(table.HEADER)
    assert set(rule) == {"|", "-"}
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["fast", "a / b", "<= 1", "0.50", "2 us per step", "4 us per step", "met"]
    kept = json.loads(table.as_json([result], table.machine()))
    assert kept["rows"][0]["ours"] == [1e-6, 9e-6, 2e-6]
    assert kept["rows"][0]["verdict"] == "met"
    assert {"processor", "cores", "versions", "git"} <= kept["machine"].keys()
    assert kept["machine"]["versions"].keys() >= {"torch", "lightning"}


def test_rows_are_chosen_by_the_start_of_their_names(capsys):
    assert bench.chosen(["fizz", "help"]) == ["fizzbuzz", "fizzbuzz_compiled", "help"]
    assert bench.chosen([]) == list(bench.ROWS)
    with pytest.raises(SystemExit) as stop:
        bench.chosen(["loder"])
    assert stop.value.code == 2
    assert "did you mean 'loader'?" in capsys.readouterr().err


def test_a_row_that_fails_gives_the_reason_and_does_not_stop_the_others():
    def broken():
        raise ValueError("no such luck")

    with mock.patch.dict(bench.ROWS, {"help": broken}):
        (result,) = bench.measured("help")
    assert result.verdict == "skipped"
    assert result.note == "ValueError: no such luck"


def test_a_real_run_reaches_its_marks():
    taken = []
    marks = steps.Marks(taken.append, period=2, warm=1)
    printed = steps.trained(marks, "model=linear_regression", steps.CPU)
    assert len(marks.ours) == len(marks.against) == measure.ROUNDS
    assert min(marks.ours) > 0
    assert taken[1:] == [2] * measure.ROUNDS  # as many steps as the run took between two marks
    assert "test/r2" in printed


@pytest.mark.parametrize(("kind", "data"), [("tokens", {}), ("images", {"images": 96})])
def test_the_hand_written_loops_log_validate_and_save(kind, data, tmp_path):
    with guests.written(kind) as (model, source, root):
        loop = guests.by_hand(kind, model, source, root, tmp_path, data)
        before = [p.clone() for p in loop.model.parameters()]
        epochs = -(-guests.EVERY // len(loop.loader))
        loop(epochs * len(loop.loader))
        loop.board.close()
    assert loop.step == epochs * len(loop.loader)
    assert all((old != new).any() for old, new in zip(before, loop.model.parameters(), strict=True))
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert len(rows) == epochs + loop.step // guests.EVERY
    assert {"best.pt", "last.pt"} <= {path.name for path in tmp_path.iterdir()}


def test_a_loop_in_a_process_of_its_own_takes_the_steps_of_each_line(monkeypatch, capsys):
    taken = []
    monkeypatch.setattr(raw_loops, "tutorial_fizzbuzz", lambda device: taken.append, raising=True)
    monkeypatch.setattr("sys.argv", ["script.py", '["tutorial_fizzbuzz", "cpu"]'])
    monkeypatch.setattr("sys.stdin", ["8\n", "16\n"])
    script.main()
    assert taken == [8, 16]
    assert capsys.readouterr().out == "taken\n" * 2


def test_a_refused_run_is_reported():
    with pytest.raises(RuntimeError, match=r"error: trainer\.max_epoch"):
        steps.trained(steps.Marks(None, 1, 1), "trainer.max_epoch=3")
