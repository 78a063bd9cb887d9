"""Draw a study: its history, what mattered, slices, and parallel coordinates."""

import math
from collections.abc import Iterator
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from optuna import Study
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from src.kindling.chart import Chart, new_axes, set_legend, set_scale
from src.kindling.colors import BLUE, GRAY, VERMILION
from src.kindling.studies import trials
from src.kindling.studies.definition import Definition
from src.kindling.studies.space import Dimension
from src.kindling.studies.summary import importances, ranked, shown

BEST = 5  # trials that parallel coordinates highlight
Numbered = dict[int, FrozenTrial]


def charts(study: Study, definition: Definition) -> list[Chart]:
    """Draw the trials of a study that have a value; none without any."""
    numbered = {n: t for n, t in trials.latest(study).items() if _values(t)}
    best = [number for number, _ in ranked(study, definition)[:BEST]]
    if not numbered or not best:
        return []
    with matplotlib.rc_context({"text.parse_math": False}):  # a dollar in a name is a dollar
        return [
            *(_history(numbered, definition, i) for i in range(len(definition.metrics))),
            *_importances(importances(study, definition), definition.metrics[0]),
            *(_slice(numbered, best, d, definition.metrics[0]) for d in definition.dimensions),
            *_parallel(numbered, best, definition),
        ]


def _values(trial: FrozenTrial) -> list[float]:
    """Return the finite values of a trial; of a pruned one the last that it reported."""
    values = list(trial.values or []) if trial.state == TrialState.COMPLETE else []
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        values = [trial.intermediate_values[max(trial.intermediate_values)]]
    return values if all(math.isfinite(v) and abs(v) < 1e300 for v in values) else []


def _history(numbered: Numbered, definition: Definition, place: int) -> Chart:
    metric, mode = definition.metrics[place], definition.modes[place]
    complete = {n: _values(t)[place] for n, t in numbered.items() if _is_complete(t)}
    pruned = {n: _values(t)[0] for n, t in numbered.items() if not _is_complete(t)}
    figure, axes = new_axes(xlabel="trial", ylabel=metric)
    axes.plot([*complete], [*complete.values()], "o", color=BLUE, ms=4, label="complete")
    if pruned:
        axes.plot([*pruned], [*pruned.values()], "x", color=GRAY, ms=4, label="pruned")
    better = min if mode == "min" else max
    so_far = [better([*complete.values()][: i + 1]) for i in range(len(complete))]
    axes.step([*complete], so_far, where="post", color=VERMILION, label="best so far")
    set_scale(axes, [*complete.values(), *pruned.values()])
    set_legend(figure, columns=3)
    best = better(complete, key=lambda number: complete[number])
    return Chart(
        f"{metric} by trial",
        figure,
        f"{metric} by trial: {len(complete)} complete, {len(pruned)} pruned. Best:"
        f" {complete[best]:.4g}, trial {best}; first: {next(iter(complete.values())):.4g}.",
    )


def _is_complete(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.COMPLETE


def _importances(found: dict[str, float], metric: str) -> Iterator[Chart]:
    if not found:
        return
    figure, axes = new_axes(
        (4.6, max(1.6, 0.35 * len(found) + 0.8)), xlabel="share of the variation"
    )
    keys = list(reversed(found))
    axes.barh(keys, [found[key] for key in keys], color=BLUE)
    axes.grid(visible=False, axis="y")
    shares = ", ".join(f"{key} {share:.0%}" for key, share in found.items())
    yield Chart(f"importance for {metric}", figure, f"Importance for {metric}: {shares}.")


def _position(dimension: Dimension, trial: FrozenTrial) -> float | None:
    """Return where a trial is on the axis of a key: its number, or its place among the choices."""
    found: Any = dimension.distribution
    if dimension.key not in trial.params:
        return None
    value = trial.params[dimension.key]
    if isinstance(found, CategoricalDistribution):
        return float(found.choices.index(value)) if value in found.choices else None
    return float(value)


def _slice(numbered: Numbered, best: list[int], dimension: Dimension, metric: str) -> Chart:
    figure, axes = new_axes(xlabel=dimension.key, ylabel=metric)
    points = {
        n: (at, _values(t)[0])
        for n, t in numbered.items()
        if (at := _position(dimension, t)) is not None
    }
    for complete, marker, color in ((True, "o", BLUE), (False, "x", GRAY)):
        drawn = [p for n, p in points.items() if _is_complete(numbered[n]) == complete]
        axes.plot([x for x, _ in drawn], [y for _, y in drawn], marker, color=color, ms=4)
    if best[0] in points:
        axes.plot(*points[best[0]], "*", color=VERMILION, ms=12)
    _ticks(axes, dimension)
    if points:
        set_scale(axes, [value for _, value in points.values()])
    text = f"{metric} by {dimension.key}, {len(points)} trials."
    if best[0] in points:
        text += f" The best has {shown(numbered[best[0]].params[dimension.key])}."
    return Chart(f"{metric} by {dimension.key}", figure, text)


def _ticks(axes: Axes, dimension: Dimension) -> None:
    found: Any = dimension.distribution
    if isinstance(found, CategoricalDistribution):
        names = [shown(choice)[:16] for choice in found.choices]
        axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 4 else 0)
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif found.log:
        axes.set_xscale("log")
        axes.tick_params(axis="x", which="both", rotation=30, labelsize=8)


def _parallel(numbered: Numbered, best: list[int], definition: Definition) -> Iterator[Chart]:
    """Draw each complete trial as a line over the keys, scaled to 0..1, and the metric."""
    dimensions = definition.dimensions
    complete = {n: t for n, t in numbered.items() if _is_complete(t)}
    if len(complete) < 2 or len(dimensions) < 2:
        return
    metric = definition.metrics[0]
    figure, axes = new_axes((9.4, 3.6))
    values = [_values(t)[0] for t in complete.values()]
    low, span = min(values), (max(values) - min(values)) or 1.0
    for number in sorted(complete, key=lambda n: n in best):  # the best on top
        trial = complete[number]
        heights = [_height(d, trial) for d in dimensions] + [(_values(trial)[0] - low) / span]
        style: Any = {"color": GRAY, "alpha": 0.35, "lw": 1}
        if number in best:
            style = {"color": VERMILION if number == best[0] else BLUE, "lw": 2}
        axes.plot(range(len(heights)), heights, **style)
    names = [f"{d.key}\n{_range(d)}" for d in dimensions]
    names += [f"{metric}\n{low:.3g} to {max(values):.3g}"]
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_yticks([0, 1], ["low", "high"])
    told = [f"trial {n}: " + ", ".join(f"{k} {shown(v)}" for k, v in complete[n].params.items())
            for n in best if n in complete]  # fmt: skip
    title = f"the best {len(told)} among all complete trials"
    yield Chart(title, figure, f"Settings of the best, of {len(complete)}: {'; '.join(told)}.")


def _height(dimension: Dimension, trial: FrozenTrial) -> float:
    """Return a value's place between the lowest and the highest; NaN leaves a gap."""
    at = _position(dimension, trial)
    found: Any = dimension.distribution
    if at is None:
        return math.nan
    if isinstance(found, CategoricalDistribution):
        return at / max(1, len(found.choices) - 1)
    low, high, scale = found.low, found.high, math.log if found.log else float
    return (scale(at) - scale(low)) / ((scale(high) - scale(low)) or 1.0)


def _range(dimension: Dimension) -> str:
    first, *_, last = [*dimension.samples, dimension.samples[-1]]
    return f"{shown(first)} to {shown(last)}"
