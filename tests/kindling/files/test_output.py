"""Files that a command writes on request: plain for programs, harmless in a spreadsheet."""

import csv
import json
import math

import pytest

from src.kindling.errors import InputError
from src.kindling.files import output


def test_csv_and_json_hold_the_same_rows():
    rows = [{"name": "a,b", "value": 0.1}, {"name": 'c"d\ne', "value": -2.0}]
    read = list(csv.DictReader(output.rows_as(".csv", rows).splitlines(keepends=True)))
    assert [(row["name"], float(row["value"])) for row in read] == [("a,b", 0.1), ('c"d\ne', -2.0)]
    assert json.loads(output.rows_as(".json", rows)) == rows


def test_json_has_no_nan():
    said = output.as_json({"a": [math.nan, {"b": -math.inf}], "c": (1.5, "nan")})
    assert json.loads(said, parse_constant=pytest.fail) == {
        "a": [None, {"b": None}],
        "c": [1.5, "nan"],
    }


def test_the_path_is_checked_before_there_is_anything_to_write(tmp_path):
    assert output.checked_output(None, [".csv"]) is None
    assert output.checked_output(str(tmp_path / "a.md"), [".csv", ".md"]) == tmp_path / "a.md"
    (tmp_path / "folder.csv").mkdir()
    for name, said in {
        "a.txt": "ends in .csv, .json or .md",
        "csv": "ends in .csv",
        "folder.csv": "does not exist",
        "nowhere/a.csv": "does not exist",
    }.items():
        with pytest.raises(InputError, match=said):
            output.checked_output(str(tmp_path / name), [".csv", ".json", ".md"])
