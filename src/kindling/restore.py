"""From a checkpoint back to its configuration, data and model."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.model_helpers import is_overridden

from src.kindling import layout
from src.kindling.build import Experiment, build_model, build_pair, errors_from
from src.kindling.config import untrusted
from src.kindling.config.settings import validate
from src.kindling.errors import InputError, printable
from src.kindling.files.checkpoint import check_size, load_checkpoint
from src.kindling.files.run_record import folders_advice
from src.kindling.layout import Plain
from src.kindling.process import garbage
from src.kindling.process.devices import FOR_GPUS, runs_on_cpu
from src.kindling.process.quiet import quiet_lightning
from src.kindling.process.seeding import Seeding


def load(checkpoint: Path) -> tuple[Plain, Any, Any]:
    """Rebuild the configuration, data and model of a checkpoint from the file alone.

    Returns:
        The configuration, the DataModule, and the model with its weights, in evaluation mode.

    Raises:
        InputError: not a checkpoint of this project, or one with a target that is not allowed.
    """
    garbage.resume_gc()
    quiet_lightning()
    content = _content(checkpoint)
    settings = untrusted.check(content.get("config"), checkpoint, folders_advice)
    validate(settings)
    check_checkpoint(settings, checkpoint)
    data, model = build_pair(settings)
    try:
        model.configure_model()  # layers that a module makes there, as Lightning would before a fit
        if (name := type(data).__qualname__) in content:  # what its `state_dict` gave
            data.load_state_dict(content[name])
        if makes_layers_in_setup(model, content):
            with attached(data, model):
                data.prepare_data()
                data.setup("test")
                model.setup("test")
        model.on_load_checkpoint(content)
        model.load_state_dict(content["state_dict"], strict=model.strict_loading)
    except RuntimeError as error:
        line = " ".join(str(error).split())
        raise InputError(f"{checkpoint} does not fit its own configuration: {line}") from error
    return settings, data, model.eval()


def makes_layers_in_setup(model: Any, content: Any) -> bool:
    """Return whether a checkpoint holds weights for layers that wait for the module's `setup`."""
    waiting = content["state_dict"].keys() - model.state_dict().keys()
    return bool(waiting) and is_overridden("setup", model)


@contextmanager
def attached(data: Any, model: Any) -> Iterator[None]:
    """Attach a Trainer if the model has none: its hooks may read the data and the stage from it."""
    if data.trainer is not None:
        yield
        return
    options: Any = {"logger": False, "barebones": True}
    trainer: Any = pl.Trainer(accelerator="cpu", devices=1, **options)
    trainer.datamodule, trainer.predicting = data, True
    data.trainer = model.trainer = trainer
    try:
        yield
    finally:
        data.trainer = model.trainer = None


def _content(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint holds.

    Raises:
        InputError: it is damaged or not a checkpoint; the line names a whole one of the same run.
    """
    try:
        return load_checkpoint(checkpoint)
    except (OSError, ValueError) as error:
        line = str(error)
    for name in (layout.BEST, layout.LAST, layout.PREVIOUS):
        with suppress(OSError, ValueError):
            load_checkpoint(checkpoint.with_name(name))
            other = layout.setting("run", str(checkpoint.with_name(name)))
            line += f"; use {shlex.quote(other)}"
            break
    raise InputError(line)


def init_from_checkpoint(built: Experiment) -> list[str]:
    """Begin with the weights of the checkpoint that `init_from` names, as far as they fit.

    Returns:
        A line that says what was taken and what was not; nothing where none was asked for.

    Raises:
        InputError: the file is not a checkpoint, or none of its tensors fits.
    """
    if built.config["init_from"] is None:
        return []
    with _file_errors():
        held = load_checkpoint(Path(built.config["init_from"]))["state_dict"]
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


def check_checkpoint(settings: Plain, checkpoint: Path) -> None:
    """Refuse a whole checkpoint that is smaller than the model of its configuration."""
    with _file_errors():
        check_size(lambda: build_model(settings), checkpoint)


@contextmanager
def _file_errors() -> Iterator[None]:
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
    with errors_from("trainer"):
        if runs_on_cpu(accelerator, "accelerator") and str(precision) in FOR_GPUS:
            line = f"trained with precision={precision}, which needs a GPU: tested with 32-true"
            print(printable(line))
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
            callbacks=[Seeding(settings["seed"])],
        )
