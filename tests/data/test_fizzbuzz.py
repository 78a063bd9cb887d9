"""FizzBuzz data against the plain rule and Python's own binary digits."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

from src.data.fizzbuzz import FizzBuzzData, decode, encode, fizzbuzz, word
from tests.warm import PYTHON

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = range(2**16)


def rule(number):
    """The game as anyone writes it."""
    if number % 15 == 0:
        return "fizzbuzz"
    if number % 5 == 0:
        return "buzz"
    if number % 3 == 0:
        return "fizz"
    return str(number)


# Digits and answers -----------------------------------------------------------------------------


def test_digits_are_those_of_bin_least_significant_first_for_every_number():
    digits = encode(torch.tensor(NUMBERS), 16)
    assert digits.dtype == torch.float32
    written = [bin(number)[2:].zfill(16) for number in NUMBERS]
    assert [[int(digit) for digit in reversed(text)] for text in written] == digits.int().tolist()


def test_encode_is_that_of_the_tutorial_for_every_number():
    expected = [[i >> d & 1 for d in range(16)] for i in NUMBERS]
    assert torch.equal(encode(torch.tensor(NUMBERS), 16), torch.tensor(expected).float())


def test_decode_is_the_inverse_of_encode_for_every_number():
    assert decode(encode(torch.tensor(NUMBERS), 16)).tolist() == list(NUMBERS)


@pytest.mark.parametrize("num_digits", [1, 7, 10, 24])
def test_encode_and_decode_at_the_edges(num_digits):
    numbers = torch.tensor([0, 1, 2**num_digits - 1])
    digits = encode(numbers, num_digits)
    assert digits.shape == (3, num_digits)
    assert digits[2].eq(1).all()
    assert torch.equal(decode(digits), numbers)


def test_classes_and_words_are_those_of_the_plain_rule_for_every_number():
    numbers = range(1, 2**16)
    classes = fizzbuzz(torch.tensor(numbers)).tolist()
    assert [word(number, a) for number, a in zip(numbers, classes, strict=True)] == [
        rule(number) for number in numbers
    ]


def test_classes_are_numbered_as_in_the_tutorial():
    assert fizzbuzz(torch.tensor([1, 3, 5, 15])).tolist() == [0, 1, 2, 3]
    assert [word(7, answer) for answer in range(4)] == ["7", "fizz", "buzz", "fizzbuzz"]


# Splits -----------------------------------------------------------------------------------------


def numbers_of(data, stage):
    digits, classes = data.split(stage)
    assert torch.equal(classes, fizzbuzz(decode(digits)))
    return decode(digits).tolist()


@pytest.mark.parametrize("num_digits", range(7, 13))
@pytest.mark.parametrize("val_fraction", [0.1, 0.5])
def test_plays_1_to_100_and_splits_the_numbers_above(num_digits, val_fraction):
    data = FizzBuzzData(num_digits=num_digits, val_fraction=val_fraction)
    train, val, test = (numbers_of(data, stage) for stage in ("train", "val", "test"))
    above = list(range(101, 2**num_digits))
    assert test == list(range(1, 101))
    assert sorted(train + val) == above
    assert len(val) == round(val_fraction * len(above))
    assert data.in_features == num_digits == data.split("test")[0].shape[1]


def test_holds_nothing_out_when_asked_to():
    data = FizzBuzzData(val_fraction=0.0)
    assert data.split("val") is None
    assert list(data.val_dataloader()) == []
    assert numbers_of(data, "train") == list(range(101, 1024))


def test_the_held_out_numbers_follow_from_the_seed():
    held_out = [tuple(numbers_of(FizzBuzzData(seed=seed), "val")) for seed in (0, 0, 1, 2**31)]
    assert held_out[0] == held_out[1]
    assert len(set(held_out)) == 3


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.9])
def test_train_fraction_keeps_a_share_of_the_training_numbers_and_all_others(fraction):
    whole, part = FizzBuzzData(), FizzBuzzData(train_fraction=fraction)
    train, kept = numbers_of(whole, "train"), numbers_of(part, "train")
    assert len(kept) == round(fraction * len(train))
    assert set(kept) < set(train)
    assert [numbers_of(part, stage) for stage in ("val", "test")] == [
        numbers_of(whole, stage) for stage in ("val", "test")
    ]


def training_order(**options):
    data = FizzBuzzData(**options)
    return [n for digits, _ in data.train_dataloader() for n in decode(digits).tolist()]


def test_unshuffled_training_numbers_ascend():
    numbers = training_order(shuffle=False)
    assert numbers == sorted(numbers)
    assert len(numbers) == 831  # 923 less the tenth that is held out


def test_shuffled_training_numbers_are_the_same_in_another_order():
    shuffled, plain = (training_order(shuffle=shuffle) for shuffle in (True, False))
    assert shuffled != plain
    assert sorted(shuffled) == plain


def test_training_orders_differ_between_seeds():
    orders = {tuple(training_order(seed=seed, val_fraction=0.0)) for seed in range(5)}
    assert len(orders) == 5


@pytest.mark.parametrize(
    ("val_fraction", "train_fraction"), [(0.99, 1.0), (0.1, 0.001), (0.95, 0.1)]
)
def test_fractions_that_leave_nothing_are_refused(val_fraction, train_fraction):
    with pytest.raises(ValueError, match=f"{val_fraction}.*{train_fraction}"):
        FizzBuzzData(num_digits=7, val_fraction=val_fraction, train_fraction=train_fraction)


# What a user asks ---------------------------------------------------------------------------------


def asked(numbers=None, file=None):
    return decode(FizzBuzzData().prediction_inputs(numbers, file)).tolist()


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (None, range(1, 101)),
        (15, [15]),
        (0, [0]),
        (1023, [1023]),
        ([15, 300], [15, 300]),
        ([300, 15, 15], [300, 15, 15]),
        (15.0, [15]),
        ("1..1000", range(1, 1001)),
        (" 7 .. 9 ", [7, 8, 9]),
        ("5..5", [5]),
        (["1..3", 7], [1, 2, 3, 7]),
        (["1..3", [9, "5..6"]], [1, 2, 3, 9, 5, 6]),
    ],
)
def test_takes_numbers_lists_and_ranges(numbers, expected):
    assert asked(numbers) == list(expected)


@pytest.mark.parametrize(
    "content",
    ["number\n15\n300\n", "\ufeffnumber\n15\n300\n", "name,number\r\na,15\r\nb,300.0\r\n"],
    ids=["plain", "with a byte order mark", "one column of two"],
)
def test_takes_the_column_number_of_a_csv_file(tmp_path, content):
    (tmp_path / "asked.csv").write_bytes(content.encode())
    assert asked(file=str(tmp_path / "asked.csv")) == [15, 300]


REFUSED = {
    "too large": (1024, "1024 .*10 binary digits.*1023"),
    "a range to too large": ("1000..1024", "1024.*1023"),
    "one of a list too large": ([1, 5000], "5000.*1023"),
    "negative": (-1, "not a non-negative integer"),
    "negative in a list": ([3, -5], "not a non-negative integer"),
    "a fraction": (1.5, "not a non-negative integer"),
    "text": ("abc", "'abc' is not a number"),
    "text in a list": ([1, "abc"], "'abc' is not a number"),
    "a range without an end": ("1..", r"'1\.\.' is not a number"),
    "a range of text": ("a..b", r"'a\.\.b' is not a number"),
    "a negative range": ("-3..3", r"'-3\.\.3' is not a number"),
    "a range backwards": ("5..3", "empty"),
    "an empty list": ([], "empty"),
    "true": (True, "True is not a number"),
    "infinity": (float("inf"), "inf is not a number"),
    "no number": (float("nan"), "nan is not a number"),
    "a dict": ({"a": 1}, "is not a number"),
    "null in a list": ([None], "None is not a number"),
    "hundreds of digits": (10**400, "1023"),
    "a range to hundreds of digits": (f"1..{10**400}", "1023"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refuses_and_says_why(kind):
    numbers, reason = REFUSED[kind]
    with pytest.raises(ValueError, match=reason) as refusal:
        FizzBuzzData().prediction_inputs(numbers)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("n\n15\n", "'number'"),
        ("", "'number'"),
        ("number\n", "no rows"),
        ("number\n1\nabc\n", "line 3, column 'number': 'abc' is not a number"),
        ("number\n1024\n", "1024.*1023"),
        ("number\n-4\n", "not a non-negative integer"),
        ("number\n1.5\n", "not a non-negative integer"),
        ("number\nnan\n", "not a (number|non-negative integer)"),
        ("number\ninf\n", "inf.*(1023|not a number)"),
    ],
)
def test_refuses_a_csv_file_and_says_why(tmp_path, content, reason):
    (tmp_path / "asked.csv").write_text(content)
    with pytest.raises(ValueError, match=reason):
        asked(file=str(tmp_path / "asked.csv"))


@pytest.mark.skipif(os.name != "posix", reason="asks POSIX for the memory that was used")
def test_refuses_a_huge_range_at_once_and_without_memory(tmp_path):
    code = """
import resource, sys, time
from src.data.fizzbuzz import FizzBuzzData
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
unit = 1 if sys.platform == "darwin" else 1024
data = FizzBuzzData()
for numbers in ("1..99999999999", ["1..99999999999"]):
    start, before = time.process_time(), peak()
    try:
        data.prediction_inputs(numbers)
    except ValueError as error:
        print(error, time.process_time() - start, (peak() - before) * unit, sep="|")
"""
    (tmp_path / "huge.py").write_text(code)
    result = subprocess.run(
        [*PYTHON, "-m", "huge"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    for message, seconds, memory in (line.split("|") for line in lines):
        assert "99999999999" in message
        assert "1023" in message
        assert float(seconds) < 0.5
        assert int(memory) < 50e6


# What a user is answered --------------------------------------------------------------------------


def game(numbers, wrong=None):
    """Data, and the rows of an answer that is right but for the numbers in `wrong`."""
    data = FizzBuzzData()
    answers = fizzbuzz(torch.tensor(numbers))
    for number, answer in (wrong or {}).items():
        answers[numbers.index(number)] = answer
    return data, data.prediction_rows(data.prediction_inputs(numbers), answers)


def test_rows_say_what_was_asked_answered_and_true():
    _, rows = game([7, 9, 10, 30, 31], wrong={9: 3, 31: 1})
    assert rows == [
        {"number": 7, "answer": "7", "true": "7", "right": True},
        {"number": 9, "answer": "fizzbuzz", "true": "fizz", "right": False},
        {"number": 10, "answer": "buzz", "true": "buzz", "right": True},
        {"number": 30, "answer": "fizzbuzz", "true": "fizzbuzz", "right": True},
        {"number": 31, "answer": "fizz", "true": "31", "right": False},
    ]


def test_the_text_of_a_perfect_game_is_the_game_and_a_full_count():
    data, rows = game(list(range(1, 101)))
    text = data.prediction_text(rows)
    assert text.split()[:100] == [rule(number) for number in range(1, 101)]
    assert text.splitlines()[-1] == "100 of 100 right"
    assert "[" not in text
    assert len(text.splitlines()) == 11  # ten answers a line, and the count


def test_the_text_marks_and_names_the_wrong_answers_and_counts_the_right_ones():
    data, rows = game(list(range(1, 21)), wrong={4: 1, 15: 0})
    text = data.prediction_text(rows)
    assert re.findall(r"\[(\w+)\]", text.split("wrong")[0]) == ["fizz", "15"]
    assert "4 is 4, 15 is fizzbuzz" in text
    assert text.splitlines()[-1] == "18 of 20 right"


def test_the_text_counts_what_it_does_not_name_of_many_wrong_answers():
    numbers = list(range(1, 101))
    data, rows = game(numbers, wrong={n: 3 for n in numbers if n % 15})
    text = data.prediction_text(rows)
    assert text.splitlines()[-1] == "6 of 100 right"
    named = len(re.findall(r"\d+ is \w+", text))
    more = int(re.search(r"and (\d+) more", text).group(1))
    assert named + more == 94


def test_the_worked_example_of_the_docstring_is_true():
    assert encode(torch.tensor([105, 53]), 10).long().tolist() == [
        [1, 0, 0, 1, 0, 1, 1, 0, 0, 0],
        [1, 0, 1, 0, 1, 1, 0, 0, 0, 0],
    ]
    assert fizzbuzz(torch.tensor([105, 53])).tolist() == [3, 0]
