"""The recipes with several steps per call: bit for bit what Lightning's own loop does."""

from collections.abc import Callable

import pytest
import torch

from src.kindling.build import Experiment
from tests.kindling.callbacks.test_training_metrics import Kept

Build = Callable[..., Experiment]
SHORT = (
    "model=quadrants",
    "steps_per_execution=1",
    "trainer.max_epochs=4",
    "model.hidden_features=16",
    "logger=none",
)


def trained(build: Build, *overrides: str) -> tuple[Experiment, list[torch.Tensor]]:
    experiment = build(*SHORT, "data.batch_size=100", *overrides)
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    return experiment, [p.detach() for p in experiment.model.parameters()]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("optimizer=momentum", "scheduler=cosine"),
        ("trainer.gradient_clip_val=0.1",),
        ("trainer.gradient_clip_val=0.01", "trainer.gradient_clip_algorithm=value"),
        ("trainer.accumulate_grad_batches=2",),
        ("trainer.limit_train_batches=5",),
        ("trainer.limit_train_batches=0.4",),
        ("trainer.overfit_batches=2",),
        ("trainer.precision=bf16-mixed",),
        ("optimizer=lbfgs", "data.batch_size=300"),
        ("model.dropout=0.3", "trainer.accumulate_grad_batches=2"),
        ("scheduler=plateau", "scheduler.patience=0", "trainer.check_val_every_n_epoch=1"),
    ],
    ids=lambda overrides: ",".join(overrides) or "recipe",
)
def test_weights_steps_and_schedule_are_those_of_one_step_per_call(
    build: Build, overrides: tuple[str, ...]
) -> None:
    one, expected = trained(build, *overrides)
    for steps in (2, 3, 9, 50):
        several, found = trained(build, *overrides, f"steps_per_execution={steps}")
        assert several.trainer.global_step == one.trainer.global_step > 0, steps
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True)), steps
        rates = [e.trainer.optimizers[0].param_groups[0]["lr"] for e in (one, several)]
        assert rates[0] == rates[1], steps


@pytest.mark.parametrize(("every", "expected"), [("5", [4, 13, 22, 31]), ("9", [8, 17, 26, 35])])
def test_a_validation_comes_at_its_batch_and_a_point_at_its_step(
    every: str, expected: list[int], build: Build
) -> None:
    kept = []
    for steps in (1, 100):
        words = (
            "trainer.check_val_every_n_epoch=1",
            "trainer.log_every_n_steps=1",
            f"trainer.val_check_interval={every}",
        )
        experiment = build(*SHORT, "data.batch_size=100", *words, f"steps_per_execution={steps}")
        experiment.trainer.loggers = [logger := Kept()]
        experiment.trainer.fit(experiment.model, datamodule=experiment.data)
        points = [(step, point.get("train/loss"), point.get("val/loss"))
                  for step, point in logger.points]  # fmt: skip
        kept.append(points)
    assert kept[0] == kept[1]
    assert [step for step, loss, _ in kept[0] if loss is not None] == list(range(36))
    assert [step for step, _, loss in kept[0] if loss is not None] == expected


def test_max_steps_is_kept_to_the_step(build: Build) -> None:
    one, expected = trained(build, "trainer.max_steps=7", "trainer.max_epochs=-1")
    several, found = trained(
        build, "trainer.max_steps=7", "trainer.max_epochs=-1", "steps_per_execution=3"
    )
    assert several.trainer.global_step == one.trainer.global_step == 7
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_the_schedule_spans_the_whole_run(build: Build) -> None:
    for steps in (1, 4):
        experiment, _ = trained(build, "scheduler=one_cycle", f"steps_per_execution={steps}")
        lr = experiment.config["optimizer"]["lr"]
        last = experiment.trainer.optimizers[0].param_groups[0]["lr"]
        scheduler = experiment.config["scheduler"]
        expected = lr / scheduler["div_factor"] / scheduler["final_div_factor"]
        assert last == pytest.approx(expected, rel=1e-6)
