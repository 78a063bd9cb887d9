"""The two-layer net against the tutorials' hand-derived backward pass, and a straight line."""

from collections.abc import Callable

import pytest
import torch

from src.kindling.build import Experiment
from src.models.two_layer_net import TwoLayerNet
from src.tour import two_layer_net_by_hand

Build = Callable[..., Experiment]
SIZES = N, D, H, C = 64, 1000, 100, 10
CLOSE = {"rtol": 1e-9, "atol": 1e-9}  # of gradients in the thousands


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_loss_and_every_gradient_equal_the_hand_derived_ones(reduction: str) -> None:
    x, y, w1, w2 = two_layer_net_by_hand.make_data(SIZES, seed=0)  # float64
    # One step of the NumPy loop at a learning rate of 1 moves each weight by its gradient.
    [loss], *moved = two_layer_net_by_hand.numpy_way(x, y, w1, w2, lr=1.0, steps=1)
    grad_w1, grad_w2 = w1 - moved[0], w2 - moved[1]
    scale = 1 if reduction == "sum" else 1 / (N * C)
    model = TwoLayerNet(D, H, C, bias=False, reduction=reduction).double()
    with torch.no_grad():
        model.net.hidden.weight.copy_(w1.T)
        model.net.output.weight.copy_(w2.T)
    found = model.training_loss((x, y))
    found.backward()
    assert found.item() == pytest.approx(loss * scale, rel=1e-12)
    torch.testing.assert_close(model.net.hidden.weight.grad.T, grad_w1 * scale, **CLOSE)
    torch.testing.assert_close(model.net.output.weight.grad.T, grad_w2 * scale, **CLOSE)


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
