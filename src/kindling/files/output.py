"""Tables that a command writes to a file: CSV or JSON, safe to open in a spreadsheet."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.kindling.errors import InputError
from src.kindling.files.atomic_write import write_atomically
from src.kindling.files.bounded import reason
from src.kindling.files.run_record import json_safe
from src.kindling.layout import Plain


def checked_output(output: Any, endings: Sequence[str]) -> Path | None:
    """Validate the value of `output=` before anything is computed.

    Args:
        output: the path; None if no file was asked for.
        endings: the allowed file name extensions: [".csv", ".json"].

    Raises:
        InputError: the extension is none of these, or the folder is missing or read-only.
    """
    if output is None:
        return None
    path = Path(str(output))
    if path.suffix not in endings:
        *others, last = endings
        choice = f"{', '.join(others)} or {last}" if others else last
        raise InputError(f"output={output}: name a file that ends in {choice}")
    if os.path.isdir(path) or not os.path.isdir(path.parent):
        raise InputError(f"output={output}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"output={output}: the folder {path.parent} is read-only")
    return path


def write_output(path: Path, content: bytes | memoryview) -> None:
    """Write the file of a command, as `write_atomically` does.

    Raises:
        InputError: it cannot be written; the line names `output=`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise InputError(
            f"output: {path} cannot be written ({reason(error)}); use output=FILE{path.suffix}"
        ) from None


def rows_as(ending: str, rows: Sequence[Plain]) -> str:
    """Format rows with the same keys as the text of a .csv or .json file."""
    if ending == ".json":
        return as_json(rows)
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(map(cell, rows[0]))
    writer.writerows(map(cell, row.values()) for row in rows)
    return lines.getvalue()


def as_json(content: Any) -> str:
    """Format as standard JSON: NaN and infinity become null."""
    return json.dumps(json_safe(content), indent=1, allow_nan=False) + "\n"


def cell(value: Any) -> Any:
    """Quote text that a spreadsheet would run as a formula; numbers stay numbers.

    Source: OWASP, "CSV Injection".
    """
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{value}" if formula else value
