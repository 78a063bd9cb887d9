"""Find out which metrics a run logs, from one step, before a study starts."""

import copy
import io
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from src.kindling.errors import InputError, nearest
from src.kindling.layout import Plain

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


def chosen(given: list[str], constraints: list[str], recipe: Plain) -> list[str]:
    """Return the metrics that a study optimizes: those given, or else the model's own.

    Args:
        given: the metrics that the command line names.
        constraints: those that it limits.
        recipe: the resolved configuration of the study's runs.

    Raises:
        InputError: no run logs one of them.
    """
    monitor, there = logged(recipe)
    for name in [*given, *constraints]:
        if name not in there:
            raise InputError(f"study.metric={name}: no run logs it{nearest(name, there)}")
    return given or [monitor if monitor in there else "train/loss"]


def logged(recipe: Plain) -> tuple[str, list[str]]:
    """Take one step of a run, in a folder that is then removed.

    Returns:
        The metric by which the run's best checkpoint is chosen, and the names that it logs.

    Raises:
        InputError: the run would launch further processes.
    """
    from src.kindling import build
    from src.kindling.training.run import check_one_process

    settings = copy.deepcopy(recipe) | {"logger": {}, "steps_per_execution": 1, "compile": False}
    settings["trainer"] |= ONE_STEP
    kept = ("training_metrics",)
    settings["callbacks"] = {k: v for k, v in recipe["callbacks"].items() if k in kept}
    with (
        TemporaryDirectory(prefix="kindling-") as folder,
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        built = build.build(settings, Path(folder))
        check_one_process(built)
        built.trainer.fit(built.model, datamodule=built.data)
    told = recipe["callbacks"].get("checkpointing", {}).get("monitor")
    monitor = str(told or getattr(built.model, "monitor", None) or "val/loss")
    names = [str(name) for name in built.trainer.callback_metrics]
    epochs, every = (recipe["trainer"][key] for key in ("max_epochs", "check_val_every_n_epoch"))
    if epochs is not None and 0 <= epochs < (every or 1):  # a run that ends before its validation
        names = [name for name in names if not name.startswith("val/")]
    return monitor, sorted(names)
