"""What a run adds to Lightning's loop: it calls the hooks that somebody wrote, and no others."""

from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import Callback, LambdaCallback
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.profilers import SimpleProfiler

from src.kindling.callbacks.loop import call_after_hooks

pytestmark = pytest.mark.filterwarnings("ignore")


class Written(Callback):
    """Has one hook of its own, another by its base."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.called.append("batch")

    def on_train_epoch_end(self, *_: Any) -> None:
        self.called.append("epoch")
        super().on_train_batch_end(*_, None, None, 0)  # Lightning's own is still there


class Inherits(Written):
    """Overrides nothing."""


def hooks_of(profiler: SimpleProfiler, kind: str) -> set[str]:
    prefix = f"[Callback]{kind}."
    return {key.removeprefix(prefix) for key in profiler.recorded_durations if prefix in key}


def test_only_the_hooks_that_a_callback_defines_are_called() -> None:
    ends: list[int] = []
    on_lambda = LambdaCallback(on_train_batch_end=lambda *_: ends.append(1))
    inherits, profiler = Inherits(), SimpleProfiler()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_train_batches=3,
        limit_val_batches=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        profiler=profiler,
        callbacks=[inherits, on_lambda],
    )
    call_after_hooks(trainer)
    trainer.fit(BoringModel())
    assert inherits.called == ["batch"] * 3 + ["epoch"] + ["batch"] * 3 + ["epoch"]
    assert len(ends) == 6
    stored = {"on_save_checkpoint", "on_load_checkpoint"}
    assert hooks_of(profiler, "Inherits") - stored - {"setup", "teardown"} == {
        "on_train_batch_end",
        "on_train_epoch_end",
    }
