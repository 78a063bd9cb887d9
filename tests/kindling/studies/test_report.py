"""The page about a study: its tables, charts with their words, and commands."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from src.kindling.studies import charts, definition, report, trials
from src.kindling.studies.definition import Definition
from src.kindling.studies.report import read
from src.kindling.studies.storage import opened
from src.kindling.studies.study import quiet_optuna
from tests.kindling.conftest import Command

pytest.importorskip("src.kindling.results", reason="src/kindling/results was deleted")
SPACE = {
    "optimizer": "choice(sgd,momentum)",
    "optimizer.lr": "tag(log, interval(1e-3, 1.0))",
    "optimizer.momentum": "interval(0, 0.9)",
}
DRAWN = {
    "optimizer": CategoricalDistribution(("sgd", "momentum")),
    "optimizer.lr": FloatDistribution(1e-3, 1.0, log=True),
    "optimizer.momentum": FloatDistribution(0, 0.9),
}


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a study with trials of every kind."""
    quiet_optuna()
    log_dir = tmp_path_factory.mktemp("logs")
    folder = log_dir / "study" / "kinds"
    folder.mkdir(parents=True)
    storage = opened(f"sqlite:///{folder}/study.db", folder, 60)
    found = Definition(["model=line"], SPACE, ["val/loss"], ["min"], 0, {})
    study = definition.create("kinds", storage, found)
    for number in range(6):
        values = {
            "optimizer": "momentum" if number % 2 else "sgd",
            "optimizer.lr": 0.01 * 2**number,
        }
        values |= {"optimizer.momentum": 0.1 * number} if number % 2 else {}
        add(study, "COMPLETE", values, 1 / (number + 1))
    add(study, "PRUNED", {"optimizer": "sgd", "optimizer.lr": 0.5}, None, {1: 7.0, 2: 5.0})
    add(study, "FAIL", {"optimizer": "sgd", "optimizer.lr": 0.7}, None, {}, error="<b>NaN</b> $x$")
    add(study, "COMPLETE", {"optimizer": "sgd", "optimizer.lr": 0.9}, float("inf"))
    storage.engine.dispose()
    return log_dir


def add(
    study: Any, state: str, values: Any, value: Any, reports: Any = None, error: str | None = None
) -> None:
    """Add a trial to a study."""
    study.add_trial(
        optuna.create_trial(
            state=optuna.trial.TrialState[state],
            params=values,
            distributions={key: DRAWN[key] for key in values},
            value=value,
            intermediate_values=reports or {},
            user_attrs={trials.ERROR: error} if error else {},
        )
    )


@pytest.mark.usefixtures("composing")
def test_tables_have_the_best_first_and_every_trial(log_dir: Path) -> None:
    study = read("kinds", str(log_dir))
    assert study.state == "9 trials: 7 complete, 1 pruned, 1 failed"
    best, every, searched = ({row[0]: row for row in rows} for _, _, rows in study.tables)
    assert list(best) == [5, 4, 3, 2, 1]
    assert [row[1] for row in every.values()].count("complete") == 7
    assert every[7][-1] == "<b>NaN</b> $x$"
    assert every[0][-1] == "the recipe"
    assert searched["optimizer.lr"][1] == SPACE["optimizer.lr"]
    commands = dict(study.commands)
    assert "optimizer.momentum=0.5" in commands["train the best for longer"]
    assert " study.name=kinds " in commands["continue it"]


@pytest.mark.usefixtures("composing")
def test_charts_say_in_words_what_they_draw(log_dir: Path) -> None:
    drawn = {chart.title: chart.text for chart in read("kinds", str(log_dir)).charts}
    history = "6 complete, 1 pruned. Best: 0.1667, trial 5; first: 1."
    assert drawn["val/loss by trial"].endswith(history)  # without the one that is infinite
    assert drawn["importance for val/loss"].startswith("Importance for val/loss: optimizer")
    assert drawn["val/loss by optimizer"].endswith("7 trials. The best has momentum.")
    assert drawn["val/loss by optimizer.momentum"].startswith("val/loss by optimizer.momentum, 3")
    assert "trial 5: optimizer momentum, optimizer.lr 0.32" in drawn[
        "the best 5 among all complete trials"
    ]  # fmt: skip


def test_a_study_without_a_complete_trial_has_no_charts() -> None:
    found = Definition([], SPACE, ["val/loss"], ["min"], 0, {})
    assert charts.charts(optuna.create_study(), found) == []


def test_the_page_is_one_file_that_runs_nothing(log_dir: Path) -> None:
    printed = Command(log_dir).here("report", "study=kinds")
    path = log_dir / "study" / "kinds" / "report.html"
    assert printed == f"report of study kinds: {path}\n"
    page = path.read_text()
    assert "&lt;b&gt;NaN&lt;/b&gt; $x$" in page
    assert page.count("<img ") == page.count("data:image/svg+xml;base64,") == 6
    assert "<script" not in page


@pytest.mark.usefixtures("composing")
def test_the_commands_on_a_page_hold_no_password(log_dir: Path, monkeypatch: Any) -> None:
    place = f"sqlite:///{log_dir}/study/kinds/study.db"
    monkeypatch.setattr(report, "existing", lambda name, url, folder: load(place, name))
    study = read("kinds", str(log_dir), "postgresql://me:word@host/base")
    lines = [command for _, command in study.commands if "study.storage=" in command]
    assert len(lines) == 2
    assert all("postgresql://me@host/base" in line for line in lines)


def load(url: str, name: str) -> Any:
    """Return a study of Optuna's own storage."""
    return optuna.load_study(study_name=name, storage=url)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["study=kind"], "study=kind: there is no such study in {}/study: did you mean 'kinds'?"),
        (["study=../../etc"], "study=../../etc: use letters, digits, '-', '_' and '.'"),
        (["study=kinds", "storage=mysql://x"], "storage=mysql://x: choose null (SQLite) or"),
    ],
)
def test_a_mistake_gets_one_line(log_dir: Path, words: list[str], line: str) -> None:
    done = Command(log_dir)("report", *words, status=2)
    assert line.format(log_dir) in done.stderr
    assert done.stderr.count("\n") == 1
