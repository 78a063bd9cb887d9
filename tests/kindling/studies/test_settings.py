"""Which way a metric is optimized."""

from src.kindling.studies.settings import directions


def test_a_metric_is_optimized_as_given_or_as_its_checkpoints_or_as_its_name_says() -> None:
    kept = {"monitor": "val/cost", "mode": "min"}
    assert directions(["val/cost", "val/auc", "val/loss"], None, kept) == ["min", "max", "min"]
    assert directions(["val/cost"], None, {"monitor": None, "mode": "min"}) == ["max"]
    assert directions(["val/cost"], None, None) == ["max"]
    assert directions(["val/cost"], "max", kept) == ["max"]
