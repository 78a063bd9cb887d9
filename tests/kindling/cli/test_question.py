"""A question's keys need no `+`: they reach the command, whose run says which there are."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from src.kindling.cli import arguments


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("prompt=once upon", "once upon"),
        ("prompt=what's up?", "what's up?"),
        (r"prompt=a\'b\\", r"a\'b" + "\\\\"),
        ("prompt=a: {b", "a: {b"),
        ("length=200", 200),
        ("numbers=[15,300]", [15, 300]),
        ("features=[[1,0],[0,1]]", [[1, 0], [0, 1]]),
    ],
)
def test_a_key_that_the_yaml_lacks_is_added_with_its_value(typed: str, value: object) -> None:
    [added] = arguments.added("predict", [typed])
    override = OverridesParser.create().parse_override(added)
    assert override.is_add()
    assert override.value() == value


@pytest.mark.parametrize(
    "typed", ["run=latest", "output=a.csv", "hydra.verbose=true", "+own=1", "model=fizzbuzz"]
)
def test_other_words_stay_as_they_are(typed: str) -> None:
    assert arguments.added("predict", [typed]) == [typed]
