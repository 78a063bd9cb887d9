"""Write one or several runs as one HTML page."""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from src.kindling import layout
from src.kindling.errors import printable
from src.kindling.files import run_record
from src.kindling.layout import Plain
from src.kindling.results import comparison, pictures, tables
from src.kindling.results.comparison import Comparison
from src.kindling.results.history import read_history
from src.kindling.results.runs import Run

PAGE = Path(__file__).with_suffix(".html")
RUNS = 100  # per page
TRAINING = re.compile(r"src\.train|[\w-]+-train")  # as a module, or as the project's script
FLAGS = ("-m", "--multirun")
Rows = list[list[str]]


def page(found: Sequence[Run]) -> str:
    """Return a self-contained page about runs."""
    described_runs = [described(run) for run in found]
    return _rendered(
        title=_title(found), study=None, runs=described_runs, models=list(_models(found))
    )


def study_page(study: Any, confirmed: Sequence[Run]) -> str:
    """Return a self-contained page about a study.

    Args:
        study: a StudyReport of src.kindling.studies.
        confirmed: its best settings, trained again with other seeds.
    """
    drawn = [pictures.of_chart(chart) for chart in study.charts]
    fit = [run for run in confirmed if not run.unfit]
    compared = _tables(comparison.compare(fit, *study.by)) if fit else None
    return _rendered(title=study.title, study=study, pictures=drawn, compared=compared)


def _rendered(**values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,  # anybody may have written a run directory
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_controls,
    )
    environment.filters["cell"] = tables.shown
    template = environment.from_string(PAGE.read_text(encoding="utf-8"))
    written = datetime.now().astimezone().isoformat(" ", "minutes")
    return template.render(written=written, **values)


def _without_controls(value: Any) -> Any:
    """Replace control characters, and those that reverse text, in what a run or a study holds."""
    if type(value) is not str:
        return value
    return "".join(c if _is_shown(c) else "?" for c in value.expandtabs())


def _is_shown(character: str) -> bool:
    # A path that is not UTF-8 has its bytes as surrogates, and stays as it is.
    return character.isprintable() or character == "\n" or "\udc80" <= character <= "\udcff"


def _title(found: Sequence[Run]) -> str:
    if len(found) > 1:
        return f"{len(found)} runs"
    return printable(f"{found[0].model}, {found[0].path.resolve().name}")


def _models(found: Sequence[Run]) -> Iterator[Plain]:
    """Yield, for each model, the comparison and curves of its runs."""
    for model in dict.fromkeys(run.model for run in found):
        # Numbered as in the page's list of runs.
        numbered = {number: run for number, run in enumerate(found, 1) if run.model == model}
        histories = {number: read_history(run.path) for number, run in numbered.items()}
        fit = [run for run in numbered.values() if not run.unfit]
        compared = _tables(comparison.compare(fit)) if len(found) > 1 and fit else None
        yield {"name": printable(model), "compared": compared, "curves": pictures.curves(histories)}


def _tables(one: Comparison) -> Plain:
    from src.kindling.results import comparison_text

    return {
        "heading": comparison_text.heading(one),
        "tables": [comparison_text.main_table(one), comparison_text.metric_table(one)],
        "notes": comparison_text.notes(one),
    }


# One run ----------------------------------------------------------------------------------------


def described(run: Run) -> Plain:
    """Return the section about one run."""
    drawn, left_out = pictures.figures(run.path)
    return {
        "name": printable(f"{run.model} {run.path.resolve().name}"),
        "status": printable(run.status),
        "metrics": _by_stage(run.metrics),
        "facts": facts(run),
        "commands": list(commands(run)),
        "config": _text(run.config),
        "figures": drawn,
        "left_out": left_out,
    }


def _by_stage(metrics: dict[str, float]) -> Plain:
    """Return a table of metrics: one row per name, one column per stage."""
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
    """Return the content of run.json, as names and values."""
    record, git = run.record, run.record.get("git", {})
    unsaved = ", with uncommitted changes" if git.get("dirty") else ""
    found = {
        "directory": run.path,
        "status": run.status,
        "seed": run.seed,
        "started": record.get("start"),
        "took": _duration(record.get("start"), record.get("end")),
        "device": record.get("device"),
        "git commit": f"{git.get('commit')}{unsaved}" if git else None,
        "command": shlex.join(map(str, record.get("command", []))) or None,
        "times resumed": len(record["earlier"]) if "earlier" in record else None,
        "platform": record.get("platform"),
        "Python": record.get("python"),
        **record.get("versions", {}),
    }
    return [[tables.shown(k), tables.shown(v)] for k, v in found.items() if v is not None]


def _duration(start: Any, end: Any) -> str | None:
    try:
        seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except (TypeError, ValueError):
        return None
    return str(timedelta(seconds=round(seconds)))


def commands(run: Run) -> Iterator[tuple[str, str]]:
    """Yield the actions on a run, each with its command."""
    path = str(run.path)
    if (lines := _reproducing(run.record)) is not None:
        yield "reproduce it", lines
    yield "resume it", layout.command_line("train", resume=path)
    yield "test it", layout.command_line("evaluate", run=path)
    yield "query it", layout.command_line("predict", run=path)
    yield "see its dashboards", f"tensorboard --logdir {shlex.quote(path)}"
    if not layout.own_folders() and (words := run_record.folder_words(run.path)):
        yield "to use the folder that it was trained with, if that is yours, add to each", words


def _reproducing(record: Plain) -> str | None:
    """Return the command that started a run, if it only sets values.

    People paste commands without reading them: one that could import or build code is omitted.
    """
    first = next(iter(record.get("earlier", [])), record)
    command, git = (first.get(k) if isinstance(first, dict) else None for k in ("command", "git"))
    words = [str(word) for word in command] if isinstance(command, list) else []
    names = [os.path.basename(word) for word in words]
    start = next((i for i, name in enumerate(names, 1) if TRAINING.fullmatch(name)), None)
    if start is None or not all(map(_harmless, words[start:])):
        return None
    lines = [shlex.join([*layout.program("train"), *words[start:]])]
    if isinstance(git, dict) and re.fullmatch("[0-9a-f]{7,64}", str(git.get("commit"))):
        lines.insert(0, f"git checkout {git['commit']}")
    if isinstance(git, dict) and git.get("dirty"):
        lines.insert(0, "# it ran with uncommitted changes")
    return "\n".join(lines)


def _harmless(word: str) -> bool:
    sets = not word.startswith(("-", "hydra", "resume=")) and "_target_" not in word
    return word in FLAGS or (sets and word.isprintable())
