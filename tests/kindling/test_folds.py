"""Cross-validation: folds partition the training and validation rows, and leave the test alone."""

from typing import Any

import pytest
import torch

from src.kindling.data import BaseData, Split
from src.kindling.errors import InputError


class Numbered(BaseData):
    """Row i says i; 13 to train on, 4 to validate on, 3 to test on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(batch_size=4, shuffle=True, **{"seed": 0, **options})

    def splits(self) -> dict[str, Split]:
        numbers = torch.arange(20)
        parts = zip(("train", "val", "test"), numbers.split([13, 4, 3]), strict=True)
        return {stage: (rows[:, None].float(), rows) for stage, rows in parts}


def rows(stage: str, **options: Any) -> list[int]:
    split = Numbered(**options).split(stage)
    assert split is not None
    inputs, targets = split
    assert inputs[:, 0].tolist() == targets.tolist()
    return sorted(targets.tolist())


def test_each_row_is_validated_on_in_one_fold_and_trained_on_in_the_others() -> None:
    held_out = [rows("val", folds=5, fold=fold) for fold in range(5)]
    assert sorted(row for part in held_out for row in part) == list(range(17))
    assert {len(part) for part in held_out} == {3, 4}
    for fold, part in enumerate(held_out):
        assert sorted(part + rows("train", folds=5, fold=fold)) == list(range(17))
        assert rows("test", folds=5, fold=fold) == [17, 18, 19]


def test_the_folds_follow_from_the_seed() -> None:
    assert rows("val", folds=5, fold=1) == rows("val", folds=5, fold=1)
    assert rows("val", folds=5, fold=1) != rows("val", folds=5, fold=1, seed=1)


def test_without_folds_the_split_is_the_data_sets_own() -> None:
    assert rows("train") == list(range(13))


@pytest.mark.parametrize("options", [{"fold": 1}, {"folds": 3, "fold": 3}])
def test_a_fold_that_is_not_there_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"^fold={options['fold']}: must be below folds="):
        Numbered(**options)


def test_more_folds_than_rows_are_refused() -> None:
    with pytest.raises(InputError, match=r"^data.folds=18: must not exceed the 17 rows"):
        Numbered(folds=18).split("val")
