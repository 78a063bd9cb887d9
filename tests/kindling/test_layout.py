"""What is best of a metric follows from its name."""

import pytest

from src.kindling import layout

NAMES = {
    "val/loss": "min",
    "test/coefficient_error": "min",
    "train/memory_mb": "min",
    "test/accuracy": "max",
    "test/r2": "max",
    "val/auc": "max",
    "train/samples_per_second": "max",
    "val/gap": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_best_follows_from_a_name(name: str) -> None:
    assert layout.mode_of(name) == NAMES[name]
