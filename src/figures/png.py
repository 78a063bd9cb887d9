"""PNG files, written fast and small: TensorBoard's writer adds up every byte in Python."""

import struct
import zlib

import numpy as np

from src.figures.sheet import Array


def png(pixels: Array, description: str) -> bytes:
    """Return pixels [height, width, 4] as a PNG file that says in words what it shows.

    They are red, green, blue, and an opacity that is not kept.

    Where 256 colours are enough, rounded by no more than 7 of 255, a pixel is one byte that names
    its colour; elsewhere three, each row as the difference from the one above.

    Source: W3C, "Portable Network Graphics (PNG) Specification", third edition.
    """
    height, width, _ = pixels.shape
    palette, rows = _named(pixels)
    if not palette:
        flat = pixels[:, :, :3].reshape(height, 3 * width)
        rows = np.empty((height, 1 + 3 * width), np.uint8)
        rows[:, 0], rows[0, 0], rows[0, 1:] = 2, 0, flat[0]  # 2: as the difference from above
        np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    kind = 3 if palette else 2
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0),
        **({b"PLTE": palette} if palette else {}),
        b"tEXt": b"Description\0" + description.encode("latin-1", "replace"),
        b"IDAT": zlib.compress(rows.data, 3 if palette else 1),
        b"IEND": b"",
    }
    chunks = [
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
        for name, part in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _named(pixels: Array) -> tuple[bytes, Array]:
    """Return a palette, and the rows of a file whose pixels name its colours; nothing where 256
    colours are not enough.
    """
    height, width, _ = pixels.shape
    colours = np.ascontiguousarray(pixels).view("<u4").ravel()  # red is the lowest byte
    # Neighbours are mostly alike: a run of them is looked at once.
    starts = np.flatnonzero(np.append(True, colours[1:] != colours[:-1]))
    runs = colours[starts]
    rounded = (runs & 0xF8) << 8 | (runs >> 5 & 0x7E0) | (runs >> 19 & 31)  # 5, 6 and 5 bits
    is_used = np.zeros(2**16, bool)
    is_used[rounded] = True
    used = np.flatnonzero(is_used)
    if len(used) > 256:
        return b"", runs
    names = np.zeros(2**16, np.uint8)
    names[used] = np.arange(len(used))
    named, lengths = names[rounded], np.diff(np.append(starts, len(colours)))
    # Each is shown as one that it stands for; areas keep their own colour.
    palette, areas = np.zeros(len(used), "<u4"), lengths > 8
    palette[named] = runs
    palette[named[areas]] = runs[areas]
    rows = np.zeros((height, 1 + width), np.uint8)  # 0 before a row: stored as it is
    rows[:, 1:] = np.repeat(named, lengths).reshape(height, width)
    return palette.view(np.uint8).reshape(-1, 4)[:, :3].tobytes(), rows
