"""Format tables for a terminal or a Markdown page, safe to show in either."""

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from src.kindling.errors import printable

GAP = "  "  # between two columns
PLUS_MINUS = "±"  # between a mean and its standard deviation
MAX_NAMED = 3  # skipped runs to name; the rest are counted


def shown(value: Any) -> str:
    """Format a value for a table: short, on one line, without control characters."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return printable(str(value))


def text(header: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> str:
    """Format a table for a terminal: numbers right-aligned, the last column wrapped if too long."""
    body = [[shown(value) for value in row] for row in rows]
    wide = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    right = [
        all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(header))
    ]
    indent = sum(wide[:-1]) + len(GAP) * len(wide)
    last = max(20, width - indent)
    lines = []
    for row in [list(header), *body]:
        parts = wrap(row[-1], last, break_on_hyphens=False, break_long_words=False) or [""]
        cells = [*row[:-1], parts[0]]
        aligned = [
            cell.rjust(size) if to_right else cell.ljust(size)
            for cell, size, to_right in zip(cells, wide, right, strict=True)
        ]
        lines.append(GAP + GAP.join(aligned).rstrip())
        lines += [" " * indent + part for part in parts[1:]]
    return "\n".join(lines)


def encodable(text: str, encoding: str | None) -> str:
    """Replace the characters that an encoding lacks; in the C locale, ± becomes +-."""
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace(PLUS_MINUS, "+-").encode(encoding, "replace").decode(encoding)
    return text


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Format a table in Markdown; cells are shown literally."""
    cells = [[escaped(shown(value)) for value in row] for row in [header, *rows]]
    lines = [cells[0], ["---"] * len(header), *cells[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escaped(text: str) -> str:
    """Escape Markdown and HTML, so that the text is shown literally."""
    return re.sub(r"([\\|`*_<>\[\]&~$#])", r"\\\1", text)


def skipped(reason: str, paths: Sequence[Path]) -> str:
    """Format the number of skipped runs, the reason, and the first few paths."""
    names = ", ".join(printable(str(path)) for path in paths[:MAX_NAMED])
    more = f" and {len(paths) - MAX_NAMED} more" if len(paths) > MAX_NAMED else ""
    return f"skipped {len(paths)}, {printable(reason)}: {names}{more}"
