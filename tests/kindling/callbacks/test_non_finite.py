"""A NaN or infinity stops a run at its step, is named, and reaches no weights or checkpoints."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from src.kindling.build import Experiment
from src.kindling.callbacks.non_finite import NonFinite
from tests.kindling.callbacks.test_training_metrics import Kept
from tests.kindling.conftest import Command, options

Build = Callable[..., Experiment]
NAN = float("nan")


def poisoned(build: Build, step: int, kind: str, *overrides: str) -> Experiment:
    """Return an experiment of nine steps per epoch whose loss, or gradient, is bad at one step."""
    experiment = build(
        "model.hidden_features=16",
        "data.batch_size=100",
        "trainer.max_epochs=3",
        "trainer.check_val_every_n_epoch=1",
        "logger=none",
        *overrides,
    )
    loss, calls = experiment.model.training_loss, 0

    def bad(batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        value: torch.Tensor = loss(batch)
        if calls != step:
            return value
        if kind == "loss":
            return value * NAN
        # The root of 0 has an infinite slope: the loss is right, the gradient of one bias is not.
        return value + (experiment.model.net.output.bias * 0).sqrt().sum()

    experiment.model.training_loss = bad
    return experiment


def fit(experiment: Experiment) -> None:
    experiment.trainer.fit(experiment.model, datamodule=experiment.data, weights_only=True)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize(
    ("kind", "said"),
    [("loss", "train/loss is nan"), ("gradient", "the gradient of net.output.bias is not finite")],
)
def test_the_step_and_the_metric_are_named_and_the_last_good_checkpoint_stays(
    steps: int, kind: str, said: str, build: Build, tmp_path: Path
) -> None:
    experiment = poisoned(build, 12, kind, f"steps_per_execution={steps}")
    with pytest.raises(FloatingPointError, match=rf"^step 12: {said}: the learning rate"):
        fit(experiment)
    for name in ("best", "last"):
        content = torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert content["global_step"] == 9  # of the first epoch's validation
        assert all(weights.isfinite().all() for weights in content["state_dict"].values())
    assert all(p.isfinite().all() for p in experiment.model.parameters())


@pytest.fixture
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the guard not wait for its device."""
    start = NonFinite.on_train_start

    def as_on_a_gpu(self: NonFinite, *arguments: Any) -> None:
        start(self, *arguments)
        self._waits = False

    monkeypatch.setattr(NonFinite, "on_train_start", as_on_a_gpu)


@pytest.mark.usefixtures("_as_on_a_gpu")
def test_a_step_is_checked_once_by_a_run_that_does_not_wait_for_its_device(build: Build) -> None:
    experiment = poisoned(build, 99, "loss", "steps_per_execution=4")
    fit(experiment)
    [guard] = [c for c in experiment.trainer.callbacks if isinstance(c, NonFinite)]
    assert guard._unchecked == []


@pytest.mark.usefixtures("_as_on_a_gpu")
def test_a_run_that_does_not_wait_for_its_device_names_the_step_later(
    build: Build, tmp_path: Path
) -> None:
    with pytest.raises(FloatingPointError, match=r"^step 12: a gradient is not finite: "):
        fit(poisoned(build, 12, "gradient", "steps_per_execution=4"))
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 9


def test_weights_that_are_not_finite_are_never_saved(build: Build, tmp_path: Path) -> None:
    class Spoiler(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                pl_module.net.hidden.weight.data[0, 0] = float("inf")

    experiment = poisoned(build, 99, "loss")
    experiment.trainer.callbacks.insert(0, Spoiler())
    with pytest.raises(FloatingPointError, match=r"^step 18: the weights of net.hidden.weight"):
        fit(experiment)
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 9


def test_finite_weights_whose_sum_is_not_are_saved(build: Build) -> None:
    trainer: Any = build("logger=none").trainer
    layer: Any = torch.nn.Linear(2, 2)
    [guard] = [c for c in trainer.callbacks if isinstance(c, NonFinite)]
    guard._batch, trainer.optimizers = [], [torch.optim.SGD(layer.parameters(), 0.1)]
    layer.weight.data.fill_(3e38)
    assert not layer.weight.sum().isfinite()
    guard.on_save_checkpoint(trainer, layer, {})
    layer.weight.data[0, 0] = NAN
    with pytest.raises(FloatingPointError, match="the weights of weight are not finite"):
        guard.on_save_checkpoint(trainer, layer, {})


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_skip_leaves_the_step_out_and_counts(
    kind: str, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    class Watch(Callback):
        """Keep the weights and the optimizer's state after each step."""

        def __init__(self) -> None:
            self.seen: list[list[torch.Tensor]] = []

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
            states = trainer.optimizers[0].state.values()
            kept = [*pl_module.parameters(), *(t for state in states for t in state.values())]
            self.seen.append([tensor.detach().clone() for tensor in kept])

    ends = []
    for steps in (1, 4):
        skip = ("callbacks.non_finite.action=skip", f"steps_per_execution={steps}")
        experiment, watch = poisoned(build, 12, kind, *skip), Watch()
        experiment.trainer.callbacks.insert(0, watch)
        fit(experiment)
        assert experiment.trainer.global_step == 27
        assert experiment.trainer.callback_metrics["train/skipped_steps"] == 1
        assert experiment.trainer.callback_metrics["train/loss"].isfinite()
        assert "1 of 27 steps were skipped" in capsys.readouterr().out
        ends.append(watch.seen[-1])
        if steps == 1:
            before, after, later = watch.seen[10:13]
            assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
            assert not all(torch.equal(a, b) for a, b in zip(after, later, strict=True))
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(*ends, strict=True))


def test_a_point_of_skipped_steps_alone_has_no_loss(build: Build) -> None:
    words = ("callbacks.non_finite.action=skip", "trainer.log_every_n_steps=1")
    experiment, kept = poisoned(build, 12, "loss", "steps_per_execution=1", *words), Kept()
    experiment.trainer.loggers = [kept]
    fit(experiment)
    losses = {step: m["train/loss"] for step, m in kept.points if "train/loss" in m}
    assert [step for step, loss in losses.items() if not math.isfinite(loss)] == [11]
    assert list(losses) == list(range(27))


class Ranks:
    """A Trainer of two processes, of which the other one has found something or not."""

    world_size, global_step, precision, optimizers = 2, 4, "32-true", ()

    def __init__(self, other: bool) -> None:
        self.other, self.asked = other, []
        self.strategy = self.fit_loop = self.epoch_loop = self

    def reduce_boolean_decision(self, decision: bool, all: bool) -> bool:
        assert not all
        self.asked.append(decision)
        return decision or self.other


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("bad", [False, True])
def test_ranks_skip_together(bad: bool, other: bool) -> None:
    layer, trainer, guard = torch.nn.Linear(2, 1), Ranks(other), NonFinite("skip")
    optimizer, guard._waits, guard._scaled = torch.optim.SGD(layer.parameters(), 0.1), True, False
    for value in layer.parameters():
        value.grad = torch.full_like(value, NAN if bad else 1.0)
    guard.on_before_optimizer_step(trainer, layer, optimizer)
    assert trainer.asked == [bad]
    assert guard.skipped == (bad or other)
    assert all((p.grad is None) == (bad or other) for p in layer.parameters())


def test_a_rank_whose_step_is_fine_stops_with_the_others_and_an_overflow_is_not_a_fault() -> None:
    layer, guard = torch.nn.Linear(2, 1), NonFinite("stop")
    optimizer, guard._waits, guard._scaled = torch.optim.SGD(layer.parameters(), 0.1), True, False
    for value in layer.parameters():
        value.grad = torch.full_like(value, 3e38)  # whose norm is infinite
    alone = Ranks(other=False)
    guard.on_before_optimizer_step(alone, layer, optimizer)
    assert alone.asked == [False]
    together: Any = Ranks(other=True)
    together.optimizers = [optimizer]
    with pytest.raises(FloatingPointError, match=r"^step 5: not finite on another process: "):
        guard.on_before_optimizer_step(together, layer, optimizer)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_resumed_run_counts_on_and_logs_each_skipped_step_once(
    steps: int, build: Build, tmp_path: Path
) -> None:
    skip = ("callbacks.non_finite.action=skip", f"steps_per_execution={steps}")
    fit(poisoned(build, 12, "loss", *skip))
    again, kept = poisoned(build, 3, "gradient", "trainer.max_epochs=4", *skip), Kept()
    again.trainer.loggers = [kept]
    last = tmp_path / "checkpoints" / "last.ckpt"
    again.trainer.fit(again.model, datamodule=again.data, ckpt_path=last, weights_only=True)
    name = "train/skipped_steps"
    assert [(step, point[name]) for step, point in kept.points if name in point] == [(29, 2.0)]


def test_what_the_batch_brought_is_not_blamed_on_the_learning_rate(build: Build) -> None:
    experiment = build("model.hidden_features=8", "logger=none")
    inputs, _ = experiment.data.split("train")
    inputs[3] = NAN
    with pytest.raises(
        FloatingPointError, match=r"^step \d+: train/loss is nan: the batch contains"
    ):
        fit(experiment)


@pytest.mark.parametrize("model", options("model"))
def test_a_run_that_diverges_ends_with_one_line(
    model: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["trainer.accelerator=cpu", "trainer.max_epochs=20", "optimizer.lr=1e30"]
    quick += ["data.rows=256"] if model == "teacher" else []
    with pytest.raises(SystemExit) as ended:
        command.here("train", f"model={model}", *quick)
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: FloatingPointError: step ")
    assert "optimizer.lr" in error
    assert error.count("\n") == 1
    assert json.loads((command.latest / "run.json").read_text())["status"] == "failed"
    for path in (command.latest / "checkpoints").glob("*"):
        weights = torch.load(path, weights_only=True)["state_dict"].values()
        assert all(tensor.isfinite().all() for tensor in weights)
