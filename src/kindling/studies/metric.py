"""Find out which metrics a run logs, and that a worker can train it, before a study starts."""

import copy
import io
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from src.kindling.errors import InputError, nearest
from src.kindling.layout import Plain
from src.kindling.studies.recipe import Recipe

# What is searched of these decides what a run logs, and whether a worker can train it.
KINDS = (
    "model|data|trainer|callbacks|logger|init_from|callbacks[.].*[.]monitor"
    "|trainer[.](accelerator|devices|num_nodes|strategy|precision)"
)
ONE_STEP = {
    "max_epochs": 1,
    "max_steps": -1,
    "min_epochs": None,
    "limit_train_batches": 1,
    "limit_val_batches": 1,
    "check_val_every_n_epoch": 1,
    "val_check_interval": None,
    "log_every_n_steps": 1,
    "profiler": None,
}


def check_names(key: str, names: list[str]) -> None:
    """Refuse metrics that are not of training or validation, and one that is named twice.

    Raises:
        InputError: naming the first.
    """
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InputError(f"{key}: {name} is named twice")
        if not re.fullmatch("(train|val)/.+", name):
            raise InputError(
                f"{key}={name}: choose settings by a metric of train/... or val/..., such as"
                " val/loss; test rows are for the end"
            )


def chosen(given: list[str], constraints: list[str], recipe: Recipe) -> list[str]:
    """Return the metrics that a study optimizes: those given, or else the model's own.

    Args:
        given: the metrics that the command line names.
        constraints: those that it limits.
        recipe: the settings of the study's runs, with the search space.

    Raises:
        InputError: a run with one of the options that are searched does not log one of them, or
            could not be trained by a worker.
    """
    found, probed = given, list[Plain]()
    for drawn in [{}, *recipe.samples()]:
        kind = {key: value for key, value in drawn.items() if re.fullmatch(KINDS, key)}
        if kind in probed:
            continue
        probed.append(kind)
        try:
            found = _checked(found, constraints, recipe, kind)
        except InputError as error:
            options = " ".join(f"{key}={value}" for key, value in kind.items())
            raise InputError(f"{error} (with {options})" if kind else str(error)) from error
    return found


def _checked(given: list[str], constraints: list[str], recipe: Recipe, drawn: Plain) -> list[str]:
    searched = [f"{dimension.key}={dimension.word}" for dimension in recipe.dimensions]
    monitor, there = logged(recipe.settings(drawn), [*recipe.overrides, *searched])
    found = given or [monitor if monitor in there else "train/loss"]
    for key, names in (("metric", found), ("constraints", constraints)):
        refuse_unlogged(f"study.{key}", names, there)
    return found


def refuse_unlogged(key: str, names: list[str], there: list[str]) -> None:
    """Refuse a metric that is not among those that a run logs.

    Raises:
        InputError: naming the key, the metric, and the nearest one.
    """
    for name in names:
        if name not in there:
            raise InputError(f"{key}={name}: no run logs it{nearest(name, there)}")


def logged(settings: Plain, overrides: list[str]) -> tuple[str, list[str]]:
    """Take one step of a run, in a folder that is then removed.

    Args:
        settings: the resolved configuration of the run.
        overrides: what the study and its search space change in it.

    Returns:
        The metric by which the run's best checkpoint is chosen, and the names that it logs.

    Raises:
        InputError: it could not be trained, or would launch further processes.
    """
    from src.kindling.build import build_trainer
    from src.kindling.training.run import check_one_process, prepare

    step = copy.deepcopy(settings) | {"logger": {}, "steps_per_execution": 1, "compile": False}
    step["trainer"] |= ONE_STEP
    kept = ("training_metrics",)
    step["callbacks"] = {k: v for k, v in settings["callbacks"].items() if k in kept}
    with (
        TemporaryDirectory(prefix="kindling-") as folder,
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        run = Path(folder, "study", "name", "trial-0000")  # loggers look at the folders above it
        built, _ = prepare(settings, overrides, run)
        check_one_process(built)
        trainer = build_trainer(step, Path(folder))
        trainer.fit(built.model, datamodule=built.data)
    told = settings["callbacks"].get("checkpointing", {}).get("monitor")
    monitor = str(told or getattr(built.model, "monitor", None) or "val/loss")
    names = [str(name) for name in trainer.callback_metrics]
    epochs, every = (settings["trainer"][key] for key in ("max_epochs", "check_val_every_n_epoch"))
    if epochs is not None and 0 <= epochs < (every or 1):  # a run that ends before its validation
        names = [name for name in names if not name.startswith("val/")]
    return monitor, sorted(names)
