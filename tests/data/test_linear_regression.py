"""Rows of y = X beta + noise against the distribution that they are said to have."""

import numpy as np
import pytest
import torch

from src.data.linear_regression import LinearRegressionData

STAGES = ("train", "val", "test")
ROWS = {"rows": 5, "val_rows": 7, "test_rows": 11}


def rows_of(data):
    return {stage: data.split(stage) for stage in STAGES}


def residual(data, stage):
    """y - X beta in float64, for the coefficients that the data was asked for."""
    X, y = (part.numpy().astype(np.float64) for part in data.split(stage))
    return y - X @ np.array(data.hparams.coefficients, dtype=np.float64)[:, None]


@pytest.mark.parametrize("coefficients", [[3.0], [-1.0, 2.0], [1.0, 0.0, -2.0, 0.5]])
def test_splits_have_the_shapes_that_were_asked_for(coefficients):
    D = len(coefficients)
    data = LinearRegressionData(in_features=D, coefficients=coefficients, **ROWS)
    for stage, N in zip(STAGES, ROWS.values(), strict=True):
        X, y = data.split(stage)
        assert (X.shape, y.shape) == ((N, D), (N, 1))
        assert X.dtype == y.dtype == torch.float32
    assert (data.in_features, data.out_features, data.target) == (D, 1, "value")


def test_loaders_give_the_rows_of_their_split():
    data = LinearRegressionData(**ROWS, batch_size=4, shuffle=False)
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    for stage, loader in zip(STAGES, loaders, strict=True):
        for column, batches in zip(data.split(stage), zip(*loader, strict=True), strict=True):
            assert torch.equal(torch.cat(batches), column)


def test_rows_repeat_with_their_seed():
    first, again, other = (rows_of(LinearRegressionData(seed=seed)) for seed in (3, 3, 4))
    for stage in STAGES:
        assert all(map(torch.equal, first[stage], again[stage]))
        assert not any(map(torch.equal, first[stage], other[stage]))


def test_rows_leave_torchs_own_generator_alone():
    before = torch.random.get_rng_state()
    rows_of(LinearRegressionData())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_splits_share_no_row():
    X = torch.cat([data for data, _ in rows_of(LinearRegressionData()).values()])
    assert len(X.unique(dim=0)) == len(X) == 150


def test_splits_are_uncorrelated():
    data = LinearRegressionData(rows=20_000, val_rows=20_000, test_rows=20_000)
    columns = [data.split(stage)[0].numpy() for stage in STAGES]
    columns += [residual(data, stage) for stage in STAGES]
    correlation = np.corrcoef(np.hstack(columns), rowvar=False)
    # Of 20,000 independent pairs it has a standard deviation of 0.0071; five are allowed.
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.036


def test_training_rows_do_not_depend_on_how_many_others_there_are():
    few, many = (LinearRegressionData(val_rows=n, test_rows=n).split("train") for n in (3, 300))
    assert all(map(torch.equal, few, many))


@pytest.mark.parametrize("noise", [0.1, 2.0])
@pytest.mark.parametrize("stage", STAGES)
def test_residual_is_normal_noise_of_the_variance_asked_for(stage, noise):
    N = 40_000
    data = LinearRegressionData(noise=noise, rows=N, val_rows=N, test_rows=N)
    rest = residual(data, stage) / noise
    # Standard errors at N = 40,000: mean 0.005, variance 0.0071, fourth moment 0.049.
    assert abs(rest.mean()) < 5 * 0.005
    assert abs(rest.var() - 1) < 5 * 0.0071
    assert abs((rest**4).mean() - 3) < 5 * 0.049


def test_features_are_standard_normal():
    X = LinearRegressionData(rows=40_000).split("train")[0].numpy().astype(np.float64)
    assert np.abs(X.mean(axis=0)).max() < 5 * 0.005
    assert np.abs(X.var(axis=0) - 1).max() < 5 * 0.0071


def test_without_noise_the_rows_are_exact():
    data = LinearRegressionData(in_features=3, coefficients=[0.5, -4.0, 2.0], noise=0.0, **ROWS)
    for stage in STAGES:
        # To the rounding of three products in float32.
        np.testing.assert_allclose(residual(data, stage), 0.0, atol=1e-5)


def test_least_squares_finds_the_coefficients_without_noise():
    X, y = LinearRegressionData(noise=0.0).split("train")
    beta = np.linalg.lstsq(X.numpy(), y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(beta[:, 0], [-1.0, 2.0], rtol=1e-5)


def test_takes_whole_numbers_as_coefficients():
    whole, real = (
        LinearRegressionData(coefficients=beta).split("train") for beta in ([3, 1], [3.0, 1.0])
    )
    assert all(map(torch.equal, whole, real))


@pytest.mark.parametrize("coefficients", [[], [1.0], [1.0, 2.0, 3.0]])
def test_refuses_coefficients_that_are_not_one_a_feature(coefficients):
    with pytest.raises(ValueError, match="in_features=2") as refusal:
        LinearRegressionData(in_features=2, coefficients=coefficients)
    assert str(coefficients) in str(refusal.value)
