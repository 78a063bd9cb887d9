"""The two-layer net's recipes against sums and a straight line."""

from collections.abc import Callable

import pytest
import torch

from src.kindling.build import Experiment

Build = Callable[..., Experiment]


def test_a_summed_test_loss_is_the_sum_over_all_rows_whatever_the_batch(build: Build) -> None:
    losses = []
    for batch_size in (64, 1000):
        experiment = build(
            "model=two_layer_net", f"data.batch_size={batch_size}", "data.rows=64", "logger=none"
        )
        [metrics] = experiment.trainer.test(
            experiment.model, datamodule=experiment.data, verbose=False
        )
        losses.append(metrics["test/loss"])
    x, y = experiment.data.split("test")
    with torch.no_grad():
        total = float((experiment.model(x) - y).double().square().sum())
    assert losses == pytest.approx([total, total], rel=1e-5)


def test_random_targets_train_without_validation_and_test(build: Build, tmp_path) -> None:
    experiment = build("model=two_layer_net", "data.targets=random", "trainer.max_epochs=50")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    assert experiment.trainer.global_step == 50  # 64 rows are one batch
    assert not [name for name in experiment.trainer.callback_metrics if name.startswith("val/")]
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()


def test_the_default_recipe_finds_what_no_line_can(build: Build) -> None:
    experiment = build("model=two_layer_net", "logger=none")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    [metrics] = experiment.trainer.test(experiment.model, datamodule=experiment.data, verbose=False)
    (x, y), (test_x, test_y) = experiment.data.split("train"), experiment.data.split("test")
    line = torch.linalg.lstsq(x.double(), y.double()).solution
    residual = ((test_x.double() @ line - test_y) ** 2).sum(dim=0)
    line_r2 = float((1 - residual / ((test_y - test_y.mean(dim=0)) ** 2).sum(dim=0)).mean())
    assert metrics["test/r2"] >= 0.95 > line_r2
