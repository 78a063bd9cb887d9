"""The two-layer net against the tutorials' hand-derived backward pass, and a straight line."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from src.experiment import Experiment
from src.models.two_layer_net import TwoLayerNet

Build = Callable[..., Experiment]
RNG = np.random.default_rng(0)
N, D, H, C = 64, 1000, 100, 10


def tutorial_loss_and_gradients(x, y, w1, w2):
    """Return loss and gradients as NumPy, derived by hand; the tutorials' first version."""
    h = x @ w1  # [N, H]
    h_relu = np.maximum(h, 0)
    y_pred = h_relu @ w2  # [N, C]
    grad_y_pred = 2.0 * (y_pred - y)
    grad_w2 = h_relu.T @ grad_y_pred
    grad_h = grad_y_pred @ w2.T
    grad_h[h < 0] = 0
    return np.square(y_pred - y).sum(), x.T @ grad_h, grad_w2


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_loss_and_every_gradient_equal_the_hand_derived_ones(reduction: str) -> None:
    x, y = RNG.standard_normal((N, D)), RNG.standard_normal((N, C))
    w1, w2 = RNG.standard_normal((D, H)), RNG.standard_normal((H, C))
    loss, grad_w1, grad_w2 = tutorial_loss_and_gradients(x, y, w1, w2)
    scale = 1 if reduction == "sum" else 1 / (N * C)
    model = TwoLayerNet(D, H, C, bias=False, reduction=reduction).double()
    with torch.no_grad():
        model.net.hidden.weight.copy_(torch.from_numpy(w1.T))
        model.net.output.weight.copy_(torch.from_numpy(w2.T))
    found = model.training_loss((torch.from_numpy(x), torch.from_numpy(y)))
    found.backward()
    assert found.item() == pytest.approx(loss * scale, rel=1e-12)
    np.testing.assert_allclose(model.net.hidden.weight.grad.numpy().T, grad_w1 * scale, rtol=1e-9)
    np.testing.assert_allclose(model.net.output.weight.grad.numpy().T, grad_w2 * scale, rtol=1e-9)


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
