"""A run, or several, as one HTML page."""

import base64
import os
import re
import shlex
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from src.kindling import layout
from src.kindling.errors import printable
from src.kindling.layout import Plain
from src.kindling.results import comparison, runs, tables
from src.kindling.results.comparison import Comparison
from src.kindling.results.runs import Run

PAGE = Path(__file__).with_suffix(".html")
PNG = b"\x89PNG\r\n\x1a\n"
LARGEST, MOST = 2**23, 50  # bytes of a figure, figures of a run
RUNS = 100  # in one file
TRAINING = ("src.train", "kindling-train")
FLAGS = ("-m", "--multirun")
Rows = list[list[str]]


@dataclass(frozen=True)
class Picture:
    """A picture with its title and what it shows in words, as a page has it.

    Attributes:
        title: what it is.
        text: what it shows, for who cannot see it.
        address: the picture itself, as a data: address.
    """

    title: str
    text: str
    address: str


def page(found: Sequence[Run]) -> str:
    """Return the page about runs, complete in itself."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,  # what a run holds, anybody may have written
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = tables.shown
    template = environment.from_string(PAGE.read_text(encoding="utf-8"))
    return template.render(
        title=_title(found),
        runs=[described(run) for run in found],
        models=list(_models(found)),
        written=datetime.now().astimezone().isoformat(" ", "minutes"),
    )


def _title(found: Sequence[Run]) -> str:
    if len(found) > 1:
        return f"{len(found)} runs"
    return printable(f"{found[0].model}, {found[0].path.resolve().name}")


def _models(found: Sequence[Run]) -> Iterator[Plain]:
    """Yield what the page says of the runs of each model together."""
    for model in dict.fromkeys(run.model for run in found):
        # Numbered as in the page's list of runs.
        its = {number: run for number, run in enumerate(found, 1) if run.model == model}
        histories = {number: runs.history(run.path) for number, run in its.items()}
        fit = [run for run in its.values() if not run.unfit]
        compared = _tables(comparison.compare(fit)) if len(found) > 1 and fit else None
        yield {"name": printable(model), "compared": compared, "curves": curves(histories)}


def _tables(one: Comparison) -> Plain:
    from src.kindling.results import comparison_text

    return {
        "heading": comparison_text.heading(one),
        "tables": [comparison_text.main_table(one), comparison_text.metric_table(one)],
        "remarks": comparison_text.notes(one),
    }


# One run ----------------------------------------------------------------------------------------


def described(run: Run) -> Plain:
    """Return what the page says of a run."""
    pictures, left_out = figures(run.path)
    return {
        "name": printable(f"{run.model} {run.path.resolve().name}"),
        "status": printable(run.status),
        "metrics": _by_stage(run.metrics),
        "facts": facts(run),
        "commands": list(commands(run)),
        "config": _text(run.config),
        "figures": pictures,
        "left_out": left_out,
    }


def _by_stage(metrics: dict[str, float]) -> Plain:
    """Return a table of metrics: a row a name, a column a stage."""
    order = {"train": 0, "val": 1, "test": 2}
    stages = sorted({n.rpartition("/")[0] for n in metrics}, key=lambda s: (order.get(s, 3), s))
    names = dict.fromkeys(name.rpartition("/")[2] for name in metrics)
    rows = []
    for name in sorted(names, key=lambda name: (name != "loss", name)):
        values = [metrics.get(f"{stage}/{name}" if stage else name) for stage in stages]
        cells = [None if value is None else f"{value:.6g}" for value in values]
        rows.append([printable(name), *cells])
    return {"header": ["metric", *map(printable, stages)], "rows": rows}


def _text(config: Plain) -> str:
    dumped = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return "\n".join(printable(line) for line in dumped.splitlines())


def facts(run: Run) -> Rows:
    """Return what run.json says, as names and values."""
    record, git = run.record, run.record.get("git")
    said = {
        "directory": run.path,
        "status": run.status,
        "seed": run.seed,
        "started": record.get("start"),
        "took": _duration(record.get("start"), record.get("end")),
        "device": record.get("device"),
        "git commit": git.get("commit") if isinstance(git, dict) else None,
        "command": _words(record.get("command")),
        "times resumed": len(earlier)
        if isinstance(earlier := record.get("earlier"), list)
        else None,
        "platform": record.get("platform"),
        "Python": record.get("python"),
    }
    if isinstance(git, dict) and git.get("dirty"):
        said["git commit"] = f"{git.get('commit')}, with changes that were not committed"
    versions = record.get("versions")
    said |= versions if isinstance(versions, dict) else {}
    return [[tables.shown(k), tables.shown(v)] for k, v in said.items() if v is not None]


def _duration(start: Any, end: Any) -> str | None:
    try:
        seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except (TypeError, ValueError):
        return None
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {left} s"
        if minutes
        else f"{left} s"
    )


def _words(said: Any) -> str | None:
    return shlex.join(map(str, said)) if isinstance(said, list) and said else None


def commands(run: Run) -> Iterator[tuple[str, str]]:
    """Yield what a user may do with a run, and what to type for it."""
    path = str(run.path)
    if (typed := _reproducing(run.record)) is not None:
        yield "reproduce it", typed
    yield "resume it", layout.command_line("train", resume=path)
    yield "test it", layout.command_line("evaluate", run=path)
    yield "ask it", layout.command_line("predict", run=path)
    yield "see its dashboards", f"tensorboard --logdir {shlex.quote(path)}"


def _reproducing(record: Plain) -> str | None:
    """Return what started a run, if it was a training with nothing but values set.

    Who pastes a command trusts it: what a stranger's could build or import is not offered.
    """
    earlier = record.get("earlier")
    first = earlier[0] if isinstance(earlier, list) and earlier else record
    said = first.get("command") if isinstance(first, dict) else None
    words = [str(word) for word in said] if isinstance(said, list) else []
    names = [os.path.basename(word) for word in words]
    start = next((i for i, name in enumerate(names, 1) if name in TRAINING), None)
    if start is None or not all(map(_harmless, words[start:])):
        return None
    lines = [shlex.join(["python", "-m", "src.train", *words[start:]])]
    git = first.get("git")
    if isinstance(git, dict) and re.fullmatch("[0-9a-f]{7,64}", str(git.get("commit"))):
        lines.insert(0, f"git checkout {git['commit']}")
    if isinstance(git, dict) and git.get("dirty"):
        lines.insert(0, "# it ran with changes that were not committed")
    return "\n".join(lines)


def _harmless(word: str) -> bool:
    sets = not word.startswith(("-", "hydra", "resume=")) and "_target_" not in word
    return word in FLAGS or (sets and word.isprintable())


# Pictures ---------------------------------------------------------------------------------------


def curves(histories: dict[int, dict[str, Any]]) -> list[Picture]:
    """Return charts of what runs logged."""
    from src.kindling.results import charts  # matplotlib: not for a run that is not there

    return [
        Picture(chart.title, chart.text, _address("image/svg+xml", chart.svg))
        for chart in charts.charts(histories)
    ]


def figures(run: Path) -> tuple[list[Picture], list[str]]:
    """Return the pictures that a run drew of its model, and the names of those that are none."""
    files = sorted((run / "figures").glob("*.png"))
    pictures, left_out = [], [printable(file.name) for file in files[MOST:]]
    for file in files[:MOST]:
        title = printable(file.stem.replace("_", " "), 100)
        content = b""
        if file.is_file() and file.stat().st_size <= LARGEST:
            content = file.read_bytes()
        if content.startswith(PNG):
            text = description(content) or f"figure of the run: {title}"
            pictures.append(Picture(title, text, _address("image/png", content)))
        else:
            left_out.append(printable(file.name))
    return pictures, left_out


def description(png: bytes) -> str | None:
    """Return what a PNG says that it shows: its text chunk `Description`.

    Source: the PNG specification, sections 5.3 and 11.3.3.
    """
    place = len(PNG)
    while place + 8 <= len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        keyword, _, text = png[place + 8 : place + 8 + length].partition(b"\0")
        if kind == b"tEXt" and keyword == b"Description":
            return printable(text.decode("latin-1"))
        place += length + 12
    return None


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
