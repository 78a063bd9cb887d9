"""Runs read back from their directories as plain data: nothing that stands in them is carried out.

Anybody may have written a run directory, so sizes are bounded and what is no plain value refused.
"""

import csv
import glob
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.kindling.errors import InputError, first_line, nearest, printable
from src.kindling.files import bounded, run_directory
from src.kindling.layout import Plain, flat
from src.kindling.results.tables import skipped

HISTORY = 2**26  # bytes of metrics.csv
METRICS = 1000  # names
LEVELS = 3  # of folders, as in logs/train/fizzbuzz/RUN


@dataclass(frozen=True)
class Run:
    """A run as its directory tells it.

    Attributes:
        path: the directory.
        config: config.yaml.
        record: run.json; empty where there is none.
        metrics: metrics.json, the final values; empty where there is none.
    """

    path: Path
    config: Plain
    record: Plain
    metrics: dict[str, float]

    @property
    def model(self) -> str:
        """The model's name in conf/model/: `fizzbuzz`."""
        return str(self.settings.get("model._target_", "?")).rpartition(".")[0].rpartition(".")[2]

    @property
    def seed(self) -> Any:
        """What all that is random in the run follows from."""
        return self.config.get("seed")

    @property
    def settings(self) -> Plain:
        """The configuration, flat: {"optimizer.lr": 0.01, ...}."""
        return flat(self.config)

    @property
    def status(self) -> str:
        """How it ended, or `running`."""
        return str(self.record.get("status", "unknown"))

    @property
    def unfit(self) -> str | None:
        """Why it has no final metrics to compare; None where it has."""
        if "checkpoint" in self.record:
            return "evaluations, which train nothing"
        if self.status != "finished":
            return self.status
        return None if self.metrics else "without metrics"


# Which runs -------------------------------------------------------------------------------------


def find(names: list[str], log_dir: str) -> list[Path]:
    """Return the run directories that names stand for, each once.

    Args:
        names: of each `latest`, a run directory, a folder of them, or a pattern (`logs/train/*`).
            None at all stands for all training runs.
        log_dir: where `latest` and all training runs are.

    Raises:
        InputError: a name stands for no run.
    """
    if not names:
        found = _below(Path(log_dir) / "train")
        if not found:
            raise InputError(f"{log_dir}: there is no run yet; `python -m src.train` makes one")
    else:
        found = [path for name in names for path in _named(name, log_dir)]
    once: dict[str, Path] = {}
    for path in found:
        once.setdefault(os.path.realpath(path), path)
    return list(once.values())


def _named(name: str, log_dir: str) -> list[Path]:
    if name == "latest" or "://" in name or len(name) > 4096 or os.path.isfile(name):
        return [run_directory.find(name, log_dir)]
    matches = [match for match in sorted(glob.glob(name)) if not os.path.islink(match)]
    if os.path.exists(os.path.join(name, "config.yaml")) or not (os.path.isdir(name) or matches):
        if glob.has_magic(name) and not os.path.exists(name):
            raise InputError(f"{name}: no run directory is found there")
        return [run_directory.find(name, log_dir)]
    found = [run for path in matches or [name] for run in _below(Path(path))]
    if not found:
        raise InputError(f"{name} is not a run directory, and holds none")
    return found


def _below(path: Path) -> list[Path]:
    """Return a run directory itself, or those in a folder, some levels below; by their names."""
    for level in range(LEVELS + 1):
        found = sorted(file.parent for file in path.glob("*/" * level + "config.yaml"))
        # Not through a link such as logs/latest, which would be there twice.
        if found := [run for run in found if level == 0 or not run.is_symlink()]:
            return found
    return []


# What stands in them ----------------------------------------------------------------------------


def read(path: Path) -> Run:
    """Read a run back.

    Raises:
        InputError: its config.yaml, run.json or metrics.json is not what a run writes.
    """
    config = bounded.read_config(path / "config.yaml")
    if not isinstance(config.get("model"), dict):
        raise InputError(f"{path}/config.yaml is no configuration of a run: it names no model")
    return Run(path, config, bounded.read_record(path), _metrics(path / "metrics.json"))


def _metrics(path: Path) -> dict[str, float]:
    content = bounded.read_json(path)
    fits = (
        isinstance(content, dict)
        and len(content) <= METRICS
        and all(name.isprintable() and len(name) < 100 for name in content)
        and all(value is None or type(value) in (int, float) for value in content.values())
    )
    if not fits:
        raise InputError(f"{path} does not hold a number for each metric")
    try:
        # null is a number that is none, which JSON cannot say otherwise.
        return {k: math.nan if v is None else float(v) for k, v in content.items()}
    except OverflowError:
        raise InputError(f"{path} holds a number that is too large") from None


def history(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Return steps and values of each metric in metrics.csv; of a step twice, the later value.

    Raises:
        InputError: the file is none that a run writes.
    """
    file = path / "metrics.csv"
    points: dict[str, dict[float, float]] = {}
    try:
        for row in csv.DictReader((bounded.read_text(file, HISTORY) or "").splitlines()):
            step = float(row.get("step") or math.nan)
            for name, value in row.items():
                if name and name not in ("step", "epoch") and value and math.isfinite(step):
                    points.setdefault(name, {})[step] = float(value)
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{file} is no history: {first_line(error)}") from None
    if len(points) > METRICS:
        raise InputError(f"{file} has more columns than a run would have written")
    ordered = {name: sorted(values.items()) for name, values in points.items()}
    return {name: ([s for s, _ in its], [v for _, v in its]) for name, its in ordered.items()}


# Which runs -------------------------------------------------------------------------------------


def chosen(plain: Plain) -> tuple[list[Run], list[str]]:
    """Return the runs that are asked for and have ended well, the oldest first.

    Returns:
        The runs, and a line for each reason why others are left out.

    Raises:
        InputError: no run is left, or a setting makes no sense.
    """
    names, last = plain["runs"], plain["last"]
    names = names if isinstance(names, list) else [names]
    if last is not None and (type(last) is not int or last < 1):
        raise InputError(f"last={last}: a positive whole number is needed")
    if plain["mode"] not in (None, "min", "max"):
        raise InputError(f"mode={plain['mode']}: choose min or max, what is best of the metric")
    found, reasons = read_all(find([str(name) for name in names], str(plain["log_dir"])))
    found = _of_model(found, plain["model"]) if plain["model"] else found
    without = _models_without(plain["metric"], found)
    for run in found:
        if reason := run.unfit or without.get(run.model):
            reasons.setdefault(reason, []).append(run.path)
    lines = [skipped(reason, paths) for reason, paths in reasons.items()]
    fit = sorted(
        (r for r in found if not (r.unfit or r.model in without)),
        key=lambda r: (str(r.record.get("start")), r.path),
    )
    if not fit:
        raise InputError(f"no run to compare: {'; '.join(lines)}")
    return fit[-last:] if last else fit, lines


def read_all(paths: list[Path]) -> tuple[list[Run], dict[str, list[Path]]]:
    """Return the runs that can be read, and by their reason those that cannot."""
    found: list[Run] = []
    unreadable: dict[str, list[Path]] = {}
    for path in paths:
        try:
            found.append(read(path))
        except InputError as error:
            if len(paths) == 1:
                raise
            reason = str(error).removeprefix(f"{path}/").removeprefix(str(path)).strip()
            unreadable.setdefault(printable(reason, 100), []).append(path)
    return found, unreadable


def _of_model(read: list[Run], model: Any) -> list[Run]:
    wanted = [str(name) for name in (model if isinstance(model, list) else [model])]
    known = sorted({run.model for run in read})
    for name in wanted:
        if name not in known:
            raise InputError(f"model={name}: none of these runs is of it{nearest(name, known)}")
    return [run for run in read if run.model in wanted]


def _models_without(metric: str | None, read: list[Run]) -> dict[str, str]:
    """Return the models of which no run has the metric that others have, and so as a reason."""
    known = sorted({name for run in read for name in run.metrics})
    if metric is None:
        return {}
    if metric not in known:
        raise InputError(f"metric={metric}: no run has it{nearest(str(metric), known)}")
    having = {run.model for run in read if metric in run.metrics}
    return {run.model: f"of a model without {metric}" for run in read if run.model not in having}
