"""Runs side by side: which settings they have, how good each is, and how sure that is.

Runs that differ in nothing but their seed are one setting.
"""

import ast
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from src.kindling.layout import CONF, Plain
from src.kindling.results.runs import Run
from src.kindling.results.significance import Difference, Summary, differences, summary
from src.kindling.results.tables import shown

# Where a run writes, and what it goes on from, make no other setting of it.
NO_SETTINGS = ("log_dir", "resume")
LESS_IS_BETTER = ("loss", "error", "mse", "mae", "rmse", "perplexity", "seconds")


@dataclass(frozen=True)
class Setting:
    """Runs that differ in nothing but their seed.

    Attributes:
        runs: the runs, one a seed.
        values: the settings that not all compared runs share, by their keys.
    """

    runs: list[Run]
    values: Plain

    def sample(self, metric: str) -> list[float]:
        """Return a metric of each run that has it."""
        return [run.metrics[metric] for run in self.runs if metric in run.metrics]

    def summary(self, metric: str) -> Summary | None:
        """Return what is known of a metric; None where no run has it."""
        sample = self.sample(metric)
        return summary(sample) if sample else None


@dataclass(frozen=True)
class Comparison:
    """The settings of one model, the best first.

    Attributes:
        model: its name.
        metric: what says which is best.
        mode: whether the least ("min") or the most ("max") of it is best.
        settings: the settings.
        differences: those of all pairs of settings that can be tested; places as in `settings`.
        repeated: runs that were left out because a newer one has the same settings and seed.
    """

    model: str
    metric: str
    mode: str
    settings: list[Setting]
    differences: list[Difference]
    repeated: list[Run]

    @property
    def runs(self) -> list[Run]:
        """All runs that are compared, those of the best setting first."""
        return [run for setting in self.settings for run in setting.runs]

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics: the one that decides, then test, val and the rest."""
        names = {name for run in self.runs for name in run.metrics} - {self.metric}
        order = {"test": 0, "val": 1}
        return [self.metric, *sorted(names, key=lambda n: (order.get(n.split("/")[0], 2), n))]

    @cached_property
    def keys(self) -> list[str]:
        """The keys in which settings differ."""
        return list(dict.fromkeys(key for setting in self.settings for key in setting.values))

    @cached_property
    def usual(self) -> Plain:
        """The values that more than half of the settings have, where settings differ."""
        found = {}
        for key in self._telling:
            values = [setting.values[key] for setting in self.settings if key in setting.values]
            [(most, count)] = Counter(map(repr, values)).most_common(1)
            if 2 * count > len(self.settings):
                found[key] = next(value for value in values if repr(value) == most)
        return found

    @cached_property
    def _telling(self) -> list[str]:
        """The keys in which settings differ, but for arguments that only some constructors have."""
        chosen = {key.rpartition(".")[0] for key in self.keys if key.endswith("._target_")}
        return [
            key
            for key in self.keys
            if key.rpartition(".")[0] not in chosen or all(key in s.values for s in self.settings)
        ]

    def words(self, setting: Setting) -> str:
        """Return what sets a setting apart from the usual, as its command line would."""
        usual, absent = self.usual, object()
        return as_overrides(
            {
                key: setting.values[key]
                for key in self._telling
                if key in setting.values and usual.get(key, absent) != setting.values[key]
            }
        )

    @property
    def best(self) -> Run:
        """The best run of the best setting."""
        return min(self.settings[0].runs, key=lambda run: self.rank(run.metrics.get(self.metric)))

    def rank(self, value: float | None) -> tuple[bool, float]:
        """Return what sorts a value of the metric: the best first, what is no number last."""
        return _rank(value, self.mode)

    def differs_from(self, place: int) -> list[int]:
        """Return the places of the settings that differ from one by more than chance."""
        pairs = [{d.first, d.second} for d in self.differences if d.significant]
        return sorted(other for pair in pairs if place in pair for other in pair - {place})


def compare(runs: Sequence[Run], metric: str | None = None, mode: str | None = None) -> Comparison:
    """Compare runs of one model.

    Args:
        runs: the runs, at least one, the newest last.
        metric: what says which is best, and some run has; None for what the checkpoints went by.
        mode: "min" or "max"; None for that of the checkpoints, or what the metric's name says.
    """
    groups, repeated = _groups(runs)
    values = _different(groups)
    settings = [Setting(group, its) for group, its in zip(groups, values, strict=True)]
    by, least_or_most = _criterion(runs, metric, mode)

    def rank(setting: Setting) -> tuple[bool, float]:
        known = setting.summary(by)
        return _rank(known.mean if known else None, least_or_most)

    settings.sort(key=rank)
    found = differences([setting.sample(by) for setting in settings])
    return Comparison(runs[0].model, by, least_or_most, settings, found, repeated)


def as_overrides(settings: Plain) -> str:
    """Return settings as a command line says them: `optimizer=AdamW optimizer.lr=0.01`."""
    return " ".join(
        f"{shown(key.removesuffix('._target_'))}={_value(key, value)}"
        for key, value in settings.items()
    )


def _value(key: str, value: Any) -> str:
    if key.endswith("._target_"):
        return shown(value).rpartition(".")[2]
    return "null" if value is None else shown(value)


def _rank(value: float | None, mode: str) -> tuple[bool, float]:
    if value is None or math.isnan(value):
        return (True, 0.0)
    return (False, value if mode == "min" else -value)


# Settings ---------------------------------------------------------------------------------------


def _groups(runs: Sequence[Run]) -> tuple[list[list[Run]], list[Run]]:
    """Return runs by their settings, one a seed, and those that repeat the seed of another."""
    groups: dict[str, dict[str, Run]] = {}
    repeated = []
    for run in runs:
        seeds = groups.setdefault(repr(sorted(_but_seed(run).items())), {})
        if str(run.seed) in seeds:
            repeated.append(seeds.pop(str(run.seed)))  # the newer one counts
        seeds[str(run.seed)] = run
    return [list(seeds.values()) for seeds in groups.values()], repeated


def _but_seed(run: Run) -> Plain:
    """Return what a run was set to, but for its seed and for what follows from that."""
    return {
        key: "the run's" if key.endswith(".seed") and value == run.seed else value
        for key, value in run.settings.items()
        if key not in (*NO_SETTINGS, "seed")
    }


def _different(groups: list[list[Run]]) -> list[Plain]:
    """Return for each group the settings that not all groups share."""
    flat = [_but_seed(group[0]) for group in groups]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    absent = object()
    told = [k for k in keys if len({repr(settings.get(k, absent)) for settings in flat}) > 1]
    return [{key: settings[key] for key in told if key in settings} for settings in flat]


# The metric that decides ------------------------------------------------------------------------


def _criterion(runs: Sequence[Run], metric: str | None, mode: str | None) -> tuple[str, str]:
    """Return the metric that says what is best, and whether the least or the most of it is."""
    names = sorted({name for run in runs for name in run.metrics})
    monitored = [_monitored(run, names) for run in runs]
    by, its_mode = max(monitored, key=monitored.count)
    if metric is None:
        if by not in names:  # such as a monitor that only the callback knew
            by, its_mode = next((n for n in ("val/loss", "train/loss") if n in names), names[0]), ""
    elif metric != by:
        by, its_mode = metric, ""
    return by, mode or its_mode or mode_of(by)


def mode_of(metric: str) -> str:
    """Return whether less ("min") or more ("max") of a metric is better, as its name has it."""
    words = metric.rpartition("/")[2].split("_")
    return "min" if set(words) & set(LESS_IS_BETTER) else "max"


def _monitored(run: Run, names: list[str]) -> tuple[str, str]:
    """Return the metric that said which checkpoint is best, and how."""
    settings = run.settings
    mode = str(settings.get("callbacks.checkpointing.mode", "min"))
    named = settings.get("callbacks.checkpointing.monitor") or _monitor_of(run.model)
    by = str(named) if named else "val/loss" if "val/loss" in names else "train/loss"
    return by, mode if mode in ("min", "max") else "min"


def _monitor_of(model: str) -> Any:
    """Return `monitor = ...` of this project's model of that name, without importing torch."""
    if model not in {path.stem for path in (CONF / "model").glob("*.yaml")}:
        return None
    source = CONF.parent / "src" / "models" / f"{model}.py"
    tree = ast.parse(source.read_text(encoding="utf-8")) if source.is_file() else ast.parse("")
    for node in ast.walk(tree):
        names = [t.id for t in getattr(node, "targets", []) if isinstance(t, ast.Name)]
        if isinstance(node, ast.Assign) and names == ["monitor"]:
            return getattr(node.value, "value", None)
    return None
