"""Private names of Lightning and torch: each is in a list with its reason, and is still there."""

import importlib
import re
from importlib.metadata import version
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies.launchers import subprocess_script
from torchmetrics import MeanMetric

from tests.conftest import ROOT, has_room

ENGINE = ROOT / "src" / "kindling"
# Outside of speed/: the file, the name, the object that has it, and why there is no public way.
LISTED = [
    (
        *("callbacks/loop.py", "_logger_connector", "trainer"),
        "a checkpoint is written after an epoch's metrics are logged; no hook comes so late",
    ),
    ("callbacks/loop.py", "_batches_that_stepped", "loop", "the step of these metrics"),
    ("callbacks/loop.py", "_iteration_based_training", "fit_loop", "resuming max_steps"),
    ("callbacks/loop.py", "_restarting", "fit_loop", "a resumed epoch ends as any other"),
    ("callbacks/loop.py", "_first_loop_iter", "connector", "sums of self.log are kept on resuming"),
    ("callbacks/epoch_logs.py", "_results", "loop", "sums of self.log, which no checkpoint holds"),
    ("callbacks/epoch_logs.py", "_forward_cache", "metric", "the same"),
    ("callbacks/epoch_logs.py", "_update_count", "metric", "a state that is read without updates"),
    ("callbacks/loop.py", "_signal_connector", "trainer", "Lightning's own signal handlers"),
    ("callbacks/loop.py", "_broadcast_sigterm_tensor", "loop", "the same, at each step"),
    ("loggers/tensorboard.py", "_get_file_writer", "writer", "where the event file is"),
    ("loggers/records.py", "_pytorch_graph", "torch.utils.tensorboard", "how a graph is drawn"),
    ("loggers/csv.py", "_check_log_dir_exists", "csv writer", "a resumed run appends to its file"),
    ("process/ddp.py", "_configure_launcher", "strategy", "Lightning's launcher kills rank 0"),
    (
        *("process/ddp.py", "_SubprocessScriptLauncher"),
        *("lightning.pytorch.strategies.launchers.subprocess_script", "the same"),
    ),
    ("process/ddp.py", "_call_children_scripts", "launcher", "the same"),
    ("process/seeding.py", "_combined_loader", "fit_loop", "a loader that is set up too early"),
]
LISTED += [
    (
        *("callbacks/epoch_logs.py", name),
        *("lightning.pytorch.trainer.connectors.logger_connector.result", "sums of self.log"),
    )
    for name in ("_Metadata", "_ResultMetric", "_Sync")
]
LISTED += [
    (file, "_pytree", "torch.utils", "nested inputs; torch has no public functions for trees")
    for file in ("export/calls.py", "export/export.py", "export/program.py", "serve/answering.py")
]
# In speed/, which can be deleted: the name and the object that has it.
SPEED = [
    ("_combined_loader", "fit_loop"),
    ("_data_fetcher", "fit_loop"),
    ("_logger_connector", "trainer"),
    ("_results", "loop"),
    ("_should_accumulate", "loop"),
    ("_should_check_val_fx", "loop"),
    ("_batches_that_stepped", "loop"),
    ("_call_callback_hooks", "lightning.pytorch.trainer.call"),
    ("_call_lightning_module_hook", "lightning.pytorch.trainer.call"),
    ("_every_n_train_steps", "checkpoint"),
    ("_dynamo", "torch"),
    ("_pytree", "torch.utils"),
    ("_foreach_add_", "torch"),
    ("_backward_hooks", "parameter"),
    ("_optimizer_step_pre_hooks", "optimizer"),
    ("_global_optimizer_pre_hooks", "torch.optim.optimizer"),
    ("_global_optimizer_post_hooks", "torch.optim.optimizer"),
    ("_engine_run_backward", "torch.autograd.graph"),
    ("_optimizer_step_post_hooks", "optimizer"),
    ("_opt_called", "a torch.optim.lr_scheduler's file"),
    ("_set_sampler_epoch", "lightning.fabric.utilities.data"),
    ("_DataFetcher", "lightning.pytorch.loops.fetchers"),
    ("_DataLoaderIterDataFetcher", "lightning.pytorch.loops.fetchers"),
    ("_TrainingEpochLoop", "lightning.pytorch.loops.training_epoch_loop"),
]
FOREIGN = re.compile(r"\b(?!self\b|cls\b|hydra\b|os\b|parser\b)(\w+)\.(?!_target_)(_[a-z]\w+)")
IMPORTS = re.compile(r"from (?:torch|lightning)[\w.]* import ([^\n]*)")
PRIVATE = re.compile(r"\b_[a-zA-Z]\w+")


def objects() -> dict[str, object]:
    """Return an object of each kind that has a private name."""
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    parameter = torch.nn.Parameter(torch.zeros(1))
    return {
        "trainer": trainer,
        "fit_loop": trainer.fit_loop,
        "loop": trainer.fit_loop.epoch_loop,
        "connector": trainer._logger_connector,
        "parameter": parameter,
        "metric": MeanMetric(),
        "optimizer": torch.optim.SGD([parameter], 0.1),
        "checkpoint": pl.callbacks.ModelCheckpoint(),
        "strategy": pl.strategies.DDPStrategy,
        "launcher": subprocess_script._SubprocessScriptLauncher,
        "csv writer": pl.loggers.csv_logs.ExperimentWriter,
    }


def is_there(name: str, where: str) -> bool:
    if where == "writer":
        return hasattr(importlib.import_module("torch.utils.tensorboard").SummaryWriter, name)
    if where == "a torch.optim.lr_scheduler's file":
        return name in Path(torch.optim.lr_scheduler.__file__).read_text(encoding="utf-8")
    found = objects()[where] if where in objects() else importlib.import_module(where)
    return hasattr(found, name)


NAMES = sorted({*((name, where) for _, name, where, _ in LISTED), *SPEED})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "where"), NAMES)
def test_a_private_name_is_still_there(name: str, where: str) -> None:
    versions = f"lightning {version('lightning')}, torch {version('torch')}"
    assert is_there(name, where), f"{where}.{name} is not there in {versions}"


def test_no_file_outside_of_speed_uses_a_private_name_that_is_not_listed() -> None:
    found = set()
    for path in ENGINE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        text = re.sub(r'"[^"\n]*"|#.*', "", text)
        place = path.relative_to(ENGINE).as_posix()
        if not place.startswith("speed/"):
            found |= {(place, name) for owner, name in FOREIGN.findall(text)}
            found |= {
                (place, name) for line in IMPORTS.findall(text) for name in PRIVATE.findall(line)
            }
        own = set(re.findall(r"(?:def |^|\n|self\.)(_[a-z]\w+)", text))
        found = {(at, name) for at, name in found if at != place or name not in own}
    assert found - {(place, name) for place, name, _, _ in LISTED} == set()


@pytest.mark.parametrize(
    ("file", "name"), [row[:2] for row in LISTED if has_room(row[0].partition("/")[0])]
)
def test_a_listed_name_is_used(file: str, name: str) -> None:
    assert name in (ENGINE / file).read_text(encoding="utf-8")
