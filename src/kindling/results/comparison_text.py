"""Format a comparison as text, CSV, JSON, or Markdown."""

from collections.abc import Iterator, Sequence
from typing import Any

from src.kindling.files import output
from src.kindling.layout import Plain
from src.kindling.results import tables
from src.kindling.results.comparison import FOLD, Comparison
from src.kindling.results.significance import LEVEL, Summary

Table = tuple[list[str], list[list[Any]]]  # header and rows


# As text ----------------------------------------------------------------------------------------


def as_text(one: Comparison, width: int) -> str:
    """Return the tables of one model for a terminal."""
    lines = [f"{heading(one)}\n", tables.text(*main_table(one), width)]
    for part in _split(*metric_table(one), width):
        lines += ["", tables.text(*part, width)]
    return "\n".join([*lines, "", *notes(one)])


def heading(one: Comparison) -> str:
    """Return a heading: the number of runs and settings, and the metric."""
    count, kinds = len(one.runs), len(one.settings)
    what = f"{count} run{'s' * (count > 1)}, {kinds} setting{'s' * (kinds > 1)}"
    best = "lowest" if one.mode == "min" else "highest"
    return f"{tables.shown(one.model)}: {what}; best first, by the {best} {one.metric}"


def main_table(one: Comparison) -> Table:
    """Return the table of the metric that ranks, without empty columns."""
    several = len(one.runs) > len(one.settings)
    known = [setting.summary(one.metric) for setting in one.settings]
    names = [len(s.runs) if several else s.runs[0].path.name for s in one.settings]
    columns: dict[str, list[Any]] = {
        "#": [place + 1 for place in range(len(known))],
        "runs" if several else "run": names,
        "mean" if several else one.metric: [found and found.mean for found in known],
        "sd": [found and found.sd for found in known],
        "95% interval": [found and interval(found) for found in known],
        "differs from": [_others(one, place) or None for place in range(len(known))],
        "setting": [setting.label or None for setting in one.settings],
    }
    full = {name: cells for name, cells in columns.items() if set(cells) != {None}}
    return list(full), [list(row) for row in zip(*full.values(), strict=True)]


def _others(one: Comparison, place: int) -> str:
    return ", ".join(str(other + 1) for other in one.significantly_different(place))


def interval(known: Summary) -> str | None:
    """Format the interval of a mean."""
    if known.low is None or known.high is None:
        return None
    return f"{known.low:.4g} to {known.high:.4g}"


def metric_table(one: Comparison) -> Table:
    """Return the table of the other metrics of validation and test, and the training loss."""
    shown = [n for n in one.metrics[1:] if n.startswith(("test/", "val/")) or n == "train/loss"]
    rows = [
        [place + 1, *(mean_and_sd(setting.summary(name)) for name in shown)]
        for place, setting in enumerate(one.settings)
    ]
    return ["#", *shown], rows


def mean_and_sd(known: Summary | None) -> str | None:
    """Format a mean and its standard deviation."""
    if known is None:
        return None
    if known.sd is None:
        return tables.shown(known.mean)
    return f"{known.mean:.4g} {tables.PLUS_MINUS} {known.sd:.2g}"


def _split(header: list[str], rows: list[list[Any]], width: int) -> Iterator[Table]:
    """Yield a table in parts that fit a terminal of this width, the first column in each."""
    columns = list(zip(header, *rows, strict=True))
    sizes = [len(tables.GAP) + max(len(tables.shown(cell)) for cell in cells) for cells in columns]
    start = 1
    while start < len(columns):
        end = start + 1
        while end < len(columns) and sizes[0] + sum(sizes[start : end + 1]) <= width:
            end += 1
        part = zip(columns[0], *columns[start:end], strict=True)
        first, *others = map(list, part)
        yield first, others
        start = end


def notes(one: Comparison) -> list[str]:
    """Return notes on the tests, the best run, and the skipped runs."""
    tested = len(one.differences)
    found = sum(difference.significant for difference in one.differences)
    lines = [f"best run: {tables.shown(str(one.best.path))}"]
    if one.defaults:
        lines.insert(0, f"unless stated otherwise: {one.defaults}")
    if tested:
        lines.append(
            f"{found} of {tested} difference{'s' * (tested > 1)} significant: Welch's t-test,"
            f" p < {LEVEL} after Holm's correction for {tested} test{'s' * (tested > 1)}"
        )
    elif len(one.settings) > 1:
        lines.append("no difference tested: needs two seeds per setting, with different results")
    if folded := any(max(setting.folds) > 1 for setting in one.settings):
        lines.append("folds share rows: their mean counts once; intervals and tests are over seeds")
    if any(len(set(setting.folds)) > 1 for setting in one.settings):
        lines.append("the seeds of a setting have different numbers of folds")
    if one.repeated:
        reason = f"an older run of the same settings and seed{' and fold' * folded}"
        lines.append(tables.skipped(reason, [run.path for run in one.repeated]))
    return lines


# As a file --------------------------------------------------------------------------------------


def as_file(ending: str, compared: Sequence[Comparison], skipped: Sequence[str]) -> str:
    """Return comparisons as the text of a .csv, .json, or .md file."""
    if ending == ".json":
        return output.as_json({"models": [as_plain(one) for one in compared], "skipped": skipped})
    if ending == ".md":
        return "\n".join([*(as_markdown(one) for one in compared), *(f"{s}\n" for s in skipped)])
    rows = [row for one in compared for row in as_rows(one)]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return output.rows_as(".csv", [{key: row.get(key) for key in keys} for row in rows])


def as_markdown(one: Comparison) -> str:
    """Return the tables of one model in Markdown."""
    parts = [tables.markdown(*main_table(one)), tables.markdown(*metric_table(one))]
    lines = [f"- {tables.escaped(line)}\n" for line in notes(one)]
    return "\n".join([f"{tables.escaped(heading(one))}\n", *parts, "".join(lines)])


def as_rows(one: Comparison) -> Iterator[Plain]:
    """Yield one flat row per setting: its distinguishing values, then each metric's statistics."""
    for place, setting in enumerate(one.settings):
        row: Plain = {"model": one.model, "rank": place + 1, "runs": len(setting.runs)}
        row["seeds"] = " ".join(dict.fromkeys(str(run.seed) for run in setting.runs))
        values = {key: setting.values.get(key) for key in one.keys}
        row |= {key: str(v) if isinstance(v, list) else v for key, v in values.items()}
        row[f"differs by {one.metric} from"] = _others(one, place)
        for name in one.metrics:
            known = setting.summary(name)
            for part in ("mean", "sd", "low", "high"):
                row[f"{name} {part}"] = known and getattr(known, part)
        yield row


def as_plain(one: Comparison) -> Plain:
    """Return the entire comparison of one model as plain data."""
    return {
        "model": one.model,
        "metric": one.metric,
        "best": one.mode,
        "level": LEVEL,
        "test": "Welch",
        "correction": "Holm",
        "settings": [_plain_setting(one, place) for place in range(len(one.settings))],
        "differences": [
            {
                **vars(found),
                "first": found.first + 1,
                "second": found.second + 1,
                "significant": found.significant,
            }
            for found in one.differences
        ],
    }


def _plain_setting(one: Comparison, place: int) -> Plain:
    setting = one.settings[place]
    known = {name: setting.summary(name) for name in one.metrics}
    return {
        "rank": place + 1,
        "settings": setting.values,
        "metrics": {name: vars(found) for name, found in known.items() if found},
        "runs": [
            {
                "path": str(run.path),
                "seed": run.seed,
                "fold": run.settings.get(FOLD),
                "metrics": run.metrics,
            }
            for run in setting.runs
        ],
    }
