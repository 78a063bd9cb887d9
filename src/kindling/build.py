"""Build the data, model and trainer that a configuration describes."""

import importlib
import inspect
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, get_object
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, Checkpoint, LearningRateFinder
from lightning.pytorch.utilities.model_helpers import is_overridden

from src.kindling import factories
from src.kindling.callbacks.epoch_logs import EpochLogs
from src.kindling.callbacks.monitors import Monitors
from src.kindling.callbacks.own_checkpoints import OwnCheckpoints
from src.kindling.config import masking
from src.kindling.config.hydra_calls import instantiate
from src.kindling.errors import InputError, first_line
from src.kindling.files.checkpoint import on_meta_device
from src.kindling.files.stored_config import ConfiguredCheckpointIO
from src.kindling.layout import Plain, install_extra
from src.kindling.process import garbage, ranks
from src.kindling.process.devices import check_device
from src.kindling.process.memory import keep_freed_memory, total_memory
from src.kindling.process.quiet import quiet_lightning
from src.kindling.process.seeding import Seeding
from src.kindling.process.unprofiled import Unprofiled
from src.kindling.repeatable import make_repeatable, make_resumable
from src.kindling.tracking import forgiven

LOADERS = [f"{stage}_dataloader" for stage in ("train", "val", "test", "predict")]
SPEED = f"{__package__}.speed"
FINDERS = (BatchSizeFinder, LearningRateFinder)  # which call `fit` inside the fit
FOUND = "config.yaml does not show the value it finds, and a resumed run searches again and differs"
LARGE = 10_000  # layers at least this wide trigger a memory estimate


@dataclass
class Experiment:
    """The data, model and trainer of a configuration."""

    config: Plain
    data: Any
    model: Any
    trainer: pl.Trainer


def build(settings: Plain, run: Path, callbacks: Sequence[Callback] = ()) -> Experiment:
    """Build data, model and trainer for a run that will keep its files in `run`.

    Nothing is written: a run directory is made once this has succeeded. The callbacks are called
    before those of the configuration.

    Raises:
        InputError: something in the configuration cannot be built; the message says what.
    """
    garbage.resume_gc()
    quiet_lightning()
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    keep_freed_memory()
    _check_memory(settings)
    data, model = build_pair(settings)
    trainer = build_trainer(settings, run, callbacks)
    return Experiment(settings, data, model, trainer)


def _check_memory(settings: Plain) -> None:
    """Refuse a model whose weights and gradients do not fit in memory, before it is built."""
    sizes = {key: value for key, value in settings["model"].items() if isinstance(value, int)}
    for key, value in sizes.items():
        if abs(value) >= 2**63:
            raise InputError(f"model.{key}={value}: too large for any tensor")
    if max(sizes.values(), default=0) < LARGE:
        return
    outline = on_meta_device(lambda: build_model(settings))
    weights = list(outline.parameters()) if outline else []
    needed, there = 2 * sum(w.numel() * w.element_size() for w in weights), total_memory()
    if needed > there:
        raise InputError(
            f"model: its weights and their gradients take {needed / 1e9:,.0f} GB of memory;"
            f" this machine has {there / 1e9:,.0f}"
        )


def build_pair(settings: Plain) -> tuple[Any, Any]:
    """Build the DataModule and the LightningModule, and check that they match."""
    data, model = build_data(settings), build_model(settings)
    check_shapes(data, model)
    for name in LOADERS:  # Lightning asks the data alone
        if is_overridden(name, model) and not is_overridden(name, data):
            setattr(data, name, getattr(model, name))
    shares = settings["trainer"].get("use_distributed_sampler", True)
    make_resumable(data, settings["seed"], shares)
    return data, model


def build_data(settings: Plain) -> Any:
    """Build the DataModule, whose constructor may draw random numbers, and seed all generators."""
    pl.seed_everything(settings["seed"], workers=True, verbose=False)
    with errors_from("data"):
        data = instantiate(settings["data"])
    make_repeatable(data, settings["seed"])
    return data


def build_model(settings: Plain) -> Any:
    """Build the LightningModule; its constructor gets the factories that it has a parameter for."""
    with errors_from("model"):
        groups = factories.taken_by(get_class(settings["model"]["_target_"]))
        made = {group: instantiate(settings[group]) for group in groups}
        model = instantiate(settings["model"], **made)
    _check_factories(model, made, settings["trainer"])
    return model


def _check_factories(model: Any, made: Plain, limits: Plain) -> None:
    """Call the factories once, so that a wrong value is reported before a run directory exists."""
    parameters = list(model.parameters())
    if "optimizer" not in made or not parameters:  # layers may be made in configure_model
        return
    with errors_from("optimizer"):
        optimizer = made["optimizer"](parameters)
    if "scheduler" in made:
        endless = limits["max_epochs"] == limits["max_steps"] == -1
        with errors_from("scheduler"):
            made["scheduler"](optimizer, None if endless else 100)


def check_shapes(data: Any, model: Any) -> None:
    """Compare `in_features`, `out_features` and `target`, each where model and data declare it.

    Raises:
        InputError: the two differ.
    """
    for name in ("in_features", "out_features", "target"):
        takes, gives = getattr(model, name, None), getattr(data, name, None)
        if takes != gives and takes is not None and gives is not None:
            raise InputError(
                f"model={stem(model)} takes {name} {takes}, data={stem(data)} gives {gives}"
            )


def build_trainer(settings: Plain, run: Path, callbacks: Sequence[Callback] = ()) -> pl.Trainer:
    """Build the Trainer, with its loggers and callbacks."""
    options = settings["trainer"]
    profiler = {} if options.get("profiler") else {"profiler": Unprofiled()}
    with errors_from("logger"):
        loggers = [build_logger(node, run) for node in _nodes(settings, "logger").values()]
    with errors_from("callbacks"):
        named = instantiate(_nodes(settings, "callbacks"))
    installed = [Seeding(settings["seed"]), EpochLogs(), OwnCheckpoints()]
    if os.path.isdir(run):  # a ModelCheckpoint of the user's own continues in a run that is resumed
        warnings.filterwarnings("ignore", message=f"Checkpoint directory {re.escape(str(run))}.*")
    with errors_from("trainer"):
        check_device(*(options[key] for key in ("accelerator", "devices", "precision")))
        trainer: pl.Trainer = instantiate(
            options,
            default_root_dir=os.path.join(".", run),  # not the home of a leading `~`
            logger=loggers or False,
            **profiler,
            callbacks=[*callbacks, Monitors(named), *named.values(), *installed],
            plugins=[ConfiguredCheckpointIO(masking.masked(settings))],
            enable_progress_bar="progress" in named,
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in named.values()),
        )
    if finders := [type(c).__name__ for c in named.values() if isinstance(c, FINDERS)]:
        if ranks.number() == 0:
            print(f"warning: {', '.join(finders)}: {FOUND}", file=sys.stderr)
    elif settings["steps_per_execution"] > 1 or settings["compile"]:
        _speed_up(trainer, settings)
    return trainer


def _nodes(settings: Plain, group: str) -> Plain:
    """Return what a group builds; with `callbacks=none`, an experiment's own values are left."""
    return {name: node for name, node in settings[group].items() if node and "_target_" in node}


def build_logger(node: Plain, run: Path) -> Any:
    """Build a logger of a run, which gets the run directory if it takes a `save_dir`.

    Raises:
        InputError: it cannot log (not logged in, no server).
    """
    takes = inspect.signature(get_object(node["_target_"])).parameters
    known = {"save_dir": str(run)} if "save_dir" in takes and "save_dir" not in node else {}
    logger = forgiven(instantiate(node, **known))
    if hasattr(logger, "check") and not ranks.is_launched():
        logger.check()
    return logger


def _speed_up(trainer: pl.Trainer, settings: Plain) -> None:
    """Let the Trainer take several steps per call: the one way into src/kindling/speed."""
    if find_spec(SPEED) is None:
        if ranks.number() == 0:
            place = SPEED.replace(".", "/")
            print(f"{place} is not there: one step per call, the same weights")
        return
    install = importlib.import_module(f"{SPEED}.install")
    install.install(trainer, settings["steps_per_execution"], compiles=settings["compile"])


@contextmanager
def errors_from(group: str) -> Iterator[None]:
    """Turn what a constructor raises into one line that names the group."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        cause = cause or error
        if isinstance(cause, ModuleNotFoundError):
            raise InputError(f"{group}: {_missing_package(cause)}") from error
        reason = re.sub(r"^(['\"])(.*)\1$", r"\2", " ".join(first_line(cause).split()))
        raise InputError(f"{group}: {reason}") from error


def _missing_package(error: ModuleNotFoundError) -> str:
    extra = next((name for name in ("wandb", "mlflow", "dvclive") if name in str(error)), None)
    if extra is None:
        return str(error)
    return f"{extra} is not installed; {install_extra(extra)} installs it"


def stem(module: Any) -> str:
    """Return the file name that a model or data set has in src/ and conf/: `fizzbuzz`."""
    return type(module).__module__.rpartition(".")[2]
