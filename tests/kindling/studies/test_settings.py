"""Which way a metric is optimized."""

import pytest

from src.kindling.errors import InputError
from src.kindling.studies.settings import directions


def test_a_metric_is_optimized_as_given_or_as_its_checkpoints_or_as_its_name_says() -> None:
    kept: dict[str, str | None] = {"val/gap": "min"}
    assert directions(["val/gap", "val/auc", "val/loss"], None, kept) == ["min", "max", "min"]
    assert directions(["val/gap"], "max", kept) == ["max"]
    with pytest.raises(InputError, match=r"study\.mode: is val/gap better when lower \(min\)"):
        directions(["val/loss", "val/gap"], None, {"": "min"})
