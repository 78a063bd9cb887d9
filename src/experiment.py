"""From a configuration to what it describes, built, run and written down: the one builder."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Checkpoint

from src import allocation, checkpoint_io, config, imports, loops, trust
from src.config import InputError, Plain

LARGE = 10_000  # the size of a layer from which on a model's memory is reckoned before it is made
OF_CLUSTERS = ("MASTER_ADDR", "SLURM_", "TORCHELASTIC_", "LSB_", "PBS_", "KUBERNETES_")
FOR_GPUS = ("16", "16-mixed")  # precisions that the CPU does not have


@dataclass
class Experiment:
    """What a configuration describes."""

    config: Plain
    data: Any
    model: Any
    trainer: pl.Trainer


def build(settings: Plain, run: Path) -> Experiment:
    """Build data, model and trainer for a run that will keep its files in `run`.

    Nothing is written: a run directory is made once this has succeeded.

    Raises:
        InputError: something in the configuration cannot be built; the message says what.
    """
    imports.settled()
    quiet_lightning()
    pl.seed_everything(settings["seed"], workers=True, verbose=False)
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    allocation.keep_freed_memory()
    _check_memory(settings)
    data, model = build_data(settings), build_model(settings)
    check_match(data, model)
    trainer = build_trainer(settings, model, data, run)
    return Experiment(settings, data, model, trainer)


def _check_memory(settings: Plain) -> None:
    """Refuse a model whose weights and gradients would not fit into memory, before they are made.

    Raises:
        InputError: saying how much is needed.
    """
    sizes = {key: value for key, value in settings["model"].items() if isinstance(value, int)}
    for key, value in sizes.items():
        if abs(value) >= 2**63:
            raise InputError(f"model.{key}={value}: no tensor has such a size")
    if max(sizes.values(), default=0) < LARGE:
        return
    outline = checkpoint_io.outline(lambda: build_model(settings))
    weights = list(outline.parameters()) if outline else []
    needed, there = 2 * sum(w.numel() * w.element_size() for w in weights), trust.memory()
    if needed > there:
        raise InputError(
            f"model: its weights and their gradients take {needed / 1e9:,.0f} GB of memory;"
            f" there are {there / 1e9:,.0f}"
        )


def build_data(settings: Plain) -> Any:
    """Build the DataModule."""
    with _blamed_on("data"):
        data = instantiate(settings["data"], _convert_="all")
        data.check_memory()
    return data


def build_model(settings: Plain) -> Any:
    """Build the LightningModule with its optimizer and schedule."""
    with _blamed_on("model"):
        model = instantiate(
            settings["model"],
            optimizer=instantiate(settings["optimizer"], _convert_="all"),
            scheduler=instantiate(settings["scheduler"], _convert_="all"),
            _convert_="all",
        )
    with _blamed_on("optimizer"):  # tried now, so that a wrong value costs no run directory
        optimizer = model.optimizer_factory(model.parameters())
    with _blamed_on("scheduler"):
        limits = settings["trainer"]["max_epochs"], settings["trainer"]["max_steps"]
        model.scheduler_factory(optimizer, None if limits == (-1, -1) else 100)
    model.config, model.seed = settings, settings["seed"]
    return model


def check_match(data: Any, model: Any) -> None:
    """Compare what the model takes with what the data gives.

    Raises:
        InputError: they do not go together.
    """
    for name in ("in_features", "out_features", "target"):
        takes, gives = getattr(model, name), getattr(data, name)
        if takes != gives:
            raise InputError(
                f"model={stem(model)} takes {name} {takes}, data={stem(data)} gives {gives}"
            )


def build_trainer(settings: Plain, model: Any, data: Any, run: Path) -> pl.Trainer:
    """Build the Trainer; with several steps an execution, the model does part of its work."""
    options = dict(settings["trainer"])
    model.execution.compile = settings["compile"] and _can_compile(options, data)
    if settings["steps_per_execution"] > 1 or model.execution.compile:
        _take_over_steps(settings["steps_per_execution"], options, model, data)
    with _blamed_on("logger"):
        loggers = [
            instantiate(node, save_dir=str(run), _convert_="all")
            for node in settings["logger"].values()
        ]
    with _blamed_on("callbacks"):
        callbacks = [instantiate(node, _convert_="all") for node in settings["callbacks"].values()]
    with _blamed_on("trainer"):
        _check_device(
            *(options[key] for key in ("accelerator", "devices", "precision", "num_nodes"))
        )
        trainer: pl.Trainer = instantiate(
            options,
            default_root_dir=str(run),
            logger=loggers or False,
            callbacks=callbacks,
            plugins=[checkpoint_io.AtomicCheckpointIO()],
            enable_progress_bar="progress" in settings["callbacks"],
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
            _convert_="all",
        )
    loops.install(trainer)
    return trainer


def _can_compile(options: Plain, data: Any) -> bool:
    """Say whether a step's batches will come together; in one line, if they will not."""
    own_loaders = type(data).train_dataloader.__module__ != "src.data.base"
    if own_loaders and options["accumulate_grad_batches"] > 1:
        print(
            "warning: compile=true: accumulate_grad_batches is not compiled: this data's own loader"
            " yields one batch at a time; these steps run eagerly",
            file=sys.stderr,
        )
        return False
    return True


def _take_over_steps(steps: int, options: Plain, model: Any, data: Any) -> None:
    """Give the model what Lightning does around a step, and the data what it counts in batches.

    Raises:
        InputError: a validation is to start amid an execution.
    """
    model.automatic_optimization = False
    execution = model.execution
    execution.steps = steps
    execution.accumulate = options.pop("accumulate_grad_batches")
    execution.clip_val = options.pop("gradient_clip_val")
    execution.clip_algorithm = options.pop("gradient_clip_algorithm")
    if execution.clip_algorithm not in ("norm", "value"):
        raise InputError(
            f"trainer.gradient_clip_algorithm={execution.clip_algorithm}: must be norm or value"
        )
    data.group = steps * execution.accumulate
    data.limit_train_batches = options.pop("limit_train_batches")
    if options["overfit_batches"]:
        data.limit_train_batches = options["overfit_batches"]
    if isinstance(interval := options["val_check_interval"], int):
        batches = _batches_of_an_execution(data)
        if interval % batches:
            raise InputError(
                f"trainer.val_check_interval={interval} is no multiple of the {batches} batches"
                f" of an execution (steps_per_execution={steps})"
            )
        options["val_check_interval"] = interval // batches


def _batches_of_an_execution(data: Any) -> int:
    """Return how many batches come together: no more than an epoch has, between validations."""
    if type(data).train_dataloader.__module__ != "src.data.base":
        return int(data.group)
    return min(int(data.group), int(data.train_dataloader().batches))


def _check_device(accelerator: str, devices: Any, precision: Any, nodes: int) -> None:
    """Refuse what this machine lacks, and what Lightning would replace or wait for without end.

    Raises:
        InputError: no such accelerator, more processes than cores, no such precision on a CPU, or
            other machines that nothing says the address of.
    """
    if nodes > 1 and not any(name.startswith(OF_CLUSTERS) for name in os.environ):
        raise InputError(
            f"trainer.num_nodes={nodes}: nothing says where the other machines are; set MASTER_ADDR"
            " and NODE_RANK, or start the run through torchrun or a cluster"
        )
    if not _runs_on_cpu(accelerator):
        return
    cores = os.cpu_count() or 1
    if isinstance(devices, int) and devices > cores:
        raise InputError(f"trainer.devices={devices}: this machine has {cores} cores")
    if str(precision) in FOR_GPUS:
        raise InputError("trainer.precision=16-mixed needs a GPU; on the CPU use bf16-mixed")


def _runs_on_cpu(accelerator: str) -> bool:
    """Say whether an accelerator means the CPU here.

    Raises:
        InputError: it is one that this machine lacks.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    present = {"gpu": cuda or mps, "cuda": cuda, "mps": mps}
    if not present.get(accelerator, True):
        raise InputError(
            f"trainer.accelerator={accelerator}: torch finds none on this machine;"
            " use trainer.accelerator=cpu or auto"
        )
    return accelerator == "cpu" or (accelerator == "auto" and not (cuda or mps))


@contextmanager
def _blamed_on(group: str) -> Iterator[None]:
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
        lines = [line for line in str(cause).splitlines() if line.strip()]
        reason = " ".join(lines[0].split()).strip("'\"`") if lines else repr(cause)
        raise InputError(f"{group}: {reason}") from error


def _missing_package(error: ModuleNotFoundError) -> str:
    extra = next((name for name in ("wandb", "mlflow") if name in str(error)), None)
    if extra is None:
        return str(error)
    return f"{extra} is not installed; pip install -e '.[{extra}]' installs it"


def stem(module: Any) -> str:
    """Return the file name that a model or data set has in src/ and conf/: `fizzbuzz`."""
    return type(module).__module__.rpartition(".")[2]


def quiet_lightning() -> None:
    """Keep Lightning's advice off the console; what it warns of is still said."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A profiler's table comes the same way as the advice does.
    logging.getLogger("lightning.pytorch.profilers.profiler").setLevel(logging.INFO)
    # Points are logged every n steps of the run, not of the epoch: see callbacks/training_metrics.
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    # Data without validation or test rows says so with an empty list of loaders.
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero.*")
    # `val/...` and `test/...` are the same on all ranks already: torchmetrics has computed them so.
    warnings.filterwarnings("ignore", message=".*when logging on epoch level in distributed.*")
    # The loader of data/base.py turns shuffling off by itself.
    warnings.filterwarnings("ignore", message="You requested to overfit but enabled.*")
    # Lightning 2.6 calls a part of torch's pytree that torch 2.13 is about to rename.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
    # Lightning 2.6 gathers from ranks by a function that torch 2.13 has given another name.
    warnings.filterwarnings("ignore", message=".*all_gather is deprecated.*")
    # callbacks/checkpointing.py says so, and what to do.
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    # The rows are in memory: there is nothing that a worker process could do.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


def load(checkpoint: Path) -> tuple[Plain, Any, Any]:
    """Rebuild the configuration, data and model of a checkpoint from the file alone.

    Returns:
        The configuration, the DataModule, and the model with its weights, in evaluation mode.

    Raises:
        InputError: the file is no checkpoint of this project, or names what it may not.
    """
    imports.settled()
    quiet_lightning()
    content = _content(checkpoint)
    settings = trust.trusted(content.get("config"), checkpoint)
    config.validate(settings)
    with _said_of_the_file():
        checkpoint_io.check_weights(lambda: build_model(settings), checkpoint)
    data, model = build_data(settings), build_model(settings)
    check_match(data, model)
    try:
        model.on_load_checkpoint(content)
        model.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        line = " ".join(str(error).split())
        raise InputError(f"{checkpoint} does not fit its own configuration: {line}") from error
    return settings, data, model.eval()


def _content(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint holds.

    Raises:
        InputError: it is damaged or none; the line names one of the same run that is whole.
    """
    try:
        return checkpoint_io.load(checkpoint)
    except (OSError, ValueError) as error:
        line = str(error)
    for name in (checkpoint_io.BEST, checkpoint_io.LAST, checkpoint_io.PREVIOUS):
        with suppress(OSError, ValueError):
            checkpoint_io.load(checkpoint.with_name(name))
            line += f"; whole is run={checkpoint.with_name(name)}"
            break
    raise InputError(line)


def take_weights(built: Experiment) -> list[str]:
    """Begin with the weights of the checkpoint that `init_from` names, as far as they fit.

    Returns:
        A line that says what was taken and what was not; nothing where none was asked for.

    Raises:
        InputError: the file is no checkpoint, or none of its tensors fits.
    """
    if built.config["init_from"] is None:
        return []
    with _said_of_the_file():
        held = checkpoint_io.load(Path(built.config["init_from"]))["state_dict"]
    own = built.model.state_dict()
    taken = {k: held[k] for k, v in own.items() if k in held and held[k].shape == v.shape}
    misfits = [
        f"{name} {list(held[name].shape)} does not fit {list(tensor.shape)}"
        if name in held
        else f"{name} is not there"
        for name, tensor in own.items()
        if name not in taken
    ]
    line = f"init_from: {len(taken)} of {len(own)} tensors taken from {built.config['init_from']}"
    line += "".join(f"; {misfit}" for misfit in misfits)
    if not taken:
        raise InputError(line)
    built.model.load_state_dict(taken, strict=False)
    return [line]


def answers(
    data: Any, model: Any, numbers: Any = None, features: Any = None, file: str | None = None
) -> list[dict[str, Any]]:
    """Ask a model, on the CPU, and return a row for each answer.

    Raises:
        ValueError: what was asked is not of this data's form.
        NotImplementedError: this data does not say how it is asked.
    """
    inputs = data.prediction_inputs(numbers, features, file)  # [N, D]
    model = model.cpu().eval()
    with torch.inference_mode():
        outputs = model.predict_step(inputs.to(next(model.parameters()).dtype))
    rows: list[dict[str, Any]] = data.prediction_rows(inputs, outputs)
    return rows


def check_checkpoint(settings: Plain, checkpoint: Path) -> None:
    """Refuse a whole checkpoint that is smaller than the model of a run, which is still untouched.

    Raises:
        InputError: saying both sizes.
    """
    with _said_of_the_file():
        checkpoint_io.check_weights(lambda: build_model(settings), checkpoint)


@contextmanager
def _said_of_the_file() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise InputError(str(error)) from error


def build_tester(settings: Plain, accelerator: str, run: Path) -> pl.Trainer:
    """Build a Trainer that only tests, on one device, so that each sample counts once.

    It tests in the precision that the model was trained in; where that one needs a GPU and there is
    none, in that of the weights, and says so.
    """
    precision = settings["trainer"]["precision"]
    with _blamed_on("trainer"):
        if _runs_on_cpu(accelerator) and str(precision) in FOR_GPUS:
            print(f"trained with precision={precision}, which needs a GPU: tested with 32-true")
            precision = "32-true"
        return pl.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision,
            default_root_dir=str(run),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
