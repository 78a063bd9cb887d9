"""Runs are grouped by what they were set to, ranked by what their checkpoints went by."""

import math

import pytest

from src.kindling.files import run_record
from src.kindling.results import comparison, comparison_text, runs
from src.kindling.results.significance import summary
from tests.kindling.results.test_runs import METRICS, plant


@pytest.fixture
def compared(tmp_path):
    """Return a comparison of runs that are planted with these metrics and settings."""

    def made(*described, metric=None, mode=None):
        planted = [
            runs.read(plant(tmp_path / str(i), METRICS | metrics, **changes))
            for i, (metrics, changes) in enumerate(described)
        ]
        return comparison.compare(planted, metric, mode)

    return made


def loss(value, **changes):
    return {"val/loss": value}, changes


def test_runs_that_differ_only_in_their_seed_are_one_setting(compared):
    one = compared(
        *(loss(value, seed=seed) for seed, value in enumerate([1.0, 2.0, 3.0])),
        *(
            loss(value, seed=seed, **{"optimizer.lr": 0.1})
            for seed, value in enumerate([0.5, 0.7, 0.6])
        ),
    )
    assert [setting.values for setting in one.settings] == [
        {"optimizer.lr": 0.1},
        {"optimizer.lr": 0.01},
    ]
    assert [len(setting.runs) for setting in one.settings] == [3, 3]
    assert one.settings[1].summary("val/loss") == summary([1.0, 2.0, 3.0])
    assert one.settings[1].summary("val/nothing") is None
    assert one.best.metrics["val/loss"] == 0.5
    assert one.settings[0].label == "optimizer.lr=0.1"
    [difference] = one.differences
    assert (difference.first, difference.second) == (0, 1)
    assert difference.difference == pytest.approx(-1.4)


def fold(value, number, seed=0, **changes):
    return loss(value, seed=seed, **{"data.folds": 2, "data.fold": number, **changes})


def test_the_folds_of_one_seed_have_a_spread_and_no_interval(compared):
    one = compared(fold(1.0, 0), fold(2.0, 1), fold(3.0, 0, x=1), fold(5.0, 1, x=1), fold(4.0, 1))
    assert [len(setting.runs) for setting in one.settings] == [2, 2]
    assert [run.path.name for run in one.repeated] == ["1"]
    found = one.settings[0].summary("val/loss")
    assert (found.n, found.mean, found.low, found.high) == (2, 2.5, None, None)
    assert found.sd == pytest.approx(1.5 * math.sqrt(2))
    assert one.differences == []
    *_, folds, repeated = comparison_text.notes(one)
    assert folds == "folds share rows: their mean counts once; intervals and tests are over seeds"
    assert repeated.startswith("skipped 1, an older run of the same settings and seed and fold: ")


def test_intervals_and_tests_of_folds_are_over_their_means_per_seed(compared):
    described = [
        fold(value + part + 10 * x, part, seed, x=x)
        for seed, value in enumerate([1.0, 2.0, 3.0])
        for part in (0, 1)
        for x in (0, 1)
    ]
    one = compared(*described)
    assert one.settings[0].summary("val/loss") == summary([1.5, 2.5, 3.5])
    assert [d.df for d in one.differences] == [pytest.approx(4.0)]
    assert "different numbers of folds" not in "".join(comparison_text.notes(one))
    fewer = comparison.compare(one.runs[1:])
    assert "different numbers of folds" in "".join(comparison_text.notes(fewer))


def test_a_seed_of_the_data_that_is_not_the_runs_is_a_setting(compared):
    one = compared(
        loss(1.0, seed=1),
        loss(2.0, seed=2),
        loss(3.0, **{"seed": 3, "data.seed": 7}),
        loss(4.0, **{"seed": 4, "data.seed": 7}),
    )
    assert [len(setting.runs) for setting in one.settings] == [2, 2]


def test_where_a_run_writes_is_no_setting(compared):
    one = compared(loss(1.0, seed=1, log_dir="a"), loss(2.0, seed=2, log_dir="b", resume="x"))
    assert len(one.settings) == 1
    assert one.settings[0].label == ""


def test_of_a_seed_that_is_repeated_the_newest_run_counts(compared):
    one = compared(loss(1.0), loss(2.0, seed=1), loss(5.0))
    assert [run.path.name for run in one.repeated] == ["0"]
    assert one.settings[0].sample("val/loss") == [2.0, 5.0]


def test_three_settings_are_said_by_what_is_unusual(compared):
    adam = {"optimizer._target_": "torch.optim.Adam"}
    sgd = {"optimizer._target_": "torch.optim.SGD", "optimizer.momentum": 0.9, "optimizer.lr": 0.5}
    one = compared(loss(1.0), loss(2.0, **adam), loss(3.0, **sgd))
    said = [setting.label for setting in one.settings]
    assert said == ["optimizer=AdamW", "optimizer=Adam", "optimizer=SGD optimizer.lr=0.5"]
    assert one.defaults == "optimizer.lr=0.01"
    assert "optimizer.momentum" in one.keys  # files have it


@pytest.mark.parametrize(
    ("metric", "mode", "best"),
    [(None, None, 1.0), ("test/accuracy", None, 3.0), ("test/accuracy", "min", 1.0)],
)
def test_the_best_comes_first(compared, metric, mode, best):
    described = [
        ({"val/loss": v, "test/accuracy": v}, {"seed": 0, "x": v}) for v in (2.0, 1.0, 3.0)
    ]
    one = compared(*described, metric=metric, mode=mode)
    assert one.best.metrics["test/accuracy"] == best
    assert one.metrics[0] == (metric or "val/loss")


def test_what_is_no_number_or_missing_comes_last(compared):
    one = compared(
        loss(math.nan, x=1), ({"test/only": 1}, {"x": 2}), loss(2.0, x=3), loss(-math.inf, x=4)
    )
    assert {setting.values["x"] for setting in one.settings[:2]} == {2, 3}
    values = [setting.summary("val/loss").mean for setting in one.settings]
    assert values[:2] == [2.0, 2.0]
    assert [math.isnan(value) for value in values[2:]] == [True, True]


@pytest.mark.parametrize(
    ("changes", "metrics", "expected"),
    [
        ({}, ["val/loss", "train/loss"], ("val/loss", "min")),
        ({}, ["train/loss"], ("train/loss", "min")),
        ({}, ["test/accuracy"], ("test/accuracy", "max")),
        ({"callbacks.checkpointing.monitor": "val/r2"}, ["val/r2", "val/loss"], ("val/r2", "min")),
        (
            {
                "callbacks.checkpointing.monitor": "val/r2",
                "callbacks.checkpointing.mode": "max",
            },
            ["val/r2", "val/loss"],
            ("val/r2", "max"),
        ),
        (
            {"model._target_": "src.models.linear_regression.LinearRegression"},
            ["train/loss", "val/loss"],
            ("val/loss", "min"),
        ),
        ({"model._target_": "no.such.models.Model"}, ["val/loss"], ("val/loss", "min")),
        ({"model._target_": 3}, ["val/loss"], ("val/loss", "min")),
        ({"model._target_": "x" * 5000 + ".y"}, ["val/loss"], ("val/loss", "min")),
        ({"model._target_": "../../x.y"}, ["val/loss"], ("val/loss", "min")),
        ({"callbacks.checkpointing": []}, ["val/loss"], ("val/loss", "min")),
    ],
)
def test_the_metric_is_the_one_that_the_checkpoints_went_by(tmp_path, changes, metrics, expected):
    run = runs.read(plant(tmp_path / "a", dict.fromkeys(metrics, 1.0), **changes))
    one = comparison.compare([run])
    assert (one.metric, one.mode) == expected


def test_the_monitor_of_most_runs_ranks(tmp_path):
    monitored = [{"metric": "val/r2", "mode": "max"}] + 2 * [{"metric": "val/mse", "mode": "min"}]
    found = []
    for i, monitor in enumerate(monitored):
        path = plant(tmp_path / str(i), {"val/r2": 1.0, "val/mse": 1.0}, seed=i)
        run_record.write_json(path / "run.json", {"status": "finished", "monitor": monitor})
        found.append(runs.read(path))
    one = comparison.compare(found)
    assert (one.metric, one.mode) == ("val/mse", "min")
    one = comparison.compare(found[:1])
    assert (one.metric, one.mode) == ("val/r2", "max")
    assert comparison.compare(found, "val/r2").mode == "max"  # by its name


@pytest.mark.parametrize("monitor", [None, 3, {"metric": 3, "mode": ["x"]}, {"metric": None}])
def test_a_recorded_monitor_may_be_anything(tmp_path, monitor):
    path = plant(tmp_path / "a")
    run_record.write_json(path / "run.json", {"status": "finished", "monitor": monitor})
    one = comparison.compare([runs.read(path)])
    assert (one.metric, one.mode) == ("val/loss", "min")


def on(device, path, **changes):
    run_record.write_json(
        plant(path, **changes) / "run.json", {"status": "finished", "device": device}
    )
    return runs.read(path)


def test_auto_is_the_device_that_it_stood_for(tmp_path):
    key = "trainer.accelerator"
    auto = {key: "auto", "trainer.devices": "auto"}
    planted = [
        on(
            "cpu, 1 process(es)", tmp_path / "a", seed=1, **{key: "auto", "trainer.devices": "auto"}
        ),
        on("cpu, 1 process(es)", tmp_path / "b", seed=2, **{key: "cpu", "trainer.devices": 1}),
    ]
    assert len(comparison.compare(planted).settings) == 1
    gpu = on("cuda: NVIDIA H100", tmp_path / "c", seed=3, **{key: "auto"})  # not a run's record
    assert len(comparison.compare([*planted, gpu]).settings) == 2
    planted.append(on("cuda: NVIDIA H100, 2 process(es)", tmp_path / "d", seed=3, **auto))
    labels = [setting.label for setting in comparison.compare(planted).settings]
    assert sorted(labels) == [
        "trainer.accelerator=cpu trainer.devices=1",
        "trainer.accelerator=cuda trainer.devices=2",
    ]


def test_on_several_nodes_the_number_of_devices_is_not_that_of_processes(tmp_path):
    changes = {"trainer.num_nodes": 2, "trainer.devices": 1, "trainer.accelerator": "cpu"}
    one = on("cpu, 2 process(es)", tmp_path / "a", **changes)
    two = on("cpu, 1 process(es)", tmp_path / "b", **{**changes, "trainer.num_nodes": 1})
    labels = [setting.label for setting in comparison.compare([one, two]).settings]
    assert sorted(labels) == ["trainer.num_nodes=1", "trainer.num_nodes=2"]


def test_a_value_of_half_of_the_settings_is_not_a_default(compared):
    one = compared(loss(1.0, x=1), loss(2.0, x=2))
    assert [setting.label for setting in one.settings] == ["x=1", "x=2"]
    assert one.defaults == ""


def test_true_is_another_setting_than_1(compared):
    one = compared(loss(1.0, x=1), loss(2.0, x=1, y=0), loss(3.0, x=True))
    assert [setting.label for setting in one.settings] == ["", "y=0", "x=true"]


def test_the_best_run_is_the_best_of_the_best_setting(compared):
    one = compared(loss(3.0, seed=1), loss(1.0, seed=2), loss(2.0, seed=3))
    assert one.best.metrics["val/loss"] == 1.0


def test_only_significant_differences_are_named(compared):
    described = [loss(v, x=x, seed=s) for x in (1, 2) for s, v in enumerate([1.0, 2.0, 3.0 + x])]
    one = compared(*described)
    assert [d.significant for d in one.differences] == [False]
    assert one.significantly_different(0) == []
