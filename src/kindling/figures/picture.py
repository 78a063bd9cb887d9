"""What all pictures share: their look, and that what stays in a picture is drawn once.

Most of a picture's time goes into its frame: axes, ticks, labels. It is kept as pixels, and only
the content is drawn anew, in a fifth of the time.
"""

import functools
import math
import struct
import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

# Okabe and Ito's palette, which colour-blind readers tell apart: doi.org/10.1038/nmeth.1618
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#222222", "#767676"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
DASHES = ("-", "--", "-.", ":")  # a line is known by its dashes too, not by its colour alone

DPI = 100
DIGIT = 0.636  # the width of each digit of the font, of its size
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # matplotlib brings it along
    "font.size": 10.5,
    "text.usetex": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": BLACK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "xtick.color": BLACK,
    "ytick.color": BLACK,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass
class View:
    """What a picture may look at.

    Args:
        model: the LightningModule.
        data: its LightningDataModule.
        stage: where the rows come from: "validation", or "training" where nothing is held out.
        targets: what is true of the rows: values [N, C] or classes [N].
        outputs: what the model says of them: values or logits [N, C].
        step: optimizer steps so far.
        ask: maps other inputs to outputs.
    """

    model: Any
    data: Any
    stage: str
    targets: Array
    outputs: Array
    step: int
    ask: Callable[[Tensor], Array]


@dataclass
class Drawing:
    """A picture as it is kept: PNG, width and height in pixels, and what it shows in words."""

    png: bytes
    size: tuple[int, int]
    description: str


class Picture:
    """A picture of one thing, drawn again as the model learns.

    A subclass sets `name` and `size`, and defines `frame` and `content`; `scale` where the axes
    follow what is shown; `watch`, `notes` and `take_up` where it shows a way and not a moment.
    """

    name: str
    size = (4.8, 4.2)  # inches; TensorBoard shows less than 4 of them

    def __init__(self) -> None:
        self._canvas: Any = None
        self._background: Any = None
        self._scale: Hashable = None

    # What a picture defines -------------------------------------------------------------------

    def scale(self, view: View) -> Hashable:
        """Return what the frame depends on; the frame is drawn anew when it has changed."""
        return None

    def frame(self, figure: Figure, view: View) -> None:
        """Draw what stays: axes with limits, labels."""
        raise NotImplementedError(f"{type(self).__name__} defines no frame")

    def content(self, view: View) -> list[Artist]:
        """Return what changes."""
        raise NotImplementedError(f"{type(self).__name__} defines no content")

    def title(self, view: View) -> str:
        """Return the headline, which says what there is to see, for who cannot see it as well."""
        raise NotImplementedError(f"{type(self).__name__} defines no title")

    def watch(self, model: Any) -> None:
        """Take a note after an epoch of training."""

    def watches(self) -> bool:
        """Say whether notes are taken: then no epoch may go by without."""
        return type(self).watch is not Picture.watch

    def notes(self) -> Any:
        """Return the notes, as plain data for a checkpoint."""
        return None

    def take_up(self, notes: Any, model: Any) -> None:
        """Go on with the notes of the run that is resumed; None at the start of a run."""

    # What the callback calls ------------------------------------------------------------------

    def draw(self, view: View) -> Drawing:
        """Return the picture of this moment."""
        with matplotlib.rc_context(STYLE):  # whatever a user's own matplotlibrc says
            scale = self.scale(view)
            if self._canvas is None or scale != self._scale:
                self._draw_frame(view, scale)
            return self._draw_content(view)

    def _draw_frame(self, view: View, scale: Hashable) -> None:
        figure = Figure(figsize=self.size, dpi=DPI)
        self._canvas, self._scale = FigureCanvasAgg(figure), scale
        self.frame(figure, view)
        for axes in figure.axes:
            axes.set_autoscale_on(False)  # the content must fit the frame, not change it
        inches = figure.get_size_inches()
        (x, y), (right, below) = (0.12, 0.12) / inches, 1 - (0.12, 0.36) / inches
        figure.text(x, below, self.rows(view), va="top", color=GREY)
        self._canvas.draw()
        self._background = self._canvas.copy_from_bbox(figure.bbox)
        self._title = figure.text(x, 1 - y, "", va="top", size=11.5, weight="bold")
        self._step = figure.text(right, below, "", va="top", ha="right", color=GREY)

    def _draw_content(self, view: View) -> Drawing:
        self._canvas.restore_region(self._background)
        renderer = self._canvas.get_renderer()
        for artist in self.content(view):
            artist.draw(renderer)
            artist.remove()
        title = self.title(view)
        for text, words in ((self._title, title), (self._step, f"step {view.step:,}")):
            text.set_text(words)
            text.draw(renderer)
        pixels = np.asarray(self._canvas.buffer_rgba())[:, :, :3]  # [height, width, 3]
        described = f"{title} (step {view.step:,})"
        return Drawing(png(pixels, described), (pixels.shape[1], pixels.shape[0]), described)

    def rows(self, view: View) -> str:
        """Return what the picture is of, in words that stay."""
        return f"{len(view.targets):,} rows of {view.stage}"

    @property
    def axes(self) -> list[Axes]:
        """The axes of the frame."""
        found: list[Axes] = self._canvas.figure.axes
        return found


class TextPatch:
    """Many short texts drawn as one path, which takes a tenth of the time that texts take.

    Args:
        axes: where they are written; their limits stay.
        points: size of the letters.
    """

    def __init__(self, axes: Axes, points: float) -> None:
        self.axes = axes
        self._unit = pixel(axes) * points * DPI / 72  # data units for the size of a letter
        self._outlines: dict[tuple[str, float], Path] = {}

    def patch(
        self, words: Sequence[tuple[float, float, str]], colour: str, align: float = 0.5
    ) -> Artist:
        """Write words at x and y: to the right of x (align 0), around it (0.5), to its left (1)."""
        if not words:
            return self.axes.add_artist(PathPatch(Path([(0, 0)])))
        points = [self._outline(word, align).vertices + np.array((x, y)) for x, y, word in words]
        codes = [self._outline(word, align).codes for _, _, word in words]
        whole = Path(np.concatenate(points), np.concatenate(codes))
        # Not add_patch, which looks at every curve for new limits of the axes.
        return self.axes.add_artist(PathPatch(whole, facecolor=colour, linewidth=0))

    def _outline(self, word: str, align: float) -> Any:
        """Return a word's outline; a number's is put together from its digits."""
        if (word, align) not in self._outlines:
            parts = list(word) if word.isdecimal() else [word]
            paths = [_text_path(part) for part in parts]
            points = [path.vertices + np.array((i * DIGIT, 0)) for i, path in enumerate(paths)]
            whole = np.concatenate(points)
            low, high = whole[:, 0].min(), whole[:, 0].max()
            middle = (low + align * (high - low), 0.36)  # half of a capital's height
            codes = np.concatenate([path.codes for path in paths])
            self._outlines[word, align] = Path((whole - middle) * self._unit, codes)
        return self._outlines[word, align]


@functools.cache
def _text_path(word: str) -> Any:
    return TextPath((0, 0), word, size=1)


def panel(
    figure: Figure, left: float = 0.7, bottom: float = 0.6, right: float = 0.15, top: float = 0.72
) -> Axes:
    """Add axes, given the inches between the figure's edges and theirs."""
    width, height = figure.get_size_inches()
    corner = left / width, bottom / height
    return figure.add_axes((*corner, 1 - corner[0] - right / width, 1 - corner[1] - top / height))


def pixel(axes: Axes) -> Array:
    """Return a pixel in data units of x and y; negative where an axis counts downwards."""
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    size: Array = np.array((x1 - x0, y1 - y0)) / axes.bbox.size
    return size


Ticks = dict[float, str]  # place -> label


def ticks(low: float, high: float, most: int = 8) -> Ticks:
    """Return round places between two ends, with their labels."""
    places = MaxNLocator(most, steps=[1, 2, 5, 10]).tick_values(low, high)
    slack = 1e-9 * (high - low)
    return {float(v): f"{v:.6g}" for v in places if low - slack <= v <= high + slack}


def rule(axes: Axes, x: Ticks, y: Ticks, xlabel: str = "", ylabel: str = "") -> None:
    """Draw the left and the lower edge with ticks, in half the time of matplotlib's own axes.

    The limits must have been set.
    """
    axes.set_axis_off()
    (x0, x1), (y0, y1), (dx, dy) = axes.get_xlim(), axes.get_ylim(), pixel(axes)
    lines: list[Any] = [((x0, y1), (x0, y0), (x1, y0))]
    lines += [((place, y0), (place, y0 - 4 * dy)) for place in x]
    lines += [((x0, place), (x0 - 4 * dx, place)) for place in y]
    points = [point for line in lines for point in line]
    codes = [code for line in lines for code in (Path.MOVETO, *[Path.LINETO] * (len(line) - 1))]
    edges = axes.add_artist(PathPatch(Path(points, codes), fill=False, edgecolor=GREY, lw=0.8))
    letters = TextPatch(axes, 10)
    x, y = ({place: label for place, label in t.items() if label} for t in (x, y))
    below = [(place, y0 - 14 * dy, label) for place, label in x.items()]
    beside = [(x0 - 7 * dx, place, label) for place, label in y.items()]
    for artist in (edges, letters.patch(below, BLACK), letters.patch(beside, BLACK, align=1)):
        artist.set_clip_on(False)
    widest = 8 * max((len(label) for label in y.values()), default=0)
    axes.text((x0 + x1) / 2, y0 - 26 * dy, xlabel, ha="center", va="top")
    left = x0 - (widest + 10) * dx
    axes.text(left, (y0 + y1) / 2, ylabel, ha="right", va="center", rotation=90)


def png(pixels: Array, description: str) -> bytes:
    """Return pixels [height, width, 3] as a PNG file that says in words what it shows.

    Small matters: TensorBoard's writer adds up every byte in Python. Where 256 colours are enough,
    rounded by no more than 7 of 255, a pixel is one byte that names its colour; elsewhere three,
    each row as the difference from the one above.

    Source: W3C, "Portable Network Graphics (PNG) Specification", third edition.
    """
    height, width, _ = pixels.shape
    red, green, blue = (pixels[:, :, i].astype(np.uint16) for i in range(3))
    rounded = (red >> 3 << 11) | (green >> 2 << 5) | (blue >> 3)  # 5, 6 and 5 bits
    used = np.flatnonzero(np.bincount(rounded.ravel(), minlength=2**16))
    few = len(used) <= 256
    row = width if few else 3 * width
    rows = np.zeros((height, 1 + row), np.uint8)  # 0 before a row: stored as it is
    palette = {}
    if few:
        names = np.zeros(2**16, np.uint8)
        names[used] = np.arange(len(used))
        rows[:, 1:] = names[rounded]
        parts_of = (used >> 11) / 31, (used >> 5 & 63) / 63, (used & 31) / 31
        palette[b"PLTE"] = np.rint(np.stack(parts_of, axis=1) * 255).astype(np.uint8).tobytes()
    else:
        flat = pixels.reshape(height, row)
        rows[1:, 0], rows[0, 1:] = 2, flat[0]  # 2: as the difference from the one above
        np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 3 if few else 2, 0, 0, 0),
        **palette,
        b"tEXt": b"Description\0" + description.encode("latin-1", "replace"),
        b"IDAT": zlib.compress(rows.tobytes(), 4 if few else 1),
        b"IEND": b"",
    }
    chunks = [
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def ceiling(value: float) -> float:
    """Return the least of 1, 1.5, 2, 3, 5, 7, 10, ... (and tenths of them) that is not below."""
    if not math.isfinite(value) or value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return float(
        next(m * power for m in (1, 1.5, 2, 3, 5, 7, 10) if m * power >= value * (1 - 1e-9))
    )


def squares(axes: Axes, places: list[tuple[float, float]], colour: str) -> Artist:
    """Fill cells of one unit, given their centres, with a little room between them."""
    corners = np.array([(-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -1)]) * 0.47
    codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY] * len(places)
    points = np.concatenate([corners + place for place in places]) if places else [(0, 0)]
    return axes.add_artist(
        PathPatch(Path(points, codes or None), facecolor=colour, linewidth=0, antialiased=False)
    )
