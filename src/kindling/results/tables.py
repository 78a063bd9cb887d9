"""Tables for a terminal, a spreadsheet, a Markdown page or a program, safe to show in each."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from src.kindling.errors import InputError
from src.kindling.layout import Plain

GAP = "  "  # between two columns


def checked_output(output: Any, endings: Sequence[str]) -> Path | None:
    """Return the file that a command is to write, if one is asked for.

    Raises:
        InputError: it ends in none of the endings, or its folder is not there or read-only.
    """
    if output is None:
        return None
    path = Path(str(output))
    if path.suffix not in endings:
        *others, last = endings
        choice = f"{', '.join(others)} or {last}" if others else last
        raise InputError(f"output={output}: name a file that ends in {choice}")
    if os.path.isdir(path) or not os.path.isdir(path.parent):
        raise InputError(f"output={output}: there is no folder {path.parent} to write this file in")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"output={output}: the folder {path.parent} is not to be written in")
    return path


def shown(value: Any) -> str:
    """Return a value as a table shows it: short, on one line, and with no orders to a terminal."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return printable(str(value))


def printable(text: str, most: int = 1000) -> str:
    """Return text without characters that a terminal carries out, cut where it is too long."""
    plain = "".join(c if c.isprintable() else "?" for c in text[: most + 1])
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


# For people ---------------------------------------------------------------------------------------


def text(header: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> str:
    """Return lines for a terminal: numbers to the right, the last column wrapped where too long."""
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


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table; what would be markup or HTML in a cell is shown as it is."""
    cells = [[escaped(shown(value)) for value in row] for row in [header, *rows]]
    lines = [cells[0], ["---"] * len(header), *cells[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is: no markup, no HTML."""
    return re.sub(r"([\\|`*_<>\[\]&~$#])", r"\\\1", text)


# For programs -------------------------------------------------------------------------------------


def rows_as(ending: str, rows: Sequence[Plain]) -> str:
    """Return rows of the same keys as the text of a .csv or .json file."""
    if ending == ".json":
        return as_json(rows)
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(map(cell, rows[0]))
    writer.writerows(map(cell, row.values()) for row in rows)
    return lines.getvalue()


def as_json(content: Any) -> str:
    """Return JSON that every reader takes: what is no finite number is null."""
    return json.dumps(_finite(content), indent=1, allow_nan=False) + "\n"


def _finite(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _finite(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_finite(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def cell(value: Any) -> Any:
    """Return a value as a spreadsheet should see it: text that would start a formula is quoted.

    Source: OWASP, "CSV Injection". Numbers are no text; a negative one stays what it is.
    """
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{value}" if formula else value


MAX_NAMED = 3  # skipped runs that are named; more are counted


def skipped(reason: str, paths: Sequence[Path]) -> str:
    """Return a line that counts what was skipped, and names the first few."""
    names = ", ".join(printable(str(path)) for path in paths[:MAX_NAMED])
    more = f" and {len(paths) - MAX_NAMED} more" if len(paths) > MAX_NAMED else ""
    return f"skipped {len(paths)}, {printable(reason)}: {names}{more}"
