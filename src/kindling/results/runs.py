"""Find run directories and read them back as plain data; nothing in them is executed.

Anybody may have written a run directory: sizes are bounded, and only plain values are accepted.
"""

import glob
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.kindling.errors import InputError, nearest, printable
from src.kindling.files import bounded, run_directory, run_record
from src.kindling.layout import Plain, command_line, flat
from src.kindling.results import tables

METRICS = 1000  # names at most
LEVELS = 3  # folders above a run, as in logs/train/fizzbuzz/RUN


@dataclass(frozen=True)
class Run:
    """The contents of a run directory.

    Attributes:
        path: the directory.
        config: config.yaml.
        record: run.json; empty if there is none.
        metrics: metrics.json, the final values; empty if there is none.
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
        """The seed of everything random in the run."""
        return self.config.get("seed")

    @property
    def settings(self) -> Plain:
        """The configuration, flat: {"optimizer.lr": 0.01, ...}."""
        return flat(self.config)

    @property
    def status(self) -> str:
        """The outcome, or `running`; `killed` if no end was recorded."""
        return run_record.status(self.path, self.record)

    @property
    def unfit(self) -> str | None:
        """The reason why the run cannot be compared; None if it can."""
        if "checkpoint" in self.record:
            return "evaluations, not training runs"
        if self.status != "finished":
            return self.status
        return None if self.metrics else "without metrics"

    def monitor(self, names: list[str]) -> tuple[str, str]:
        """Return the metric, of these, that the run selected checkpoints by, and its mode.

        Both are in run.json. For older runs they come from the configuration, or else are val/loss,
        or train/loss without validation.
        """
        found, recorded = self.settings, self.record.get("monitor", {})
        metric = recorded.get("metric") or found.get("callbacks.checkpointing.monitor")
        mode = recorded.get("mode") or found.get("callbacks.checkpointing.mode")
        default = "val/loss" if "val/loss" in names else "train/loss"
        return str(metric or default), mode if mode in ("min", "max") else "min"


# Finding ----------------------------------------------------------------------------------------


def find(names: list[str], log_dir: str) -> list[Path]:
    """Return the run directories that names refer to, each once.

    Args:
        names: each of them `latest`, a run directory, a folder of runs, or a glob pattern
            (`logs/train/*`). No names: all training runs.
        log_dir: the folder of `latest` and all training runs.

    Raises:
        InputError: a name refers to no run.
    """
    if not names:
        found = _below(Path(log_dir) / "train")
        if not found:
            train = command_line("train", log_dir=log_dir)
            raise InputError(f"{log_dir}: there is no run yet; `{train}` makes one")
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
            raise InputError(f"{name}: no run directory matches this pattern")
        return [run_directory.find(name, log_dir)]
    found = [run for path in matches or [name] for run in _below(Path(path))]
    if not found:
        raise InputError(f"{name}: neither a run directory nor a folder of them")
    return found


def _below(path: Path) -> list[Path]:
    """Return the path itself if it is a run directory, or those up to `LEVELS` below, by name."""
    for level in range(LEVELS + 1):
        found = sorted(file.parent for file in path.glob("*/" * level + "config.yaml"))
        # Not through a link such as logs/latest, which would list a run twice.
        if found := [run for run in found if level == 0 or not run.is_symlink()]:
            return found
    return []


# Reading ----------------------------------------------------------------------------------------


def read(path: Path) -> Run:
    """Read a run directory.

    Raises:
        InputError: its config.yaml, run.json or metrics.json is not what a run writes, or it holds
            a link, a pipe or a device.
    """
    run_directory.check_parts(path)
    config = bounded.read_config(path / "config.yaml")
    if not isinstance(config.get("model"), dict):
        raise InputError(f"{path}/config.yaml is not the configuration of a run: it names no model")
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
        # null stands for NaN or infinity, which JSON lacks.
        return {k: math.nan if v is None else float(v) for k, v in content.items()}
    except OverflowError:
        raise InputError(f"{path} holds an integer too large for a float") from None


# Selecting --------------------------------------------------------------------------------------


def select(settings: Plain) -> tuple[list[Run], list[str]]:
    """Return the finished runs that `compare` was asked for, oldest first.

    Args:
        settings: `runs`, `log_dir`, `model`, `metric`, `mode`, and `last`, as in conf/compare.yaml.

    Returns:
        The runs, and one line per reason why others are skipped.

    Raises:
        InputError: no run is left, or a setting is invalid.
    """
    names, last, metric = settings["runs"], settings["last"], settings["metric"]
    names = names if isinstance(names, list) else [names]
    if last is not None and (type(last) is not int or last < 1):
        raise InputError(f"last={last}: must be a positive integer")
    if settings["mode"] not in (None, "min", "max"):
        raise InputError(f"mode={settings['mode']}: choose min or max")
    found, skipped = read_all(find([str(name) for name in names], str(settings["log_dir"])))
    found = _of_model(found, settings["model"]) if settings["model"] else found
    having = _models_with(metric, found)
    kept = []
    for run in found:
        if reason := run.unfit or (None if run.model in having else f"of a model without {metric}"):
            skipped.setdefault(reason, []).append(run.path)
        else:
            kept.append(run)
    lines = [tables.skipped(reason, paths) for reason, paths in skipped.items()]
    if not kept:
        raise InputError(f"no run to compare: {'; '.join(lines)}")
    kept.sort(key=lambda run: run_record.started(run.path))
    return kept[-last:] if last else kept, lines


def read_all(paths: list[Path]) -> tuple[list[Run], dict[str, list[Path]]]:
    """Return the runs that can be read, and the others by their reason.

    Raises:
        InputError: the only run cannot be read.
    """
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


def _of_model(runs: list[Run], model: Any) -> list[Run]:
    wanted = [str(name) for name in (model if isinstance(model, list) else [model])]
    known = sorted({run.model for run in runs})
    for name in wanted:
        if name not in known:
            raise InputError(f"model={name}: no run of this model{nearest(name, known)}")
    return [run for run in runs if run.model in wanted]


def _models_with(metric: str | None, runs: list[Run]) -> set[str]:
    """Return the models with a run that has the metric; all models if it is None.

    Raises:
        InputError: no run has it.
    """
    known = sorted({name for run in runs for name in run.metrics})
    if metric is not None and metric not in known:
        raise InputError(f"metric={metric}: no run has it{nearest(str(metric), known)}")
    return {run.model for run in runs if metric is None or metric in run.metrics}
