"""A sheet of pixels to draw on, and panels on it, which have axes.

A figure of matplotlib takes 30 ms: most of it goes into parts that find out where they belong.
Here a picture knows its places, and draws at once: rectangles by NumPy, lines and dots by
matplotlib's rasteriser (Agg), letters in the font that it brings along. That takes 2 ms.

Places on a sheet are pixels, counted from its upper left corner; places in a panel are data.
"""

import functools
import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.ft2font import FT2Font, LoadFlags
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, Bbox, IdentityTransform
from numpy.typing import NDArray

Array = NDArray[Any]
Ticks = dict[float, str]  # place -> label

# Okabe and Ito's palette, which colour-blind readers tell apart: doi.org/10.1038/nmeth.1618
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#222222", "#767676"
WHITE, PALE = "#FFFFFF", "#DDDDDD"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
SOLID, DASHED, DOTTED, MIXED = (), (3.7, 1.6), (1.0, 1.65), (6.4, 1.6, 1.0, 1.6)  # of its width
DASHES = (SOLID, DASHED, MIXED, DOTTED)  # a line is known by its dashes too, not by colour alone

DPI = 72  # so that the rasteriser's points are pixels
TEXT = 14.5  # size of the letters, in pixels
MIDDLE = 0.36  # half of a capital's height, of the size
GREYS = 15  # between a letter and what is behind it; more would only make a file larger


renderer: Any = RendererAgg  # matplotlib has no types


class Tile:
    """Pixels that are filled and written on.

    Args:
        pixels: red, green, blue and an opacity of 255, [height, width, 4] in one piece.
    """

    def __init__(self, pixels: Array) -> None:
        pixels[:] = 255
        self.pixels = pixels
        self._colours = pixels.view(np.uint32)[:, :, 0]  # [height, width]
        self._row = pixels.reshape(len(pixels), -1)  # [height, 4 width]

    def fill(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        """Fill a rectangle, given its edges."""
        x0, y0, x1, y1 = (max(round(edge), 0) for edge in (left, top, right, bottom))
        self._colours[y0:y1, x0:x1] = rgba(colour).view(np.uint32)

    def paste(self, left: int, top: int, pixels: Array) -> None:
        """Put pixels [h, w, 4] onto these, which have room for them."""
        height, width, _ = pixels.shape
        colours = np.ascontiguousarray(pixels).view(np.uint32)[:, :, 0]
        self._colours[top : top + height, left : left + width] = colours

    def write(
        self,
        x: float,
        y: float,
        words: str,
        colour: str = BLACK,
        align: float = 0.5,
        size: float = TEXT,
        bold: bool = False,
        upwards: bool = False,
    ) -> None:
        """Write words to the right of x (align 0), around it (0.5) or to its left (1).

        The middle of a capital letter is at y; of words that go upwards it is at x.
        """
        cover, ascent = lettering(words, size, bold)
        length = cover.shape[1]
        along, across = (y, x) if upwards else (x, y)
        start = round(along - (1 - align if upwards else align) * length)
        line = round(across + MIDDLE * size) - ascent
        if upwards:
            self._blend(line, start, np.rot90(cover), colour)
        else:
            self._blend(start, line, cover, colour)

    def _blend(self, left: int, top: int, cover: Array, colour: str) -> None:
        """Colour pixels as far as they are covered [h, w], of GREYS."""
        cover = cover[max(-top, 0) :, max(-left, 0) :]
        top, left = max(top, 0), max(left, 0)
        height, width = cover.shape
        # In rows of numbers, without an axis of colours, which NumPy would go through pixel wise.
        area = self._row[top : top + height, 4 * left : 4 * (left + width)].astype(np.int16)
        height, width = len(area), area.shape[1] // 4
        cover = np.repeat(cover[:height, :width], 4, axis=1)
        full = np.tile(rgba(colour).astype(np.int16), width)
        area += (full - area) * cover // GREYS
        self._row[top : top + height, 4 * left : 4 * (left + width)] = area


class Sheet(Tile):
    """A white sheet of some pixels, for lines and dots too."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._agg = renderer(width, height, DPI)
        super().__init__(np.asarray(self._agg.buffer_rgba()))

    def lines(
        self,
        points: Array,
        colour: str,
        width: float = 1.5,
        dashes: tuple[float, ...] = SOLID,
        alpha: float = 1.0,
        within: "Panel | None" = None,
    ) -> None:
        """Draw a line through points [K, 2], or several of as many points [L, K, 2]."""
        places, codes = self._flipped(points), None
        if places.ndim == 3:
            one = [Path.MOVETO, *[Path.LINETO] * (places.shape[1] - 1)]
            places, codes = places.reshape(-1, 2), np.tile(one, len(places))
        pen = self._pen(colour, width, alpha, within)
        if dashes:
            pen.set_dashes(0, [width * part for part in dashes])
        self._agg.draw_path(pen, Path(places, codes), IdentityTransform())

    def dots(
        self,
        points: Array,
        colour: str,
        radius: float,
        alpha: float = 1.0,
        within: "Panel | None" = None,
        hollow: float = 0.0,
    ) -> None:
        """Draw dots at points [K, 2], or (hollow) rings whose line has this width."""
        pen = self._pen(colour, hollow, alpha, within)
        inside = None if hollow else tuple(rgba(colour)[:3] / 255)
        circle = Affine2D().scale(radius)
        places = Path(self._flipped(points))
        self._agg.draw_markers(pen, Path.unit_circle(), circle, places, IdentityTransform(), inside)

    def _flipped(self, points: Array) -> Array:
        return np.asarray(points, float) * (1, -1) + (0, self.height)  # Agg counts from below

    def _pen(self, colour: str, width: float, alpha: float, within: "Panel | None") -> Any:
        pen = self._agg.new_gc()
        pen.set_foreground(colour)
        pen.set_alpha(alpha)
        pen.set_linewidth(width)
        if within is not None:
            left, top, right, bottom = within.edges
            low, high = self.height - bottom, self.height - top
            pen.set_clip_rectangle(Bbox.from_extents(left, low, right, high))
        return pen


class Panel:
    """A part of a sheet with two axes.

    Args:
        sheet: what is drawn on.
        edges: left, top, right and bottom on the sheet.
        x: the values at the left and the right edge.
        y: the values at the lower and the upper edge.
    """

    def __init__(
        self,
        sheet: Sheet,
        edges: tuple[int, int, int, int],
        x: tuple[float, float],
        y: tuple[float, float],
    ) -> None:
        self.sheet, self.edges, self.x, self.y = sheet, edges, x, y

    def columns(self, x: Any) -> Any:
        """Return where values of x are on the sheet."""
        left, _, right, _ = self.edges
        return left + (np.asarray(x) - self.x[0]) * ((right - left) / (self.x[1] - self.x[0]))

    def rows(self, y: Any) -> Any:
        """Return where values of y are on the sheet."""
        _, top, _, bottom = self.edges
        return bottom + (np.asarray(y) - self.y[0]) * ((top - bottom) / (self.y[1] - self.y[0]))

    def points(self, x: Any, y: Any) -> Array:
        """Return where points are on the sheet, [K, 2]."""
        return np.stack(np.broadcast_arrays(self.columns(x), self.rows(y)), axis=-1)

    def line(self, x: Any, y: Any, colour: str, **look: Any) -> None:
        """Draw a line, or several, through points, whose x and y [K] or [L, K] may be one value."""
        self.sheet.lines(self.points(x, y), colour, within=self, **look)

    def strokes(self, x0: Any, y0: Any, x1: Any, y1: Any, colour: str, **look: Any) -> None:
        """Draw a straight line from each point to its other one."""
        ends = np.stack([self.points(x0, y0), self.points(x1, y1)], axis=-2)
        self.sheet.lines(ends, colour, within=self, **look)

    def dots(self, x: Any, y: Any, colour: str, **look: Any) -> None:
        """Draw a dot at each point."""
        self.sheet.dots(self.points(x, y).reshape(-1, 2), colour, within=self, **look)

    def bars(self, x0: Any, x1: Any, y0: Any, y1: Any, colour: str) -> None:
        """Fill the rectangles between x0 and x1, from y0 up to y1."""
        edges = self.columns(x0), self.rows(y1), self.columns(x1), self.rows(y0)
        bars = np.stack(np.broadcast_arrays(*edges), axis=-1).reshape(-1, 4).tolist()
        for left, top, right, bottom in bars:
            self.sheet.fill(left, top, right, bottom, colour)

    def write(self, x: float, y: float, words: str, colour: str = BLACK, **look: Any) -> None:
        """Write words at a place."""
        self.sheet.write(float(self.columns(x)), float(self.rows(y)), words, colour, **look)

    def image(self, colours: Array) -> None:
        """Fill the panel with colours [h, w, 4], from its upper left corner."""
        left, top, right, bottom = self.edges
        height, width, _ = colours.shape
        rows = np.arange(bottom - top) * height // (bottom - top)
        columns = np.arange(right - left) * width // (right - left)
        named = np.ascontiguousarray(colours).view(np.uint32)  # [h, w, 1]: a colour is a number
        self.sheet.paste(left, top, named[rows][:, columns].view(np.uint8))

    def rule(self, x: Ticks, y: Ticks, xlabel: str = "", ylabel: str = "") -> None:
        """Draw the left and the lower edge, with ticks and what they mean, as far as it fits."""
        sheet, (left, top, right, bottom) = self.sheet, self.edges
        sheet.fill(left - 1, top, left, bottom + 1, GREY)
        sheet.fill(left - 1, bottom, right, bottom + 1, GREY)
        free = 0.0
        for place, label in x.items():
            column, half = round(float(self.columns(place))), width(label) / 2
            sheet.fill(column - 1, bottom, column, bottom + 5, GREY)
            middle = min(column, sheet.width - half - 2)
            if middle - half >= free:
                sheet.write(middle, bottom + 15, label)
                free = middle + half + 4
        for place, label in y.items():
            row = round(float(self.rows(place)))
            sheet.fill(left - 5, row, left, row + 1, GREY)
            sheet.write(left - 8, row, label, align=1)
        sheet.write((left + right) / 2, bottom + 33, xlabel)
        sheet.write(left - 20 - widest(y), (top + bottom) / 2, ylabel, upwards=True)


def ticks(low: float, high: float, most: int = 8, least: float = 0.0) -> Ticks:
    """Return round places between two ends, this many intervals at most and not smaller than the
    least, with their labels.
    """
    if not high > low:
        return {low: f"{low:.6g}"}
    least = max((high - low) / most, least) * (1 - 1e-9)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= least)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return {i * step: f"{i * step:.6g}" for i in range(first, last + 1)}


def width(words: str) -> int:
    """Return how wide words of the usual size are."""
    return int(lettering(words, TEXT)[0].shape[1])


def widest(labels: Ticks) -> int:
    """Return how much room labels take to the left of an axis."""
    return max((width(label) for label in labels.values()), default=0)


def fitted(words: str, room: int) -> str:
    """Return words without some of their middle, where there is no room for them."""
    if width(words) <= room:
        return words
    cuts = (f"{words[:kept]}…{words[-2:]}" for kept in range(len(words) - 3, 0, -1))
    return next((cut for cut in cuts if width(cut) <= room), "…")


@functools.cache
def rgba(colour: str) -> Array:
    """Return red, green, blue and opacity, up to 255, of a colour like "#0072B2"."""
    return np.array([*bytes.fromhex(colour[1:]), 255], np.uint8)


@functools.lru_cache(maxsize=300)  # a megabyte
def lettering(words: str, size: float, bold: bool = False) -> tuple[Array, int]:
    """Return how far words cover their pixels [h, w], of GREYS, and how many rows lie above the
    line that the letters stand on.
    """
    letters = [letter(character, size, bold) for character in words]
    above = max((top for _, _, top, _ in letters), default=0)
    below = max((len(cover) - top for cover, _, top, _ in letters), default=0)
    covered = np.zeros((above + below, sum(advance for *_, advance in letters) + 8), np.uint8)
    pen = 4
    for cover, left, top, advance in letters:
        x, y = pen + left, above - top
        area = covered[y : y + len(cover), x : x + cover.shape[1]]
        np.maximum(area, cover, out=area)
        pen += advance
    columns = np.flatnonzero(covered.any(axis=0))
    return (covered[:, columns[0] : columns[-1] + 1] if len(columns) else covered[:, :0]), above


@functools.lru_cache(maxsize=1000)
def letter(character: str, size: float, bold: bool) -> tuple[Array, int, int, int]:
    """Return how far a letter covers its pixels [h, w], of GREYS; how far to the right they begin,
    and how high; and how far the next letter is.
    """
    font = _font(bold)
    font.set_size(size, DPI)
    index = font.get_char_index(ord(character))  # 0, an empty box, where the font lacks it
    glyph = font.load_glyph(index, flags=LoadFlags.DEFAULT)
    left, low, right, high = (edge / 64 for edge in glyph.bbox)
    left, top = math.floor(left), math.ceil(high)
    pixels = np.zeros((top - math.floor(low), math.ceil(right) - left), np.uint8)
    if pixels.size:
        font.draw_glyph_to_bitmap(pixels, -left, 0, glyph)  # which adds what is to the left
    cover = np.rint(pixels * (GREYS / 255)).astype(np.uint8)
    return cover, left, top, round(glyph.horiAdvance / 64)


@functools.cache
def _font(bold: bool) -> FT2Font:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return FT2Font(f"{matplotlib.get_data_path()}/fonts/ttf/{name}")


def shades(values: Array, ramp: tuple[str, ...], levels: int = 65) -> Array:
    """Return the colours [..., 4] of values between 0 and 1, on a ramp from the first to the last.

    They are so few that a PNG file names each by a byte.
    """
    stops, places = np.linspace(0, 1, len(ramp)), np.linspace(0, 1, levels)
    parts = zip(*(rgba(colour) for colour in ramp), strict=True)
    mixed = [np.interp(places, stops, part) for part in parts]
    colours: Array = np.rint(np.stack(mixed, axis=-1)).astype(np.uint8)
    shown: Array = colours[np.rint(np.clip(values, 0, 1) * (levels - 1)).astype(np.uint8)]
    return shown
