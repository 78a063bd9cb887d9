"""Tables for people: aligned, wrapped, and without control characters or markup."""

import math

import pytest

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
