"""Summarize a study: its progress, the best settings, and which settings mattered."""

import math
import shlex
import warnings

import optuna
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from src.kindling import layout
from src.kindling.studies import space, trials
from src.kindling.studies.definition import Definition
from src.kindling.studies.recipe import Recipe
from src.kindling.studies.space import Value
from src.kindling.studies.study import OpenStudy

SHOWN = 5  # of the best trials


def lines(opened: OpenStudy, log_dir: str) -> list[str]:
    """Return a summary of a study in a few lines."""
    study, definition = opened.study, opened.definition
    latest = trials.latest(study)
    found = [f"study {study.study_name}: {counts(latest)}"]
    best = ranked(study, definition)
    if not best:
        ended = any(trial.state == TrialState.COMPLETE for trial in latest.values())
        return [*found, f"no trial {'keeps study.constraints' if ended else 'is complete yet'}"]
    found += table(best[:SHOWN], definition)
    if shares := importances(study, definition):
        shown = ", ".join(f"{key} {value:.0%}" for key, value in shares.items())
        found.append(f"importance for {definition.metrics[0]}: {shown}")
    longer = command(best[0][1], best[0][0], opened.recipe, definition, log_dir)
    return [*found, "to train the best for longer:", f"  {longer}"]


def counts(latest: dict[int, FrozenTrial]) -> str:
    """Return how many trials there are, by how they ended: `9 trials: 6 complete, 3 pruned`."""
    states = sorted((trial.state, status(trial)) for trial in latest.values())
    told = [f"{states.count(found)} {found[1]}" for found in dict.fromkeys(states)]
    return f"{len(states)} trial{'s' * (len(states) != 1)}: {', '.join(told)}"


def status(trial: FrozenTrial) -> str:
    """Return how a trial has ended, or that it has not: complete, pruned, failed, running, ..."""
    return "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()


def ranked(study: Study, definition: Definition) -> list[tuple[int, FrozenTrial]]:
    """Return number and trial of the complete trials that meet the constraints, the best first.

    With several metrics, those that no other surpasses in all come first; then the first metric
    decides.
    """
    complete = [
        (number, trial)
        for number, trial in sorted(trials.latest(study).items())
        if trial.state == TrialState.COMPLETE and all(v <= 0 for v in trial.constraints.values())
    ]
    several = len(definition.metrics) > 1
    front = {trial.number for trial in study.best_trials} if several else set()
    sign = 1 if definition.modes[0] == "min" else -1

    def place(entry: tuple[int, FrozenTrial]) -> tuple[bool, bool, float]:
        value = entry[1].values[0]
        return entry[1].number not in front, not math.isfinite(value), sign * value

    return sorted(complete, key=place)


def table(entries: list[tuple[int, FrozenTrial]], definition: Definition) -> list[str]:
    """Return rows of number, metrics and settings, under their headings."""
    keys = list(definition.space)
    rows = [["trial", *definition.metrics, *keys]]
    for number, trial in entries:
        values = [f"{value:.6g}" for value in trial.values]
        absent = "recipe" if number == 0 else "-"
        drawn = [shown(trial.params[key]) if key in trial.params else absent for key in keys]
        rows.append([str(number), *values, *drawn])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]


def shown(value: Value) -> str:
    """Return a drawn value with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else space.text(value)


def importances(study: Study, definition: Definition) -> dict[str, float]:
    """Return the share of each key in the first metric's variation; empty where it is not known."""
    complete = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    if len(complete) < 4 or not definition.space:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = optuna.importance.get_param_importances(study, target=lambda t: t.values[0])
        except (ValueError, RuntimeError):  # no key is in all of them, or all values are the same
            return {}
    return found if any(found.values()) else {}


def overrides(trial: FrozenTrial, number: int, recipe: Recipe, definition: Definition) -> list[str]:
    """Return the overrides of src.train that repeat a trial."""
    drawn = [f"{key}={space.text(value)}" for key, value in trial.params.items()]
    place = number if definition.seeds == 1 else 0
    seed = [] if recipe.fixes_seed else [f"seed={definition.seed + place}"]
    return [*recipe.overrides, *drawn, *seed]


def command(
    trial: FrozenTrial, number: int, recipe: Recipe, definition: Definition, log_dir: str
) -> str:
    """Return the command that trains a trial's settings for twice as long."""
    words = overrides(trial, number, recipe, definition)
    epochs = recipe.settings(dict(trial.params))["trainer"]["max_epochs"]
    if isinstance(epochs, int) and epochs > 0 and "trainer.max_epochs" not in trial.params:
        words = [word for word in words if not word.startswith("trainer.max_epochs=")]
        words.append(f"trainer.max_epochs={2 * epochs}")
    return f"{layout.command_line('train', log_dir=log_dir)} {shlex.join(words)}"
