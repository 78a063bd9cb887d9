"""A run without a profiler: the same hooks as with Lightning's own, and a real one when asked."""

from collections.abc import Callable

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.profilers import PassThroughProfiler, SimpleProfiler

from src.kindling.build import Experiment
from src.kindling.process.unprofiled import Unprofiled


def trained(profiler: PassThroughProfiler) -> torch.Tensor:
    pl.seed_everything(0, verbose=False)
    model, quiet = BoringModel(), {"logger": False, "enable_checkpointing": False}
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", profiler=profiler, **quiet)
    trainer.fit(model)
    return model.layer.weight.detach()


@pytest.mark.filterwarnings("ignore")
def test_a_fit_is_the_one_with_the_profiler_that_passes_through() -> None:
    torch.testing.assert_close(
        trained(Unprofiled()), trained(PassThroughProfiler()), rtol=0, atol=0
    )


@pytest.mark.usefixtures("own_models")
def test_a_run_has_the_profiler_that_its_settings_name(build: Callable[..., Experiment]) -> None:
    assert type(build("trainer.profiler=simple").trainer.profiler) is SimpleProfiler
    assert type(build().trainer.profiler) is Unprofiled
