"""Read columns of numbers from a CSV file."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def columns(path: str, names: Sequence[str]) -> list[list[float]]:
    """Read the named columns of a CSV file with a header line.

    Returns:
        One list per row, with the columns in the order of `names`.

    Raises:
        ValueError: the file is missing, is not text, lacks a column, has no rows, or has a cell
            that is not a number; the message names the file, the line and the column.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} does not exist")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{path} cannot be read as UTF-8 text") from None
    with io.StringIO(text, newline="") as lines:
        reader = csv.DictReader(lines)
        missing = [name for name in names if name not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]!r} (of {names[0]} .. {names[-1]})")
        rows = []
        for row in reader:
            try:
                rows.append([float(row[name]) for name in names])
            except (TypeError, ValueError):
                cell = next(name for name in names if not _is_number(row[name]))
                where = f"{path}, line {reader.line_num}, column {cell!r}"
                raise ValueError(f"{where}: {row[cell]!r} is not a number") from None
    if not rows:
        raise ValueError(f"{path} has no rows below its header")
    return rows


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True
