"""Every model goes with every optimizer, schedule and trainer option: composed, and fitted."""

import math
from collections.abc import Callable

import pytest

from src.kindling.build import Experiment
from tests.kindling.conftest import compose, options

Build = Callable[..., Experiment]


# Each model with each optimizer, and each optimizer with each schedule.
TRIPLES = {(m, o, "one_cycle") for m in options("model") for o in options("optimizer")}
TRIPLES |= {("line", o, s) for o in options("optimizer") for s in options("scheduler")}


@pytest.mark.parametrize(("model", "optimizer", "scheduler"), sorted(TRIPLES))
def test_model_optimizer_and_scheduler_fit_together(
    model: str, optimizer: str, scheduler: str, build: Build
) -> None:
    experiment = build(
        f"model={model}",
        f"optimizer={optimizer}",
        f"scheduler={scheduler}",
        "trainer.max_epochs=2",
        "trainer.limit_train_batches=2",
        "trainer.check_val_every_n_epoch=1",
        "logger=none",
        "callbacks=none",
    )
    before = [p.detach().clone() for p in experiment.model.parameters()]
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    steps = 2 * min(2, len(experiment.data.train_dataloader()))
    assert experiment.trainer.global_step == steps
    assert math.isfinite(float(experiment.trainer.callback_metrics["val/loss"]))
    after = list(experiment.model.parameters())
    assert any(not a.equal(b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("model", options("model"))
def test_every_setting_of_a_trainer_stands_in_its_yaml(model: str) -> None:
    settings = compose(f"model={model}")["trainer"]
    promised = {
        "accelerator",
        "devices",
        "strategy",
        "precision",
        "gradient_clip_val",
        "accumulate_grad_batches",
        "fast_dev_run",
        "overfit_batches",
        "profiler",
    }
    assert promised <= set(settings)


@pytest.mark.parametrize("debug", options("debug"))
def test_debug_options_run(debug: str, build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = build(f"debug={debug}", "model.hidden_features=16", "trainer.max_epochs=2")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    assert experiment.trainer.global_step > 0


def test_overfitting_one_batch_drives_its_loss_to_nothing(build: Build) -> None:
    experiment = build("debug=overfit", "scheduler=constant", "optimizer.lr=0.1")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    assert experiment.trainer.global_step == 100  # one batch per epoch
    assert float(experiment.trainer.callback_metrics["train/loss"]) < 1e-2


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true", "bf16-true", "32-true"])
@pytest.mark.parametrize("model", options("model"))
def test_precisions_of_the_cpu_train_and_test(model: str, precision: str, build: Build) -> None:
    experiment = build(f"model={model}", f"trainer.precision={precision}", "trainer.max_epochs=1")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    [metrics] = experiment.trainer.test(experiment.model, datamodule=experiment.data, verbose=False)
    assert math.isfinite(metrics["test/loss"])


def test_early_stopping_stops_before_the_last_epoch(build: Build) -> None:
    experiment = build(
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=2",
        "optimizer.lr=0",
        "optimizer.weight_decay=0",
        "trainer.check_val_every_n_epoch=1",
        "trainer.max_epochs=50",
    )
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    assert experiment.trainer.current_epoch == 3  # the first, and two without improvement
