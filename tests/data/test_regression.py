"""What a user asks of a regression and how the answer is shown, files and tables alike."""

import re

import numpy as np
import pytest
import torch

from src.data.linear_regression import LinearRegressionData
from src.data.two_layer_net import TwoLayerNetData
from src.kindling.files.csv_columns import columns


@pytest.fixture
def data():
    """Two features, one value, fifty test rows."""
    return LinearRegressionData()


@pytest.fixture
def file(tmp_path):
    """Write a CSV file and return its path."""

    def write(content):
        path = tmp_path / "asked.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


# What is asked ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ([0.5, 1.0], [[0.5, 1.0]]),
        ([1, -2], [[1.0, -2.0]]),
        ([[0.5, 1.0]], [[0.5, 1.0]]),
        ([[1, 2], [3, 4], [5, 6]], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
    ],
)
def test_takes_a_row_or_rows_of_features(data, features, expected):
    inputs = data.prediction_inputs(features)
    assert inputs.dtype == torch.float32
    assert inputs.tolist() == expected


def test_takes_a_number_where_there_is_one_feature():
    data = LinearRegressionData(in_features=1, coefficients=[2.0])
    assert data.prediction_inputs(3).tolist() == [[3.0]]


def test_takes_the_test_rows_where_nothing_is_asked(data):
    assert torch.equal(data.prediction_inputs(), data.split("test")[0])


def test_takes_the_training_rows_where_there_are_no_test_rows():
    data = TwoLayerNetData(targets="random", rows=4)
    assert torch.equal(data.prediction_inputs(), data.split("train")[0])


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        ([1.0], "1 numbers.* 2"),
        ([1.0, 2.0, 3.0], "3 numbers.* 2"),
        ([[1.0, 2.0, 3.0]], "3 numbers.* 2"),
        (3.0, "1 numbers.* 2"),
        ([], "0 numbers.* 2"),
        ([[1.0, 2.0], [3.0]], "must be a table"),
        ([1.0, [2.0]], "must be a table"),
        (["a", "b"], "must be a table"),
        ("abc", "must be a table"),
        ([None, 1.0], "must be a table"),
        ({"x1": 1.0}, "must be a table"),
        ([[[1.0, 2.0]]], "features="),
        ([10**400, 1], "features="),
        ([[0.0, 1.0], [float("inf"), 1.0]], "not finite"),
        ([1e39, 1.0], "too large"),
    ],
)
def test_refuses_features_of_another_form_and_says_why(data, features, reason):
    with pytest.raises(ValueError, match=reason) as refusal:
        data.prediction_inputs(features)
    assert "\n" not in str(refusal.value)


# Files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "x1,x2\n0.5,1\n-2,3e-1\n",
        "\ufeffx1,x2\n0.5,1\n-2,3e-1\n",
        "name,x2,x1\r\na,1,0.5\r\nb,3e-1,-2\r\n",
        'x1,x2\n"0.5", 1 \n\n-2,3e-1',
    ],
    ids=["plain", "byte order mark", "other columns and order", "quotes, spaces, empty line"],
)
def test_takes_the_columns_of_a_csv_file(data, file, content):
    inputs = data.prediction_inputs(None, file(content))
    assert inputs.dtype == torch.float32
    assert torch.equal(inputs, torch.tensor([[0.5, 1.0], [-2.0, 0.3]]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("x1,y\n1,2\n", "no column 'x2'"),
        ("1,2\n3,4\n", "no column 'x1'"),
        ("", "no column 'x1'"),
        ("x1,x2\n", "asked.csv"),
        ("x1,x2\n1,2\n3,four\n", "line 3, column 'x2': 'four' is not a number"),
        ("x1,x2\n1,\n", "line 2, column 'x2': '' is not a number"),
        ("x1,x2\n1\n", "line 2, column 'x2': None is not a number"),
        (b"x1,x2\n1,\xff\n", "asked.csv"),
    ],
    ids=["column missing", "no header", "empty", "no rows", "text", "blank", "short", "no text"],
)
def test_refuses_a_file_and_says_what_is_wrong_where(data, file, content, reason):
    path = file(content)
    with pytest.raises(ValueError, match=re.escape(reason)) as refusal:
        data.prediction_inputs(None, path)
    assert path in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_refuses_a_file_that_is_not_there_or_none(data, tmp_path, name):
    path = str(tmp_path / name)
    with pytest.raises(ValueError, match=re.escape(path)):
        data.prediction_inputs(None, path)


def test_columns_come_in_the_order_in_which_they_are_named(file):
    path = file("a,b,c\n1,2,3\n4,5,6\n")
    assert columns(path, ["c", "a"]) == [[3.0, 1.0], [6.0, 4.0]]


# What is answered -------------------------------------------------------------------------------


def test_rows_of_the_test_rows_have_the_true_values(data):
    inputs = data.prediction_inputs()
    rows = data.prediction_rows(inputs, inputs.sum(dim=1, keepdim=True))
    assert [list(row) for row in rows] == [["x1", "x2", "y1", "true1"]] * 50
    assert [row["true1"] for row in rows] == data.split("test")[1][:, 0].tolist()
    assert [[row["x1"], row["x2"]] for row in rows] == inputs.tolist()
    assert [row["y1"] for row in rows] == inputs.sum(dim=1).tolist()


def test_rows_of_what_a_user_asked_have_no_true_values(data):
    inputs = data.prediction_inputs([[1.0, 2.0], [3.0, 4.0]])
    rows = data.prediction_rows(inputs, torch.tensor([[5.0], [6.0]]))
    assert rows == [{"x1": 1.0, "x2": 2.0, "y1": 5.0}, {"x1": 3.0, "x2": 4.0, "y1": 6.0}]


def test_rows_have_a_column_for_each_output():
    data = TwoLayerNetData(in_features=3, out_features=2, rows=2, val_rows=2, test_rows=2)
    inputs = data.prediction_inputs()
    names = {tuple(row) for row in data.prediction_rows(inputs, torch.zeros(2, 2))}
    assert names == {("x1", "x2", "x3", "y1", "y2", "true1", "true2")}


def error_in(text):
    return float(re.search(r"root mean squared error over all rows: (\S+)", text).group(1))


@pytest.mark.parametrize(
    "data",
    [
        LinearRegressionData(test_rows=37),
        TwoLayerNetData(in_features=4, out_features=12, rows=3, val_rows=3, test_rows=25),
    ],
    ids=["one output", "twelve outputs"],
)
def test_the_text_has_the_error_over_all_rows_and_outputs(data):
    Y = data.split("test")[1]
    answers = torch.randn(Y.shape, generator=torch.Generator().manual_seed(0))
    inputs = data.prediction_inputs()
    text = data.prediction_text(data.prediction_rows(inputs, answers))
    expected = np.sqrt(np.mean((answers.numpy().astype(np.float64) - Y.numpy()) ** 2))
    assert error_in(text) == pytest.approx(expected, rel=5e-4)  # four digits are shown


def test_the_text_of_what_a_user_asked_is_a_table_with_all_rows_and_no_error(data):
    inputs = data.prediction_inputs([[1.0, 2.0], [3.0, -4.0]])
    rows = data.prediction_rows(inputs, torch.tensor([[5.0], [6.25]]))
    text = data.prediction_text(rows)
    assert [line.split() for line in text.splitlines()] == [
        ["x1", "x2", "y1"],
        ["1.0000", "2.0000", "5.0000"],
        ["3.0000", "-4.0000", "6.2500"],
    ]


def test_the_text_shows_ten_rows_and_says_how_many_there_are(data):
    inputs = data.prediction_inputs()
    text = data.prediction_text(data.prediction_rows(inputs, torch.zeros(50, 1)))
    lines = text.splitlines()
    assert lines[0].split() == ["x1", "x2", "y1", "true1"]
    assert [line.split()[2] for line in lines[1:11]] == ["0.0000"] * 10
    assert lines[11].startswith("10 of 50 rows, 4 of 4 columns")
    assert len(lines) == 13


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (LinearRegressionData, {"rows": 10**12}),
        (LinearRegressionData, {"test_rows": 10**11}),
        (TwoLayerNetData, {"val_rows": 10**9}),
        (TwoLayerNetData, {"teacher_features": 10**9}),
    ],
)
def test_refuses_sizes_that_do_not_fit_into_memory(kind, size, monkeypatch):
    monkeypatch.setattr("src.data.regression.total_memory", lambda: 2**34)
    with pytest.raises(ValueError, match="GB of memory; this machine has 17 GB"):
        kind(**size)
