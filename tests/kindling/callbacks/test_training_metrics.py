"""The logged training loss is the mean of the steps since the last point, whatever the epochs."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from src.kindling.build import Experiment
from src.kindling.callbacks import training_metrics
from src.kindling.callbacks.training_metrics import TrainingMetrics, _samples
from src.kindling.process.quiet import quiet_lightning

Build = Callable[..., Experiment]


class Kept(Logger):
    """A logger that keeps what it is given."""

    name, version = "kept", 0

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.points.append((step, metrics))

    def log_hyperparams(self, params: Any = None, *args: Any, **kwargs: Any) -> None:
        """Keep nothing."""


class Losses(Callback):
    """Compute the loss of each step's batches before the step, as a plain loop would print it."""

    def __init__(self) -> None:
        self.of_step: list[float] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if isinstance(batch[0], torch.Tensor):
            with torch.no_grad():
                self.of_step.append(pl_module.training_loss(batch).item())


def fitted(build: Build, *overrides: str) -> tuple[Experiment, Kept, Losses]:
    experiment = build("model.hidden_features=16", "logger=none", *overrides)
    kept, losses = Kept(), Losses()
    experiment.trainer.loggers = [kept]
    experiment.trainer.callbacks.insert(0, losses)
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    return experiment, kept, losses


def test_a_point_every_n_steps_is_the_mean_loss_of_these_steps(build: Build) -> None:
    several = ("trainer.max_epochs=6", "trainer.log_every_n_steps=5", "steps_per_execution=1")
    _, kept, losses = fitted(build, *several)
    points = [(step, m["train/loss"]) for step, m in kept.points if "train/loss" in m]
    assert [step for step, _ in points] == [4, 9, 14, 19, 23]  # 24 steps; the last point is short
    ends = [0, 5, 10, 15, 20, 24]
    expected = [sum(losses.of_step[a:b]) / (b - a) for a, b in itertools.pairwise(ends)]
    assert [loss for _, loss in points] == pytest.approx(expected, rel=1e-5)


def test_the_mean_is_the_same_wherever_the_sum_is_cut(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("trainer.max_epochs=7", "trainer.log_every_n_steps=12", "steps_per_execution=2")
    whole, sums = losses_logged(build, *words), []
    add_up = TrainingMetrics._add_up
    monkeypatch.setattr(training_metrics, "MOST", 2)
    monkeypatch.setattr(TrainingMetrics, "_add_up", lambda self: sums.append(1) or add_up(self))
    assert losses_logged(build, *words) == whole  # to the last bit
    assert len(sums) > 2 * len(whole) > 2


def losses_logged(build: Build, *overrides: str) -> list[float]:
    _, kept, _ = fitted(build, *overrides)
    return [m["train/loss"] for _, m in kept.points if "train/loss" in m]


@pytest.mark.parametrize("steps", [1, 3])
def test_accumulated_batches_and_grouped_steps_log_the_same_mean(build: Build, steps: int) -> None:
    experiment, kept, _ = fitted(
        build,
        "trainer.max_epochs=3",
        "trainer.log_every_n_steps=2",
        "trainer.accumulate_grad_batches=2",
        "optimizer.lr=0",
        "optimizer.weight_decay=0",
        "data.shuffle=false",
        "data.batch_size=219",  # four batches: 219 * 4 = 876 of 877, and one of one row
        f"steps_per_execution={steps}",
    )
    # The weights never change, so over whole epochs the mean is a plain mean over the batches.
    with torch.no_grad():
        losses = [
            experiment.model.training_loss(b).item() for b in experiment.data._loader("train")
        ]
    ends = [step + 1 for step, m in kept.points if "train/loss" in m]
    logged = [m["train/loss"] for _, m in kept.points if "train/loss" in m]
    # An epoch is 5 batches in 3 steps: of two batches, of two, and of one.
    batch_of = list(itertools.accumulate([2, 2, 1] * 3, initial=0))
    expected = [
        sum((losses * 3)[batch_of[a] : batch_of[b]]) / (batch_of[b] - batch_of[a])
        for a, b in itertools.pairwise([0, *ends])
    ]
    assert logged == pytest.approx(expected, rel=1e-5)
    assert ends[-1] == experiment.trainer.global_step == 9


def test_learning_rate_and_throughput_are_logged(build: Build) -> None:
    experiment, kept, _ = fitted(build, "trainer.max_epochs=5", "scheduler=constant")
    point = next(m for _, m in kept.points if "train/lr" in m)
    assert point["train/lr"] == experiment.config["optimizer"]["lr"]
    assert point["train/samples_per_second"] > 0


@pytest.mark.parametrize(
    ("batch", "count"),
    [
        (torch.zeros(5, 2), 5),
        ((torch.zeros(5, 2), torch.zeros(5)), 5),
        ([torch.zeros(5, 2), torch.zeros(5)], 5),
        ([[torch.zeros(5, 2), torch.zeros(5)], torch.zeros(3)], 5),
        ({"x": torch.zeros(4, 2)}, 4),
    ],
)
def test_rows_are_counted_in_every_form_of_batch(batch: Any, count: int) -> None:
    assert _samples(batch) == count


class Stream(torch.utils.data.IterableDataset[torch.Tensor]):
    """Rows that come without being counted."""

    def __iter__(self) -> Any:
        yield from torch.ones(14, 1)


class Plain(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return (batch * self.weight - 1).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


class Manual(Plain):
    """Steps by itself, and returns no loss."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


def trained_on_a_stream(model: pl.LightningModule, folder: Path) -> Kept:
    quiet_lightning()
    kept = Kept()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        log_every_n_steps=5,
        callbacks=[TrainingMetrics()],
        logger=kept,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(model, torch.utils.data.DataLoader(Stream(), 2))
    return kept


def test_a_stream_without_a_length_is_logged_too(tmp_path: Path) -> None:
    kept = trained_on_a_stream(Plain(), tmp_path)
    assert [step for step, _ in kept.points] == [4, 9, 13]
    losses = [(1 - 0.2) ** (2 * step) for step in range(14)]
    parts = losses[:5], losses[5:10], losses[10:]
    found = [point["train/loss"] for _, point in kept.points]
    assert found == pytest.approx([sum(part) / len(part) for part in parts], rel=1e-5)


def test_a_manual_step_without_a_loss_logs_all_but_a_loss(tmp_path: Path) -> None:
    points = trained_on_a_stream(Manual(), tmp_path).points
    assert [step for step, _ in points] == [4, 9]
    for _, point in points:
        assert {"train/lr", "train/samples_per_second"} <= point.keys()
        assert "train/loss" not in point
