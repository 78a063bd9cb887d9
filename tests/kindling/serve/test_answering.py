"""Questions are answered together, each as it would be alone; a wrong one harms no other."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from src.kindling.errors import InputError
from src.kindling.serve import answering, app
from src.kindling.serve.server import check
from src.kindling.training import prediction
from tests.conftest import ROOT, Command

SETTINGS = dict.fromkeys(("max_rows", "max_bytes", "max_batch", "max_waiting"), 9)


def test_batches_are_joined_and_split_where_only_the_rows_differ() -> None:
    one, other = {"x": torch.ones(2, 3), "n": 1}, {"x": torch.zeros(1, 3), "n": 1}
    whole = answering.joined([one, other])
    assert (whole["x"].shape, whole["n"]) == ((3, 3), 1)
    parts = answering.split({"y": whole["x"] * 2}, [2, 1])
    assert parts is not None
    assert [part["y"].tolist() for part in parts] == [[[2.0] * 3] * 2, [[0.0] * 3]]
    assert answering.split(torch.tensor(1.0), [2, 1]) is None
    assert answering.split(torch.ones(2), [2, 1]) is None
    for odd in ({"x": torch.ones(1, 4), "n": 1}, {"x": torch.ones(1, 3), "n": 2}, torch.ones(1, 3)):
        assert answering.joined([one, odd]) is None
    assert answering.joined([{"x": torch.ones(2), "y": torch.ones(3)}] * 2) is None


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"[1]", "must be a JSON object"),
        (b"{", "the question is not JSON"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"\xff", "the question is not JSON"),
        (b"[" * 100_000, "the question is not JSON"),
    ],
)
def test_what_is_not_a_question_is_refused(content: bytes, line: str) -> None:
    with pytest.raises(InputError, match=line):
        app.parse(content)


def test_a_question_may_be_empty_and_null_is_left_out() -> None:
    assert app.parse(b"") == app.parse(b'{"a": null}') == {}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"max_rows": 0}, "^max_rows=0: must be greater than 0$"),
        ({"port": 70000}, "^port=70000: must be less than 65536$"),
        ({"threads": "x"}, "^threads=x: must be a valid integer$"),
    ],
)
def test_a_wrong_setting_is_refused(change: Any, line: str) -> None:
    right = {**SETTINGS, "max_connections": 9, "port": 0, "threads": None}
    check(right)
    with pytest.raises(InputError, match=line):
        check(right | change)


@pytest.mark.skipif(
    not (ROOT / "src/data/fizzbuzz.py").exists(), reason="the FizzBuzz classifier is not there"
)
def test_answers_together_are_those_that_each_gets_alone(command: Command) -> None:
    words = ("model=fizzbuzz", "trainer.max_epochs=1", "logger=none", "~callbacks.figures")
    command.here("train", *words)
    served = answering.Served(command.latest / "checkpoints" / "best.ckpt", max_rows=200)
    assert served.joins
    questions: list[dict[str, Any]] = [{"numbers": [15, 3]}, {"numbers": 7}, {}, {"number": 1}]
    questions += [{"numbers": -1}, {"file": "/etc/passwd"}, {"numbers": "1..1000"}]
    found = served.answer(questions)
    for asked, rows in zip(questions[:3], found[:3], strict=True):
        assert rows == prediction.predict(served.data, served.model, asked)
    assert [str(line) for line in found[3:]] == [
        "number: this model is not asked for that: did you mean 'numbers'?",
        "-1 is not a non-negative integer",
        "file: files of this machine are not read over HTTP",
        "1000 rows are too many; up to 200 are answered",
    ]
    assert all(isinstance(line, InputError) for line in found[3:])
    assert list(app.schema(served)["properties"]) == ["numbers"]
    text = json.dumps(found[:3])
    assert answering.stamp(Path(served.checkpoint)) == served.stamp
    assert json.loads(text) == found[:3]
