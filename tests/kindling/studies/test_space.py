"""Hydra's override words as Optuna's distributions."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from src.kindling.errors import InputError
from src.kindling.studies import space

READ = {
    "interval(1e-3, 1)": FloatDistribution(0.001, 1.0),
    "tag(log, interval(1e-3, 1e-1))": FloatDistribution(0.001, 0.1, log=True),
    "int(interval(1, 10))": IntDistribution(1, 10),
    "tag(log, int(interval(1, 100)))": IntDistribution(1, 100, log=True),
    "range(1, 10, 3)": IntDistribution(1, 7, step=3),
    "range(0.1, 0.5, 0.1)": FloatDistribution(0.1, 0.4, step=0.1),
    "choice(64, true, relu)": CategoricalDistribution([64, True, "relu"]),
    "choice([1,2], 'a b')": CategoricalDistribution(["[1,2]", "a\\ b"]),
    "null,0.1": CategoricalDistribution(["null", 0.1]),
    "0.1,0.2": CategoricalDistribution([0.1, 0.2]),
}
REFUSED = {
    "interval(1, 0)": "an interval goes from a number to a larger one",
    "interval(1, inf)": "an interval goes from a number to a larger one",
    "interval(1)": "not readable as key=value",
    "choice(null, 1)": "choice(...) takes no null; write the values without it: KEY=null,1",
    "choice()": "not readable as key=value",
    "range(3, 1)": "the range holds no value",
    "tag(log, interval(0, 1))": "a logarithmic scale needs values above 0",
    "tag(log, range(2, 100, 3))": "a range with steps has no scale",
    "tag(log, choice(1, 2))": "a choice has no scale",
    "tag(int, interval(1, 3))": "tag int is not known",
}


@pytest.mark.parametrize("word", READ)
def test_a_search_word_becomes_a_distribution(word: str) -> None:
    plain, [dimension] = space.split(["seed=3", f"optimizer.lr={word}"])
    assert plain == ["seed=3"]
    assert dimension.key == "optimizer.lr"
    assert dimension.word == word
    assert dimension.distribution == READ[word]


@pytest.mark.parametrize("word", REFUSED)
def test_a_wrong_search_word_is_one_line_that_begins_with_the_key(word: str) -> None:
    with pytest.raises(InputError) as raised:
        space.split([f"optimizer.lr={word}"])
    assert str(raised.value).startswith("optimizer.lr=")
    assert REFUSED[word] in str(raised.value)


def test_glob_chooses_among_the_options_of_a_group() -> None:
    _, [dimension] = space.split(["optimizer=glob(ad*, exclude=adagrad)"])
    assert dimension.is_group
    assert dimension.samples == ["adam", "adamw"]


@pytest.mark.parametrize(
    ("word", "inside", "outside"),
    [
        ("interval(0, 1)", [0, 0.5, 1.0], [-0.1, 1.1, "0.5", None, True]),
        ("range(1, 10, 3)", [1, 4, 7], [2, 4.5, 10]),
        ("range(0.1, 0.5, 0.1)", [0.1, 0.3], [0.15, 0.5]),
        ("choice(2, true, relu)", [2, True, "relu"], [2.0, "2", 1, False, "tanh"]),
    ],
)
def test_contains_knows_what_can_be_drawn(word: str, inside: list, outside: list) -> None:
    _, [dimension] = space.split([f"key={word}"])
    assert [value for value in inside if not dimension.contains(value)] == []
    assert [value for value in outside if dimension.contains(value)] == []


def test_drawn_values_are_overrides_again() -> None:
    assert [space.text(v) for v in (None, True, 1e-5, 3, "[1,2]")] == [
        "null", "true", "1e-05", "3", "[1,2]",
    ]  # fmt: skip
    assert space.parsed("key", "[1,2]") == [1, 2]
    assert space.parsed("key", "'a b'") == "a b"
    assert space.parsed("key", 0.5) == 0.5


def test_a_grid_has_all_values_of_ranges_and_choices_and_refuses_an_interval() -> None:
    _, dimensions = space.split(["a=range(1,10,3)", "b=range(0.5,2,0.5)", "c=choice(x,y)"])
    assert [d.values for d in dimensions] == [[1, 4, 7], [0.5, 1.0, 1.5], ["x", "y"]]
    _, [interval] = space.split(["a=interval(0,1)"])
    with pytest.raises(InputError, match=r"a=interval\(0,1\): a grid needs"):
        _ = interval.values
