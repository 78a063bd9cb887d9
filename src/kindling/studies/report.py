"""What src.report shows of a study, as plain data and charts."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial

from src.kindling import layout
from src.kindling.chart import Chart
from src.kindling.config import masking
from src.kindling.errors import InputError
from src.kindling.studies import definition, storage, summary, trials
from src.kindling.studies.charts import charts
from src.kindling.studies.definition import Definition
from src.kindling.studies.recipe import Recipe
from src.kindling.studies.settings import check_name
from src.kindling.studies.study import existing, quiet_optuna, unknown

MOST = 500  # trials in the table
Table = tuple[str, list[str], list[list[Any]]]  # caption, header, rows


@dataclass(frozen=True)
class StudyReport:
    """The content of a page about a study.

    Attributes:
        title: its heading.
        state: how many trials there are, by how they ended.
        tables: the best settings, all trials, and what is searched.
        by: the first metric, and "min" or "max".
        charts: its pictures.
        commands: actions on it, each with its command.
        folder: where its trials are.
    """

    title: str
    state: str
    tables: list[Table]
    by: tuple[str, str]
    charts: list[Chart]
    commands: list[tuple[str, str]]
    folder: Path


def read(name: str, log_dir: str, address: str | None = None) -> StudyReport:
    """Read a study, without changing it.

    Args:
        name: the study's.
        log_dir: where runs are kept.
        address: of its storage; None for the SQLite file in its folder.

    Raises:
        InputError: there is no such study, or no study could have this name.
    """
    quiet_optuna()
    check_name("study", name)
    folder = Path(log_dir) / "study" / name
    url = storage.url_of(address, folder, "storage")
    study = existing(name, url, folder)
    if study is None:
        raise unknown("study", folder)
    found = definition.of(study)
    return StudyReport(
        f"study {name}",
        summary.counts(trials.latest(study)),
        [_best(study, found), _trials(study, found), _searched(found)],
        (found.metrics[0], found.modes[0]),
        charts(study, found),
        list(_commands(study, found, log_dir, address or url)),
        folder,
    )


def _best(study: Study, found: Definition) -> Table:
    best = summary.ranked(study, found)[: summary.SHOWN]
    rows = [[number, *trial.values, *_settings(trial, found)] for number, trial in best]
    return "Best settings", ["trial", *found.metrics, *found.space], rows


def _settings(trial: FrozenTrial, found: Definition) -> list[Any]:
    return [trial.params.get(key) for key in found.space]


def _trials(study: Study, found: Definition) -> Table:
    header = ["trial", "status", *found.metrics, *found.space, "seconds", "note"]
    latest = sorted(trials.latest(study).items())
    rows = []
    for number, trial in latest[:MOST]:
        values = [*(trial.values or []), *[None] * len(found.metrics)][: len(found.metrics)]
        took = trial.duration.total_seconds() if trial.duration else None
        rows.append(
            [number, summary.status(trial), *values, *_settings(trial, found), took,
             _note(number, trial)]
        )  # fmt: skip
    more = f", the first {MOST} of {len(latest)}" if len(latest) > MOST else ""
    return f"Trials{more}", header, rows


def _note(number: int, trial: FrozenTrial) -> str:
    """Say what is special about a trial."""
    attempts = trial.user_attrs.get(trials.ATTEMPT, 0)
    notes = ["the recipe"] if number == 0 else []
    notes += [f"taken up {attempts} time{'s' * (attempts > 1)}"] if attempts else []
    return "; ".join([*notes, *filter(None, [trial.user_attrs.get(trials.ERROR)])])


def _searched(found: Definition) -> Table:
    rows = [
        *found.space.items(),
        *zip(found.metrics, found.modes, strict=True),
        *((name, f"at most {limit:g}") for name, limit in found.constraints.items()),
        ("study.seed", str(found.seed)),
        ("in every trial", shlex.join(found.overrides) or "the defaults"),
    ]
    return "Search", ["key", "values"], list(map(list, rows))


def _commands(
    study: Study, found: Definition, log_dir: str, address: str
) -> Iterator[tuple[str, str]]:
    folder = Path(log_dir) / "study" / study.study_name
    best = summary.ranked(study, found)[:1]
    for number, trial in best:
        try:
            recipe = Recipe(found.overrides, found.dimensions)
            command = summary.command(trial, number, recipe, found, log_dir)
        except InputError:  # the project has changed since
            continue
        yield "train the best for longer", command
    name = {"study.name": study.study_name, "log_dir": log_dir}
    if not address.startswith("sqlite"):  # the page may be shared: no password
        name["study.storage"] = masking.PASSWORD.sub(r"\1", address)
    yield "continue it", layout.command_line("study", **name)
    yield (
        "confirm the best with other seeds",
        layout.command_line("study", **name, **{"study.trials": "0", "study.confirm": "5"}),
    )
    yield "see its dashboards", f"tensorboard --logdir {shlex.quote(str(folder))}"
    if address.startswith("sqlite"):
        yield "browse its trials", f"optuna-dashboard {shlex.quote(address)}"
