"""Group runs by their settings, rank the settings, and test which of them differ.

Runs that differ only in their seed, or in their fold of a cross-validation, are one setting.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from src.kindling.layout import Plain, mode_of
from src.kindling.results.runs import Run
from src.kindling.results.significance import Difference, Summary, differences, summary
from src.kindling.results.tables import shown

FOLD = "data.fold"
IGNORED = ("log_dir", "resume", "seed", FOLD)  # these do not distinguish settings
DEVICE = re.compile(r"(\w+)(?:: .*)?, (\d+) process\(es\)")  # in run.json


@dataclass(frozen=True)
class Setting:
    """Runs that differ only in their seed and fold.

    Attributes:
        runs: one run per seed and fold.
        values: the settings that differ among the compared runs, by key.
        label: what distinguishes it from the defaults, as command-line overrides.
    """

    runs: list[Run]
    values: Plain
    label: str

    @property
    def folds(self) -> list[int]:
        """The number of folds of each seed; 1 without cross-validation."""
        return list(Counter(str(run.seed) for run in self.runs).values())

    def sample(self, metric: str) -> list[float]:
        """Return a metric of each seed that has it: its mean over the folds.

        Folds share rows: their values are not independent, and no test may count them one by one.
        Source: Bengio and Grandvalet, "No unbiased estimator of the variance of k-fold
        cross-validation" (2004).
        """
        return [float(np.mean(values)) for values in self._by_seed(metric)]

    def summary(self, metric: str) -> Summary | None:
        """Return the statistics of a metric over seeds; of one seed, the spread over its folds.

        None if no run has the metric.
        """
        values = self._by_seed(metric)
        if len(values) == 1 and len(values[0]) > 1:
            return replace(summary(values[0]), low=None, high=None)
        return summary(self.sample(metric)) if values else None

    def _by_seed(self, metric: str) -> list[list[float]]:
        found: dict[str, list[float]] = {}
        for run in self.runs:
            if metric in run.metrics:
                found.setdefault(str(run.seed), []).append(run.metrics[metric])
        return list(found.values())


@dataclass(frozen=True)
class Comparison:
    """The settings of one model, best first.

    Attributes:
        model: its name.
        metric: the metric that ranks the settings.
        mode: whether the lowest ("min") or the highest ("max") value is best.
        settings: the settings.
        defaults: values that most settings share, which labels omit, as overrides.
        differences: tests of all pairs of settings; their places are those in `settings`.
        repeated: runs that were left out because a newer one has the same settings, seed and fold.
    """

    model: str
    metric: str
    mode: str
    settings: list[Setting]
    defaults: str
    differences: list[Difference]
    repeated: list[Run]

    @property
    def runs(self) -> list[Run]:
        """All compared runs, those of the best setting first."""
        return [run for setting in self.settings for run in setting.runs]

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics: the one that ranks, then test, val, and the rest."""
        names = {name for run in self.runs for name in run.metrics} - {self.metric}
        order = {"test": 0, "val": 1}
        return [self.metric, *sorted(names, key=lambda n: (order.get(n.split("/")[0], 2), n))]

    @property
    def keys(self) -> list[str]:
        """The keys in which settings differ."""
        return list(dict.fromkeys(key for setting in self.settings for key in setting.values))

    @property
    def best(self) -> Run:
        """The best run of the best setting."""
        runs = self.settings[0].runs
        return min(runs, key=lambda run: _rank(run.metrics.get(self.metric), self.mode))

    def significantly_different(self, place: int) -> list[int]:
        """Return the places of the settings that differ significantly from the one at `place`."""
        pairs = [{d.first, d.second} for d in self.differences if d.significant]
        return sorted(other for pair in pairs if place in pair for other in pair - {place})


def compare(runs: Sequence[Run], metric: str | None = None, mode: str | None = None) -> Comparison:
    """Compare runs of one model.

    Args:
        runs: at least one run, the newest last.
        metric: the metric to rank by, which some run has; None for the checkpoint monitor.
        mode: "min" or "max"; None for the monitor's, or inferred from the metric's name.
    """
    grouped, repeated = _by_setting(runs)
    values = _differing([_settings(group[0]) for group in grouped])
    labels, defaults = _labels(values)
    settings = [Setting(*parts) for parts in zip(grouped, values, labels, strict=True)]
    metric, mode = _criterion(runs, metric, mode)

    def rank(setting: Setting) -> tuple[bool, float]:
        known = setting.summary(metric)
        return _rank(known.mean if known else None, mode)

    settings.sort(key=rank)
    found = differences([setting.sample(metric) for setting in settings])
    return Comparison(runs[0].model, metric, mode, settings, defaults, found, repeated)


def _rank(value: float | None, mode: str) -> tuple[bool, float]:
    """Return a sort key of a metric's value: best first, NaN and missing values last."""
    if value is None or math.isnan(value):
        return (True, 0.0)
    return (False, value if mode == "min" else -value)


# Settings ---------------------------------------------------------------------------------------


def _by_setting(runs: Sequence[Run]) -> tuple[list[list[Run]], list[Run]]:
    """Return runs by their settings, one per seed and fold, and those that repeat another's."""
    groups: dict[str, dict[str, Run]] = {}
    repeated = []
    for run in runs:
        group = groups.setdefault(repr(sorted(_settings(run).items())), {})
        if (same := f"{run.seed} {run.settings.get(FOLD)}") in group:
            repeated.append(group.pop(same))  # the newer one counts
        group[same] = run
    return [list(group.values()) for group in groups.values()], repeated


def _settings(run: Run) -> Plain:
    """Return a run's settings without its seed, and with the device that `auto` stood for."""
    settings = {
        key: "the run's" if key.endswith(".seed") and value == run.seed else value
        for key, value in run.settings.items()
        if key not in IGNORED
    }
    if found := DEVICE.fullmatch(str(run.record.get("device"))):
        device = {"trainer.accelerator": found[1], "trainer.devices": int(found[2])}
        single_node = settings.get("trainer.num_nodes") in (None, 1)
        settings |= {key: v for key, v in device.items() if key in settings and single_node}
    return settings


def _differing(settings: list[Plain]) -> list[Plain]:
    """Return from each of several settings the values that not all of them share."""
    keys = dict.fromkeys(key for values in settings for key in values)
    kept = [k for k in keys if len({repr(values.get(k, ...)) for values in settings}) > 1]
    return [{key: values[key] for key in kept if key in values} for values in settings]


def _labels(settings: list[Plain]) -> tuple[list[str], str]:
    """Return the overrides that distinguish each setting, and the shared defaults.

    A default is a value of more than half of the settings. Arguments of a chosen constructor that
    only some of the choices have are omitted: its name stands for them.
    """
    keys = dict.fromkeys(key for values in settings for key in values)
    chosen = {key.removesuffix("._target_") for key in keys if key.endswith("._target_")}
    shared = [k for k in keys if all(k in values for values in settings)]
    keys = dict.fromkeys(k for k in keys if k in shared or k.rpartition(".")[0] not in chosen)
    defaults: Plain = {}
    for key in keys:
        present = [values[key] for values in settings if key in values]
        [(most, count)] = Counter(map(repr, present)).most_common(1)
        if 2 * count > len(settings):
            defaults[key] = next(value for value in present if repr(value) == most)
    labels = [
        as_overrides({k: v for k, v in values.items() if k in keys and not _same(k, v, defaults)})
        for values in settings
    ]
    return labels, as_overrides(defaults)


def _same(key: str, value: Any, settings: Plain) -> bool:
    return key in settings and repr(settings[key]) == repr(value)


def as_overrides(settings: Plain) -> str:
    """Format settings as a command line does: `optimizer=AdamW optimizer.lr=0.01`."""
    words = []
    for key, value in settings.items():
        text = "null" if value is None else shown(value)
        name = key.removesuffix("._target_")
        words.append(f"{shown(name)}={text if name == key else text.rpartition('.')[2]}")
    return " ".join(words)


# The metric that ranks --------------------------------------------------------------------------


def _criterion(runs: Sequence[Run], metric: str | None, mode: str | None) -> tuple[str, str]:
    """Return the metric to rank by and its mode: by default those of most runs' checkpoints."""
    names = sorted({name for run in runs for name in run.metrics})
    monitors = [run.monitor(names) for run in runs]
    monitored, monitor_mode = max(monitors, key=monitors.count)
    if metric is None and monitored in names:
        metric = monitored
    elif metric is None:  # a metric that only the callback logged
        metric = next((n for n in ("val/loss", "train/loss") if n in names), names[0])
    inferred = monitor_mode if metric == monitored else mode_of(metric)
    return metric, mode or inferred or "max"
