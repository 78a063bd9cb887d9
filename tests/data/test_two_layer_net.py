"""Rows of the two-layer net: noise as in the tutorials, or a teacher's that NumPy can recompute."""

import numpy as np
import pytest
import torch

from src.data.two_layer_net import TwoLayerNetData

SMALL = {"in_features": 20, "out_features": 3, "teacher_features": 5}
ROWS = {"train": 6, "val": 7, "test": 8}
COUNTS = {"rows": 6, "val_rows": 7, "test_rows": 8}


def taught(data, X):
    """What the teacher of the data, a two-layer net without biases, makes of rows X in NumPy."""
    generator = torch.Generator().manual_seed(data.seed)
    hidden, output = (part.numpy().astype(np.float64) for part in data._teacher(generator))
    return np.maximum(X.numpy().astype(np.float64) @ hidden, 0.0) @ output


def test_random_targets_have_training_rows_alone():
    data = TwoLayerNetData(targets="random", **SMALL, **COUNTS)
    X, Y = data.split("train")
    assert (X.shape, Y.shape) == ((6, 20), (6, 3))
    assert data.split("val") is None
    assert data.split("test") is None
    assert list(data.val_dataloader()) == list(data.test_dataloader()) == []


def test_random_targets_are_those_of_the_tutorials_by_default():
    X, Y = TwoLayerNetData(targets="random").split("train")
    assert (X.shape, Y.shape) == ((64, 1000), (64, 10))


def test_random_targets_are_standard_normal_and_know_nothing_of_the_features():
    N = 40_000
    data = TwoLayerNetData(targets="random", **SMALL, rows=N)
    both = torch.cat(data.split("train"), dim=1).numpy().astype(np.float64)
    # Standard errors: mean 0.005, variance 0.0071, correlation 0.005.
    assert np.abs(both.mean(axis=0)).max() < 5 * 0.005
    assert np.abs(both.var(axis=0) - 1).max() < 5 * 0.0071
    assert np.abs(np.corrcoef(both, rowvar=False) - np.eye(23)).max() < 5 * 0.005


def test_a_teacher_has_rows_for_every_stage():
    data = TwoLayerNetData(targets="teacher", **SMALL, **COUNTS)
    for stage, N in ROWS.items():
        X, Y = data.split(stage)
        assert (X.shape, Y.shape) == ((N, 20), (N, 3))
        assert X.dtype == Y.dtype == torch.float32
    assert (data.in_features, data.out_features, data.target) == (20, 3, "value")


def test_a_teacher_is_the_default():
    assert TwoLayerNetData().targets == "teacher"


@pytest.mark.parametrize("sizes", [SMALL, {}], ids=["small", "default"])
def test_without_noise_every_target_is_the_teachers(sizes):
    data = TwoLayerNetData(noise=0.0, **sizes, **COUNTS, seed=5)
    for stage in ROWS:
        X, Y = data.split(stage)
        np.testing.assert_allclose(Y, taught(data, X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("noise", [0.1, 2.0])
def test_noise_around_the_teacher_has_the_deviation_asked_for(noise):
    N = 40_000
    data = TwoLayerNetData(noise=noise, **SMALL, rows=10, val_rows=N, test_rows=10)
    X, Y = data.split("val")
    rest = (Y.numpy() - taught(data, X)) / noise
    # Standard errors: mean 0.005, variance 0.0071.
    assert np.abs(rest.mean(axis=0)).max() < 5 * 0.005
    assert np.abs(rest.var(axis=0) - 1).max() < 5 * 0.0071


@pytest.mark.parametrize(("D", "H"), [(500, 200), (1000, 10), (50, 500)])
def test_the_teachers_targets_have_a_variance_near_one(D, H):
    # Over the C outputs the mean variance spreads by (2 / (H C))**0.5 from the output weights and
    # by (2 / (H D))**0.5 from the hidden ones; 0.02 is for 2000 rows and correlated hidden units.
    C = 100
    data = TwoLayerNetData("teacher", D, C, H, noise=0.0, rows=2000, val_rows=1, test_rows=1)
    Y = data.split("train")[1]
    deviation = (2 / (H * C)) ** 0.5 + (2 / (H * D)) ** 0.5 + 0.02
    assert abs(Y.var(dim=0).mean().item() - 1) < 3 * deviation


def test_rows_repeat_with_their_seed_and_so_does_the_teacher():
    first, again, other = (TwoLayerNetData(**SMALL, **COUNTS, seed=seed) for seed in (3, 3, 4))
    for stage in ROWS:
        assert all(map(torch.equal, first.split(stage), again.split(stage)))
        assert not any(map(torch.equal, first.split(stage), other.split(stage)))
    X = first.split("train")[0]
    assert not np.allclose(taught(first, X), taught(other, X))


def test_splits_share_no_row():
    data = TwoLayerNetData(**SMALL, **COUNTS)
    X = torch.cat([data.split(stage)[0] for stage in ROWS])
    assert len(X.unique(dim=0)) == sum(ROWS.values())
