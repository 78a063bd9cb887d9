"""Pictures of FizzBuzz: a board with the game from 1 to 100, and those of any classifier."""

from typing import Any

import numpy as np
import torch
from matplotlib.colors import ListedColormap

from src.kindling.colors import BLACK, GRAY
from src.kindling.figures import classification
from src.kindling.figures.picture import Picture, View

RIGHT = "#CFE5F3"  # light blue, light enough for dark letters
WRONG = "#B34700"  # vermilion, dark enough for white letters
COLUMNS = 10


def pictures(model: Any) -> list[Picture]:
    """Return the board and the pictures of a classifier."""
    return [Board(), *classification.pictures(model)]


class Board(Picture):
    """The game's numbers, ten per row, each with the model's answer."""

    name = "board"
    description = (
        "the numbers from 1 on, ten per row, with the model's answers; wrong ones are dark"
    )
    size = (5.0, 5.2)

    def draw(self, axes: Any, view: View) -> None:
        """Color each cell by whether its answer is right, and label it with the answer."""
        rows = answers(view)
        lines = -(-len(rows) // COLUMNS)
        cells = np.full(lines * COLUMNS, np.nan)
        cells[: len(rows)] = [not row["right"] for row in rows]
        edges = np.arange(COLUMNS + 1) - 0.5, np.arange(lines + 1) - 0.5
        axes.pcolormesh(*edges, cells.reshape(lines, COLUMNS), cmap=ListedColormap([RIGHT, WRONG]),
                        vmin=0, vmax=1, edgecolors="white", linewidth=2)  # fmt: skip
        for i, row in enumerate(rows):
            answer = row["answer"].replace("fizzbuzz", "fizz\nbuzz")
            axes.text(i % COLUMNS, i // COLUMNS, answer, ha="center", va="center",
                      color=BLACK if row["right"] else "white")  # fmt: skip
        axes.set(ylim=(lines - 0.5, -0.5))
        axes.set_xticks(range(COLUMNS), [f"+{i + 1}" for i in range(COLUMNS)], color=GRAY)
        axes.set_yticks(range(lines), [str(COLUMNS * i) for i in range(lines)], color=GRAY)
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.spines[:].set_visible(False)
        axes.set_title("light: right   dark: wrong", loc="right", size=9, color=GRAY)

    def title(self, view: View) -> str:
        """Return the number of right answers."""
        rows = answers(view)
        return f"The game: {sum(row['right'] for row in rows)} of {len(rows)} right"

    def source(self, view: View) -> str:
        """Return the origin of the numbers."""
        return "numbers not trained on"


def answers(view: View) -> list[dict[str, Any]]:
    """Play the game; return per number the `answer` and whether it is `right`."""
    inputs = view.data.prediction_inputs()  # the game
    classes = torch.from_numpy(view.ask(inputs).argmax(axis=1))
    rows: list[dict[str, Any]] = view.data.prediction_rows(inputs, classes)
    return rows
