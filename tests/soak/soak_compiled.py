"""Compare compiled with eager training: every model, optimizer and schedule."""

import time
from collections.abc import Callable

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from src.kindling.build import Experiment
from tests.conftest import options

Build = Callable[..., Experiment]
STEPS = 200
EXACT = "trainer.precision=64-true"  # 32 bits of rounding grow to a percent in 200 steep steps


def trained(build: Build, *overrides: str) -> tuple[Experiment, list[torch.Tensor]]:
    """Train for 200 steps, by fours."""
    experiment = build(
        "logger=none",
        f"trainer.max_steps={STEPS}",
        "trainer.max_epochs=-1",
        "steps_per_execution=4",
        *overrides,
    )
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    assert experiment.trainer.global_step == STEPS
    return experiment, [p.detach() for p in experiment.model.parameters()]


CASES = [
    *(
        (model, f"{EXACT} optimizer={o}")
        for model in options("model")
        for o in options("optimizer")
    ),
    *(("fizzbuzz", f"{EXACT} scheduler={name}") for name in options("scheduler")),
    ("fizzbuzz", f"{EXACT} +optimizer.amsgrad=true"),
    ("fizzbuzz", f"{EXACT} trainer.gradient_clip_val=0.1"),
    ("fizzbuzz", f"{EXACT} trainer.gradient_clip_val=0.01 trainer.gradient_clip_algorithm=value"),
    ("fizzbuzz", f"{EXACT} trainer.accumulate_grad_batches=2 data.batch_size=64"),
    ("fizzbuzz", f"{EXACT} steps_per_execution=1"),
    ("fizzbuzz", "optimizer=sgd"),
    ("two_layer_net", "optimizer=adamw"),
    ("fizzbuzz", "optimizer=sgd trainer.precision=bf16-mixed"),
]


@pytest.mark.parametrize(("model", "overrides"), CASES)
def soak_compiled_steps_are_the_eager_ones(
    model: str, overrides: str, build: Build, capfd: pytest.CaptureFixture[str]
) -> None:
    given = (f"model={model}", *overrides.split())
    _, expected = trained(build, *given)
    started = time.perf_counter()
    _, found = trained(build, *given, "compile=true")
    seconds = time.perf_counter() - started
    said = [line for line in capfd.readouterr().err.splitlines() if "compile=true" in line]
    far = max(
        float((a - b).abs().max() / a.abs().max()) for a, b in zip(expected, found, strict=True)
    )
    with capfd.disabled():
        print(f"{model} {overrides}: {far:.1e} apart, {seconds:.0f} s; {' '.join(said)}")
    limit = 1e-9 if EXACT in overrides else 1e-2
    assert far < (
        0.1 if "bf16" in overrides else limit
    )  # eager rounds to bf16 after each operation


def soak_a_changed_setting_of_the_model_is_noticed(build: Build) -> None:
    given = (EXACT, "model.hidden_features=16", "scheduler=constant")
    eager, compiled = build(*given), build(*given, "compile=true")
    for experiment in (eager, compiled):
        experiment.trainer.callbacks.append(Flips())
        experiment.trainer.fit_loop.max_epochs = 4
        experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    for a, b in zip(eager.model.parameters(), compiled.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


class Flips(pl.Callback):
    """Feed the digits with signs in every other epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Change an attribute of the model."""
        pl_module.signed_digits = trainer.current_epoch % 2 == 1


def soak_dropout_is_drawn_from_the_seed(build: Build) -> None:
    def weights(share: float) -> torch.Tensor:
        experiment = build("model.hidden_features=16", "trainer.max_epochs=3", "compile=true")
        net = experiment.model.net
        experiment.model.net = nn.Sequential(nn.Dropout(share), net)
        experiment.trainer.fit(experiment.model, datamodule=experiment.data)
        return net.hidden.weight.detach()

    first, again, without = weights(0.5), weights(0.5), weights(0.0)
    assert torch.equal(first, again)
    assert not torch.equal(first, without)
