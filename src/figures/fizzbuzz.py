"""Pictures of FizzBuzz: the game of 1 to 100 on a board, and those of any classifier."""

from typing import Any

import torch
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from src.kindling.figures import classification
from src.kindling.figures.picture import BLACK, GREY, Picture, TextPatch, View, panel, squares

RIGHT = "#CFE5F3"  # a light blue, on which dark letters are read
WRONG = "#B34700"  # vermilion, dark enough for white letters
COLUMNS = 10


def pictures(model: Any) -> list[Picture]:
    """Return the board and the pictures of a classifier."""
    return [Board(), *classification.pictures(model)]


class Board(Picture):
    """The game's numbers, ten a line, each with the answer that was given."""

    name = "board"
    size = (5.0, 5.3)

    def frame(self, figure: Figure, view: View) -> None:
        """Draw every cell as right, with the tens and ones beside the board."""
        self._inputs = view.data.prediction_inputs()  # the game
        count = len(self._inputs)
        lines = -(-count // COLUMNS)
        axes = panel(figure, left=0.4, bottom=0.36, right=0.08, top=0.86)
        axes.set(xlim=(-0.5, COLUMNS - 0.5), ylim=(lines - 0.5, -0.5))
        axes.set_axis_off()
        self._letters = TextPatch(axes, 10.5)
        ones = [(i, -0.72, f"+{i + 1}") for i in range(COLUMNS)]
        tens = [(-0.78, i, str(COLUMNS * i)) for i in range(lines)]
        self._letters.patch([*ones, *tens], GREY).set_clip_on(False)
        squares(axes, [place(i) for i in range(count)], RIGHT)
        for x, colour, word in ((0.08, RIGHT, "right"), (0.24, WRONG, "wrong")):
            figure.text(x, 0.03, "■", color=colour, fontsize=14, va="center")
            figure.text(x + 0.045, 0.034, word, va="center")

    def content(self, view: View) -> list[Artist]:
        """Draw the wrong cells over, and write all answers."""
        rows = list(enumerate(self._answers(view)))
        right = [part for i, row in rows if row["right"] for part in written(i, row["answer"])]
        wrong = [part for i, row in rows if not row["right"] for part in written(i, row["answer"])]
        cells = [place(i) for i, row in rows if not row["right"]]
        return [
            squares(self.axes[0], cells, WRONG),
            self._letters.patch(right, BLACK),
            self._letters.patch(wrong, "white"),
        ]

    def title(self, view: View) -> str:
        """Say how many answers are right."""
        rows = self._answers(view)
        return f"The game: {sum(row['right'] for row in rows)} of {len(rows)} right"

    def rows(self, view: View) -> str:
        """Say which numbers these are."""
        return "numbers that were not trained on"

    def _answers(self, view: View) -> list[dict[str, Any]]:
        classes = torch.from_numpy(view.ask(self._inputs).argmax(axis=1))
        rows: list[dict[str, Any]] = view.data.prediction_rows(self._inputs, classes)
        return rows


def place(index: int) -> tuple[float, float]:
    """Return column and line of a cell."""
    return index % COLUMNS, index // COLUMNS


def written(index: int, answer: str) -> list[tuple[float, float, str]]:
    """Return where in a cell an answer is written; the longest takes two lines."""
    x, y = place(index)
    if answer != "fizzbuzz":
        return [(x, y, answer)]
    return [(x, y - 0.17, "fizz"), (x, y + 0.17, "buzz")]
