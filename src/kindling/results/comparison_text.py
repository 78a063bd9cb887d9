"""A comparison as text, CSV, JSON or Markdown."""

from collections.abc import Iterator, Sequence
from typing import Any

from src.kindling.files import output
from src.kindling.layout import Plain
from src.kindling.results import tables
from src.kindling.results.comparison import Comparison, as_overrides
from src.kindling.results.significance import LEVEL, Summary
from src.kindling.results.tables import skipped

PLUS_MINUS = "±"  # between a mean and its standard deviation


# As text ----------------------------------------------------------------------------------------


def as_text(one: Comparison, width: int) -> str:
    """Return the tables of one model for a terminal."""
    lines = [f"{heading(one)}\n", tables.text(*main_table(one), width)]
    for columns in _beside_each_other(one, width):
        lines += ["", tables.text(*columns, width)]
    return "\n".join([*lines, "", *notes(one)])


def heading(one: Comparison) -> str:
    """Say what is compared, and by what."""
    count, kinds = len(one.runs), len(one.settings)
    what = f"{count} run{'s' * (count > 1)}, {kinds} setting{'s' * (kinds > 1)}"
    best = "least" if one.mode == "min" else "most"
    return f"{tables.shown(one.model)}: {what}; best first, by the {best} {one.metric}"


def main_table(one: Comparison) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows of the table of the metric that decides, without empty columns."""
    several = len(one.runs) > len(one.settings)
    header = ["#", "runs" if several else "run", "mean" if several else one.metric]
    header += ["sd", "95% interval", "differs from", "setting"]
    rows = []
    for place, setting in enumerate(one.settings):
        known = setting.summary(one.metric)
        run = len(setting.runs) if several else setting.runs[0].path.name
        apart = ", ".join(str(other + 1) for other in one.differs_from(place)) or None
        its = [known.mean, known.sd, interval(known)] if known else [None, None, None]
        row = [place + 1, run, *its, apart, one.words(setting)]
        rows.append([None if value == "" else value for value in row])
    full = [i for i in range(len(header)) if i < 3 or any(row[i] is not None for row in rows)]
    return [header[i] for i in full], [[row[i] for i in full] for row in rows]


def interval(known: Summary) -> str | None:
    """Return an interval as text."""
    if known.low is None or known.high is None:
        return None
    return f"{known.low:.4g} to {known.high:.4g}"


def metric_table(one: Comparison) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows of the other metrics of validation, test and the training loss."""
    shown = [n for n in one.metrics[1:] if n.startswith(("test/", "val/")) or n == "train/loss"]
    rows = [
        [place + 1, *(mean_and_sd(setting.summary(name)) for name in shown)]
        for place, setting in enumerate(one.settings)
    ]
    return ["#", *shown], rows


def mean_and_sd(known: Summary | None) -> str | None:
    """Return mean and standard deviation as text."""
    if known is None:
        return None
    if known.sd is None:
        return tables.shown(known.mean)
    return f"{known.mean:.4g} {PLUS_MINUS} {known.sd:.2g}"


def _beside_each_other(one: Comparison, width: int) -> Iterator[tuple[list[str], list[list[Any]]]]:
    """Yield the table of the other metrics, in as many parts as the terminal is too narrow for."""
    header, rows = metric_table(one)
    start = 1
    while start < len(header):
        end = start + 1
        while end < len(header) and _width(header, rows, [0, *range(start, end + 1)]) <= width:
            end += 1
        yield (
            [header[0], *header[start:end]],
            [[row[0], *row[start:end]] for row in rows],
        )
        start = end


def _width(header: list[str], rows: list[list[Any]], columns: list[int]) -> int:
    wide = (max(len(tables.shown(row[i])) for row in [header, *rows]) for i in columns)
    return sum(size + len(tables.GAP) for size in wide)


def notes(one: Comparison) -> list[str]:
    """Say what was tested and how, which run is best, and what was left out."""
    tested = len(one.differences)
    found = sum(difference.significant for difference in one.differences)
    lines = [f"best run: {tables.shown(str(one.best.path))}"]
    if usual := as_overrides(one.usual):
        lines.insert(0, f"where no other is said: {usual}")
    if tested:
        lines.append(
            f"{found} of {tested} difference{'s' * (tested > 1)} significant: Welch's t-test,"
            f" p < {LEVEL} after Holm's correction for {tested} test{'s' * (tested > 1)}"
        )
    elif len(one.settings) > 1:
        lines.append("no difference was tested: that takes two seeds each, whose results vary")
    if one.repeated:
        lines.append(
            skipped(
                "the same seed again, of which the newest counts", [r.path for r in one.repeated]
            )
        )
    return lines


# As a file --------------------------------------------------------------------------------------


def as_file(ending: str, compared: Sequence[Comparison], skipped: Sequence[str]) -> str:
    """Return comparisons as the text of a .csv, .json or .md file."""
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
    said = [f"- {tables.escaped(line)}\n" for line in notes(one)]
    return "\n".join([f"{tables.escaped(heading(one))}\n", *parts, "".join(said)])


def as_rows(one: Comparison) -> Iterator[Plain]:
    """Yield a flat row for each setting: what sets it apart, then each metric's statistics."""
    for place, setting in enumerate(one.settings):
        apart = ", ".join(str(other + 1) for other in one.differs_from(place))
        row: Plain = {"model": one.model, "rank": place + 1, "runs": len(setting.runs)}
        row["seeds"] = " ".join(str(run.seed) for run in setting.runs)
        row |= {key: _plain(setting.values.get(key)) for key in one.keys}
        row[f"differs by {one.metric} from"] = apart
        for name in one.metrics:
            known = setting.summary(name)
            for part in ("mean", "sd", "low", "high"):
                row[f"{name} {part}"] = known and getattr(known, part)
        yield row


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, list) else value


def as_plain(one: Comparison) -> Plain:
    """Return all that is known of one model's settings."""
    return {
        "model": one.model,
        "metric": one.metric,
        "best": one.mode,
        "level": LEVEL,
        "test": "Welch",
        "correction": "Holm",
        "settings": [
            {
                "rank": place + 1,
                "settings": setting.values,
                "metrics": {
                    name: vars(known) for name in one.metrics if (known := setting.summary(name))
                },
                "runs": [
                    {"path": str(run.path), "seed": run.seed, "metrics": run.metrics}
                    for run in setting.runs
                ],
            }
            for place, setting in enumerate(one.settings)
        ],
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
