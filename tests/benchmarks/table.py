"""The results as a table to read and as JSON to save."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from src.kindling.files import run_record

HEADER = ("row", "what", "goal", "measured", "ours", "against", "verdict")
PACKAGES = (*run_record.PACKAGES, "jax")
UNITS = {  # seconds per unit, and the number of meaningful decimals
    "us per step": (1e-6, 0),
    "ns per row": (1e-9, 0),
    "s": (1, 2),
    "MB": (1e6, 0),  # bytes
}


@dataclass
class Result:
    """One row: a measured number, its goal, and the times behind it.

    Args:
        row: the name that selects it.
        what: what is compared with what.
        measured: the number; None if nothing was measured.
        goal: its limit; None for a reference row.
        at_least: whether the goal is a lower limit.
        ours: the time (or bytes) of each round.
        against: the same for the reference.
        unit: the unit of both, a key of UNITS.
        note: a remark, or why nothing could be measured.
        kept: whether a second condition, besides the goal, holds.
    """

    row: str
    what: str
    measured: float | None = None
    goal: float | None = None
    at_least: bool = False
    ours: Sequence[float] = ()
    against: Sequence[float] = ()
    unit: str = "s"
    note: str = ""
    kept: bool = True
    more: dict[str, Any] = field(default_factory=dict)  # only for the JSON

    @property
    def verdict(self) -> str:
        """Return whether the goal is met."""
        if self.measured is None:
            return "skipped"
        if self.goal is None:
            return ""
        within = self.measured >= self.goal if self.at_least else self.measured <= self.goal
        return "met" if within and self.kept else "missed"

    def cells(self) -> list[str]:
        """Return the row's columns, in the order of HEADER."""
        limit = "" if self.goal is None else f"{'>=' if self.at_least else '<='} {self.goal:g}"
        measured = "" if self.measured is None else _short(self.measured)
        texts = [_amount(values, self.unit) for values in (self.ours, self.against)]
        verdict = "; ".join(part for part in (self.verdict, self.note) if part)
        return [self.row, self.what, limit, measured, *texts, verdict]


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 20 else f"{number:.2f}"


def _amount(values: Sequence[float], unit: str) -> str:
    if not values:
        return ""
    size, decimals = UNITS[unit]
    return f"{statistics.median(values) / size:,.{decimals}f} {unit}"


def markdown(results: list[Result]) -> str:
    """Return the Markdown table, aligned so that a terminal shows it too."""
    rows = [list(HEADER), *(result.cells() for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def machine() -> dict[str, Any]:
    """Describe the machine: processor, system, versions, commit."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "git": run_record.git_state(),
    }


def sentence(about: dict[str, Any]) -> str:
    """Describe the machine in one line."""
    versions = " ".join(f"{name} {about['versions'][name]}" for name in ("torch", "lightning"))
    commit = (about["git"] or {}).get("commit", "")[:7]
    where = f"{about['processor']}, one of {about['cores']} cores, one thread"
    return f"{where}; Python {about['python']}, {versions}" + (f"; commit {commit}" * bool(commit))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def as_json(results: list[Result], about: dict[str, Any]) -> str:
    """Return every round of every row as JSON."""
    rows = [{**vars(result), "verdict": result.verdict} for result in results]
    return json.dumps({"machine": about, "rows": rows}, indent=2) + "\n"
