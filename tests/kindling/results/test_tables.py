"""Tables: aligned for people, plain for programs, and harmless wherever they are shown."""

import csv
import json
import math

import pytest

from src.kindling.errors import InputError
from src.kindling.results import tables


def test_numbers_stand_to_the_right_and_the_last_column_is_wrapped():
    said = tables.text(["#", "loss", "setting"], [[1, 0.5, "a=1 " * 20], [12, None, "b"]], 60)
    lines = said.splitlines()
    assert lines[0] == "   #  loss  setting"
    assert lines[1].startswith("   1   0.5  a=1 a=1")
    assert lines[2].startswith(" " * 12 + "a=1")
    assert lines[-1] == "  12     -  b"
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.1 + 0.2, "0.3"),
        (1e-8, "1e-08"),
        (math.nan, "nan"),
        (None, "-"),
        (True, "true"),
        (3, "3"),
        ([0.9, 0.999, None], "[0.9,0.999,-]"),
        ("\x1b[2J\x9b31mred\nline", "?[2J?31mred?line"),
        ("\u202eright to left", "?right to left"),
        ("x" * 5000, "x" * 997 + "..."),
    ],
)
def test_a_value_is_short_and_commands_no_terminal(value, said):
    assert tables.shown(value) == said


def test_markdown_shows_what_would_be_markup():
    said = tables.markdown(["a|b", "c"], [["<script>alert(1)</script>", "[x](http://y) `z` *"]])
    header, line, row = said.splitlines()
    assert header == "| a\\|b | c |"
    assert line == "| --- | --- |"
    assert row == r"| \<script\>alert(1)\</script\> | \[x\](http://y) \`z\` \* |"


def test_csv_and_json_hold_the_same_rows():
    rows = [{"name": "a,b", "value": 0.1}, {"name": 'c"d\ne', "value": -2.0}]
    read = list(csv.DictReader(tables.rows_as(".csv", rows).splitlines(keepends=True)))
    assert [(row["name"], float(row["value"])) for row in read] == [("a,b", 0.1), ('c"d\ne', -2.0)]
    assert json.loads(tables.rows_as(".json", rows)) == rows


def test_json_is_what_every_reader_takes():
    said = tables.as_json({"a": [math.nan, {"b": -math.inf}], "c": (1.5, "nan")})
    assert json.loads(said, parse_constant=pytest.fail) == {
        "a": [None, {"b": None}],
        "c": [1.5, "nan"],
    }


def test_the_output_is_checked_before_there_is_anything_to_write(tmp_path):
    assert tables.checked_output(None, [".csv"]) is None
    assert tables.checked_output(str(tmp_path / "a.md"), [".csv", ".md"]) == tmp_path / "a.md"
    (tmp_path / "folder.csv").mkdir()
    for name, said in {
        "a.txt": "ends in .csv, .json or .md",
        "csv": "ends in .csv",
        "folder.csv": "there is no folder",
        "nowhere/a.csv": "there is no folder",
    }.items():
        with pytest.raises(InputError, match=said):
            tables.checked_output(str(tmp_path / name), [".csv", ".json", ".md"])
