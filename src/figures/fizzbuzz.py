"""Pictures of FizzBuzz: the game of 1 to 100 on a board, and those of any classifier."""

import functools
from typing import Any

import numpy as np
import torch

from src.figures import classification
from src.figures.picture import Picture, View
from src.figures.sheet import BLACK, GREY, WHITE, Array, Sheet, Tile

RIGHT = "#CFE5F3"  # a light blue, on which dark letters are read
WRONG = "#B34700"  # vermilion, dark enough for white letters
COLUMNS = 10
LEFT, TOP, WIDE, HIGH = 42, 86, 45, 41  # of the board, and of a cell; pixels


def pictures(model: Any) -> list[Picture]:
    """Return the board and the pictures of a classifier."""
    return [Board(), *classification.pictures(model)]


class Board(Picture):
    """The game's numbers, ten a line, each with the answer that was given."""

    name = "board"
    size = (500, 530)

    def paint(self, sheet: Sheet, view: View) -> str:
        """Draw a cell for each number, with the tens and ones beside the board."""
        rows = answers(view)
        for column in range(COLUMNS):
            sheet.write(LEFT + WIDE * (column + 0.5), TOP - 9, f"+{column + 1}", GREY)
        for index, row in enumerate(rows):
            line, column = divmod(index, COLUMNS)
            if column == 0:
                sheet.write(LEFT - 4, TOP + HIGH * (line + 0.5), str(index), GREY, align=1)
            here = LEFT + WIDE * column, TOP + HIGH * line
            sheet.paste(*here, cell(row["answer"], bool(row["right"])))
        for x, colour, word in ((LEFT, RIGHT, "right"), (LEFT + 80, WRONG, "wrong")):
            sheet.fill(x, 505, x + 14, 519, colour)
            sheet.write(x + 21, 512, word, align=0)
        return f"The game: {sum(row['right'] for row in rows)} of {len(rows)} right"

    def rows(self, view: View) -> str:
        """Say which numbers these are."""
        return "numbers that were not trained on"


def answers(view: View) -> list[dict[str, Any]]:
    """Return the game's numbers, each with what the model says and whether that is right."""
    inputs = view.data.prediction_inputs(None, None, None)  # the game
    classes = torch.from_numpy(view.ask(inputs).argmax(axis=1))
    rows: list[dict[str, Any]] = view.data.prediction_rows(inputs, classes)
    return rows


@functools.lru_cache(maxsize=500)
def cell(answer: str, right: bool) -> Array:
    """Return the pixels of a cell with an answer; the longest takes two lines."""
    tile = Tile(np.empty((HIGH, WIDE, 4), np.uint8))
    tile.fill(1, 1, WIDE - 1, HIGH - 1, RIGHT if right else WRONG)
    lines = ("fizz", "buzz") if answer == "fizzbuzz" else (answer,)
    for place, word in enumerate(lines):
        y = HIGH / 2 + 14 * (place - (len(lines) - 1) / 2)
        tile.write(WIDE / 2, y, word, BLACK if right else WHITE)
    return tile.pixels
