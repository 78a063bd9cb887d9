"""What is drawn lies where the numbers say."""

import numpy as np
import pytest

from src.figures.sheet import (
    BLUE,
    VERMILION,
    WHITE,
    Panel,
    Sheet,
    fitted,
    rgba,
    shades,
    ticks,
    width,
)


def coloured(sheet: Sheet) -> np.ndarray:
    """Which pixels are not white, [height, width]."""
    return (sheet.pixels[:, :, :3] != 255).any(axis=2)


def box(marks: np.ndarray) -> tuple[int, int, int, int]:
    """The left, top, right and bottom of what is marked."""
    rows, columns = np.flatnonzero(marks.any(axis=1)), np.flatnonzero(marks.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_a_bar_a_line_and_a_dot_lie_where_their_values_are() -> None:
    edges = (50, 20, 250, 120)
    for draw, expected in (
        (lambda panel: panel.bars(1, 2, 0, 5, BLUE), (70, 70, 90, 120)),
        (lambda panel: panel.dots(5, 5, BLUE, radius=4), (146, 66, 154, 74)),
        (lambda panel: panel.line([0, 10], 5, BLUE, width=2), (50, 69, 250, 71)),
        (lambda panel: panel.strokes([2, 4], 0, [2, 4], 10, BLUE, width=2), (89, 20, 131, 120)),
    ):
        sheet = Sheet(300, 150)
        draw(Panel(sheet, edges, (0, 10), (0, 10)))
        assert np.abs(np.subtract(box(coloured(sheet)), expected)).max() <= 1


def test_what_lies_outside_a_panel_is_not_drawn() -> None:
    sheet = Sheet(300, 150)
    panel = Panel(sheet, (50, 20, 250, 120), (0, 10), (0, 10))
    panel.line([-100, 100], [-100, 100], BLUE, width=5)
    panel.dots([-3, 13], [5, 5], BLUE, radius=4)
    marks = coloured(sheet)
    assert marks[20:120, 50:250].any()
    marks[20:120, 50:250] = False
    assert not marks.any()


def test_a_dashed_line_has_gaps_of_its_widths() -> None:
    sheet = Sheet(200, 20)
    sheet.lines(np.array([(0, 10), (200, 10)]), BLUE, width=4, dashes=(5, 5))
    row = coloured(sheet)[10]
    assert row.mean() == pytest.approx(0.5, abs=0.05)
    assert np.count_nonzero(np.diff(row)) == pytest.approx(10, abs=1)


def test_an_image_has_its_first_row_above() -> None:
    sheet = Sheet(40, 40)
    colours = np.stack([rgba(BLUE), rgba(VERMILION), rgba(WHITE)])[:, None]  # [3, 1, 4]
    Panel(sheet, (5, 5, 35, 35), (0, 1), (0, 1)).image(colours)
    for row, colour in ((5, BLUE), (14, BLUE), (15, VERMILION), (24, VERMILION), (25, WHITE)):
        assert (sheet.pixels[row, 5:35] == rgba(colour)).all()
    assert (sheet.pixels[5:25, :5] == 255).all()


@pytest.mark.parametrize("align", [0, 0.5, 1])
@pytest.mark.parametrize("upwards", [False, True])
def test_words_stand_where_they_are_told_to(align: float, upwards: bool) -> None:
    sheet = Sheet(200, 200)
    sheet.write(100, 100, "HOH", align=align, upwards=upwards)
    left, top, right, bottom = box(coloured(sheet))
    if upwards:  # read from below: turned so that it is read from the left
        left, top, right, bottom = 200 - bottom, left, 200 - top, right
    assert right - left == pytest.approx(width("HOH"), abs=2)
    assert left == pytest.approx(100 - align * width("HOH"), abs=2)
    assert (top + bottom) / 2 == pytest.approx(100, abs=1)


@pytest.mark.parametrize("place", [(-5, 10), (195, 10), (100, -2), (100, 203), (500, 500)])
def test_words_may_be_cut_by_the_edge(place: tuple[int, int]) -> None:
    sheet = Sheet(200, 200)
    sheet.write(*place, "wide words")
    assert coloured(sheet).any() == (place != (500, 500))
    assert (sheet.pixels[:, :, 3] == 255).all()


def test_letters_are_of_their_colour_and_empty_or_foreign_words_harm_nothing() -> None:
    sheet = Sheet(200, 40)
    sheet.write(100, 20, "", BLUE)
    sheet.write(100, 20, " ", BLUE)
    assert not coloured(sheet).any()
    sheet.write(50, 20, "H", VERMILION, size=20)
    assert (sheet.pixels == rgba(VERMILION)).all(axis=2).any()
    marks = coloured(sheet)
    sheet.write(150, 20, "数", VERMILION, size=20)  # which the font does not have
    assert (coloured(sheet) >= marks).all()


def test_labels_that_would_run_into_each_other_are_left_out() -> None:
    def labelled(words: list[str]) -> int:
        """How many dark blocks stand below an axis with these labels."""
        sheet = Sheet(300, 150)
        panel = Panel(sheet, (50, 20, 290, 100), (0, 10), (0, 10))
        panel.rule({float(i): word for i, word in enumerate(words)}, {})
        columns = coloured(sheet)[108:125].any(axis=0)
        assert not columns[-1]
        gaps = np.flatnonzero(np.diff(np.flatnonzero(columns)) > 4)
        return len(gaps) + 1

    assert labelled(["H"] * 11) == 11
    assert labelled(["HHHH"] * 11) == 5  # each second, and the last would not fit
    assert labelled(["H" * 9] * 11) == 2


def test_words_are_cut_to_the_room_there_is() -> None:
    assert fitted("category", 1000) == "category"
    assert fitted("category10", 70) != fitted("category11", 70)  # they keep their ends
    for words in ("category10", "i" * 100, "ab"):
        for room in (20, 40, 70):
            assert width(fitted(words, room)) <= room


def test_shades_go_from_the_first_colour_to_the_last() -> None:
    colours = shades(np.array([-1, 0, 0.5, 1, 2]), ("#000000", "#0A0000", "#FF0000"), levels=101)
    assert colours[:, 0].tolist() == [0, 0, 10, 255, 255]


def test_ticks_are_round_and_within_the_ends() -> None:
    assert list(ticks(0, 1).values()) == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert list(ticks(-4.2, 7.9)) == [-4, -2, 0, 2, 4, 6]
    assert list(ticks(0, 1, 2).values()) == ["0", "0.5", "1"]
    assert list(ticks(2e-7, 9e-7, 4).values()) == ["2e-07", "4e-07", "6e-07", "8e-07"]
    assert list(ticks(0, 2, least=1)) == [0, 1, 2]
    assert list(ticks(0, 0)) == [0]  # of a layer with one feature
