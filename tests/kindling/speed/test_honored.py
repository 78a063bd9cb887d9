"""With several steps per call all of Lightning's hooks and callbacks do what they do with one.

Or the run takes one step per call, and one line names what it is that forbids more.
"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch import callbacks

from src.kindling.speed import blocks, honored
from src.kindling.speed.hooks import AFTER, BEFORE, MOVE
from tests.kindling.speed.small import Net, Rows, differing, fit, left, said

NO_HOOKS = {  # what LightningModule offers to call, not to override
    *("all_gather", "clip_gradients", "freeze", "log", "log_dict", "lr_schedulers", "optimizers"),
    *("manual_backward", "print", "to_onnx", "to_tensorrt", "to_torchscript", "unfreeze"),
    *("toggle_optimizer", "toggled_optimizer", "untoggle_optimizer"),
    *("save_hyperparameters", "remove_ignored_hparams", "load_from_checkpoint", "from_datasets"),
    *("to", "cpu", "cuda", "type", "half", "float", "double"),
}
# Called at each step, inside a call too; and called by Lightning, around calls.
EACH_STEP = (
    *("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"),
    *("training_step", "on_before_zero_grad", "on_before_backward", "backward"),
    *("on_after_backward", "on_before_optimizer_step", "configure_gradient_clipping", "forward"),
)
STAGES = ("validation", "test", "predict")
AROUND = (
    *("setup", "teardown", "prepare_data", "configure_model", "configure_sharded_model"),
    *("configure_callbacks", "configure_optimizers", "state_dict", "load_state_dict"),
    *("on_save_checkpoint", "on_load_checkpoint", "on_exception"),
    *("on_fit_start", "on_fit_end", "on_train_start", "on_train_end"),
    *("on_sanity_check_start", "on_sanity_check_end", "on_validation_model_zero_grad"),
    *(f"{stage}_dataloader" for stage in ("train", "val", "test", "predict")),
    *(f"{stage}_step" for stage in STAGES),
    *(
        f"on_{stage}{point}"
        for stage in STAGES
        for point in ("_start", "_end", "_epoch_start", "_epoch_end", "_batch_start", "_batch_end")
    ),
    *(f"on_{stage}_model_{mode}" for stage in STAGES for mode in ("eval", "train")),
)
TABLE = (honored.BATCH, honored.EPOCH, honored.REPLACED, EACH_STEP, AROUND)
pytestmark = pytest.mark.filterwarnings("ignore")


def defined(kind: type) -> set[str]:
    """Return the public methods that Lightning gives a class, by whichever of its bases."""
    lightnings = [base for base in kind.__mro__ if base.__module__.startswith("lightning.")]
    assert lightnings
    found = {name for base in lightnings for name in vars(base)}
    return {n for n in found if callable(getattr(kind, n)) and n[0] != "_"} - NO_HOOKS


OF_CALLBACK = defined(pl.Callback)
OF_MODULE = defined(pl.LightningModule)
OF_DATA = defined(pl.LightningDataModule)


def test_the_table_holds_each_hook_of_lightning_once() -> None:
    table = [hook for part in TABLE for hook in part]
    assert len(table) == len(set(table))
    assert set(table) >= OF_CALLBACK | OF_MODULE | OF_DATA
    assert len(OF_CALLBACK) > 30
    assert len(OF_MODULE) > 40


def test_a_compiled_step_refuses_each_hook_that_looks_into_a_step() -> None:
    outside = {BEFORE, MOVE, AFTER}  # of the compiled function: batches come prepared
    traced = {"training_step", "forward"}  # of which the first is refused unless it is BaseModule's
    assert set(EACH_STEP) - outside - traced == set(blocks.HOOKS)


class Recorder:
    """Record when a hook is called: the step, the counters, and what `self.log` takes it for."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def wrap(self, part: Any, name: str, trainer_of: Any) -> None:
        """Override a hook of a part by one that calls the original, in a class of its own."""
        original = getattr(type(part), name)

        def hook(self_: Any, *arguments: Any, **named: Any) -> Any:
            trainer: Any = trainer_of(self_, arguments)
            if trainer is not None and trainer.state.fn == "fit":
                loop = trainer.fit_loop
                counts = loop.epoch_loop.batch_progress.state_dict()
                logs = name not in (BEFORE, MOVE, AFTER)  # there Lightning refuses self.log
                place = getattr(trainer.lightning_module, "_current_fx_name", None) if logs else ""
                where = (trainer.global_step, trainer.current_epoch, counts, place)
                self.seen.append((name, *where, loop.epoch_loop._batches_that_stepped))
            return original(self_, *arguments, **named)

        part.__class__ = type(type(part).__name__, (type(part),), {name: hook})


def recorded(folder: Path, steps: int, owner: str, name: str) -> tuple[list[Any], Any]:
    recorder, parts = Recorder(), {"module": Net(), "data": Rows(), "callback": pl.Callback()}
    pl.seed_everything(0, verbose=False)
    parts["module"] = Net()
    trainer_of = {
        "module": lambda self, _: self._trainer,
        "data": lambda self, _: self.trainer,
        "callback": lambda _, arguments: arguments[0] if arguments else None,
    }[owner]
    recorder.wrap(parts[owner], name, trainer_of)
    options = {"max_epochs": 2, "check_val_every_n_epoch": 2}
    trainer = fit(folder, steps, parts["module"], parts["data"], [parts["callback"]], **options)
    return recorder.seen, left(trainer)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        *(("callback", name) for name in sorted(OF_CALLBACK)),
        *(("module", name) for name in sorted(OF_MODULE)),
        *(("data", name) for name in sorted(OF_DATA)),
    ],
)
def test_a_hook_is_called_as_with_one_step_per_call(
    owner: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen, expected = recorded(tmp_path / "1", 1, owner, name)
    assert not said(capsys)
    found, state = recorded(tmp_path / "4", 4, owner, name)
    assert differing(state, expected) == []
    assert found == seen
    lines = said(capsys)
    aside = name in honored.REPLACED or name in honored.BATCH
    assert len(lines) == (aside and owner != "data")
    assert all(name in line for line in lines)


# Callbacks of Lightning's -------------------------------------------------------------------------


class Backbone(Net):
    """Net, with the name that BackboneFinetuning asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.lr = self.body, 0.01

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.head.parameters(), 0.01)


class Logging(Net):
    """Net that logs its loss at each step and epoch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss


class Finetuning(callbacks.BaseFinetuning):
    """Freeze the body for an epoch."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.body)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.body, optimizer, lr=0.02)


class Constant(Net):
    """Net without a schedule, which BaseFinetuning cannot change."""

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], 0.01)


class Writer(callbacks.BasePredictionWriter):
    """Write nothing."""


def every(steps: int) -> Any:
    return lambda: callbacks.ModelCheckpoint(every_n_train_steps=steps, save_top_k=-1)


# By name: how to make one, the module to train, and the options of the Trainer.
CASES: dict[str, list[tuple[Any, Any, dict[str, Any]]]] = {
    "BackboneFinetuning": [(lambda: callbacks.BackboneFinetuning(1), Backbone, {})],
    "BaseFinetuning": [(Finetuning, Constant, {})],
    "BasePredictionWriter": [(lambda: Writer("batch"), Net, {})],
    "BatchSizeFinder": [],  # asks for a batch_size; its trial fits are Lightning's: see UNSUITABLE
    "Callback": [(pl.Callback, Net, {})],
    "Checkpoint": [(callbacks.Checkpoint, Net, {"enable_checkpointing": True})],
    "DeviceStatsMonitor": [],  # logs what the machine does; sees each step
    "EarlyStopping": [(lambda: callbacks.EarlyStopping("val", patience=1), Net, {"max_epochs": 9})],
    "GradientAccumulationScheduler": [
        (lambda: callbacks.GradientAccumulationScheduler({0: 1, 1: 3, 3: 2}), Net, {})
    ],
    "LambdaCallback": [
        (lambda: callbacks.LambdaCallback(on_train_epoch_end=lambda t, m: m.log("n", 1.0)), Net, {})
    ],
    "LearningRateFinder": [],  # its trial fit is Lightning's: see UNSUITABLE
    "LearningRateMonitor": [
        (lambda: callbacks.LearningRateMonitor("step"), Net, {"log_every_n_steps": 2}),
        (lambda: callbacks.LearningRateMonitor("epoch"), Net, {}),
    ],
    "ModelCheckpoint": [
        (every(1), Net, {"enable_checkpointing": True}),
        (every(5), Net, {"enable_checkpointing": True}),
        (every(5), Net, {"enable_checkpointing": True, "accumulate_grad_batches": 2}),
        (lambda: callbacks.ModelCheckpoint(monitor="val"), Net, {"enable_checkpointing": True}),
        (
            lambda: callbacks.ModelCheckpoint(monitor="loss", every_n_train_steps=3, save_top_k=2),
            Logging,
            {"enable_checkpointing": True},
        ),
    ],
    "ModelPruning": [(lambda: callbacks.ModelPruning("l1_unstructured", amount=0.3), Net, {})],
    "ModelSummary": [(callbacks.ModelSummary, Net, {})],
    "OnExceptionCheckpoint": [],  # acts when a run fails
    "ProgressBar": [(callbacks.ProgressBar, Net, {"enable_progress_bar": True})],
    "RichModelSummary": [],  # needs the package rich
    "RichProgressBar": [],  # needs the package rich
    "StochasticWeightAveraging": [
        (lambda: callbacks.StochasticWeightAveraging(0.02, swa_epoch_start=1), Net, {})
    ],
    "SpikeDetection": [],  # of lightning.fabric, where it is there: sees each step
    "ThroughputMonitor": [],  # logs how fast the machine is; sees each step
    "Timer": [(callbacks.Timer, Net, {})],
    "TQDMProgressBar": [(callbacks.TQDMProgressBar, Net, {"enable_progress_bar": True})],
    "EMAWeightAveraging": [(callbacks.EMAWeightAveraging, Net, {"enable_checkpointing": True})],
    "WeightAveraging": [(callbacks.WeightAveraging, Net, {})],
}


def test_each_callback_of_lightning_is_here() -> None:
    assert set(callbacks.__all__) == set(CASES)


@pytest.mark.parametrize(
    ("name", "make", "module", "options"),
    [(name, *case) for name, cases in CASES.items() for case in cases],
)
def test_a_callback_of_lightning_does_what_it_does_with_one_step_per_call(
    name: str,
    make: Any,
    module: Any,
    options: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    states = []
    for steps in (1, 4, 30):
        pl.seed_everything(0, verbose=False)
        trainer = fit(tmp_path / str(steps), steps, module(), None, [make()], **options)
        states.append(left(trainer))
    assert differing(states[1], states[0]) == []
    assert differing(states[2], states[0]) == []
    lines = said(capsys)
    callback = make()
    declared = type(callback) in honored.LIGHTNINGS
    sees = any(getattr(type(callback), h) is not getattr(pl.Callback, h) for h in honored.BATCH)
    aside = isinstance(callback, honored.UNSUITABLE) or (sees and not declared)
    assert len(lines) == 2 * aside
    assert all(type(callback).__name__ in line for line in lines)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_hook_of_an_optimizer_sees_each_step(steps: int, tmp_path: Path) -> None:
    class Hooked(Net):
        seen = 0

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), 0.1)
            optimizer.register_step_post_hook(self.count)
            return optimizer

        def count(self, *_: Any) -> None:
            self.seen += 1

    trainer: Any = fit(tmp_path, steps, Hooked())
    assert trainer.lightning_module.seen == trainer.global_step == 28


def test_a_scaler_takes_one_step_per_call(tmp_path: Path) -> None:
    trainer: Any = fit(tmp_path, 1)
    trainer.fit_loop.setup_data()
    assert honored.obstacle(trainer) is None
    trainer.strategy.precision_plugin.scaler = object()
    assert "has work of its own around each step" in str(honored.obstacle(trainer))
