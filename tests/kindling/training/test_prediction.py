"""A model is asked with the typed arguments of one method, or else about its test rows."""

import io
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.utils.data import DataLoader

from src.kindling.errors import InputError
from src.kindling.training import prediction


class Model(pl.LightningModule):
    """Counts tokens in double precision; says what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        assert batch["tokens"].dtype == torch.int64
        assert batch["scale"].dtype == torch.float64
        assert not self.training
        return {"count": batch["tokens"].bool().sum(1), "scaled": batch["scale"] * self.weight}


class Asked(pl.LightningDataModule):
    """Asked with a prompt; its test rows come in two batches."""

    def prediction_inputs(self, prompt: str = "ab", length: PositiveInt = 3) -> dict[str, Tensor]:
        tokens = torch.tensor([[ord(c) for c in prompt] + [0] * (length - len(prompt))])
        return {"tokens": tokens, "scale": torch.tensor([0.5])}


class Unasked(pl.LightningDataModule):
    def test_dataloader(self) -> Any:
        rows = [{"tokens": torch.tensor([1, i]), "scale": torch.tensor(i / 2)} for i in range(3)]
        return DataLoader(rows, 2)  # type: ignore[arg-type]


def test_a_question_is_answered_with_its_defaults_and_with_what_is_asked() -> None:
    assert prediction.predict(Asked(), Model(), {}) == [{"count": 2, "scaled": 0.5}]
    assert prediction.predict(Asked(), Model(), {"prompt": "abcd", "length": 9})[0]["count"] == 4


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"prompts": "x"}, r"^prompts: this model is not asked for that: did you mean 'prompt'\?$"),
        (
            {"numbers": 3},
            r"^numbers: this model is not asked for that: choose from prompt, length$",
        ),
        ({"length": 0}, r"^length=0: must be greater than 0$"),
        ({"length": "x"}, r"^length=x: must be a valid integer$"),
        ({"prompt": 5}, r"^prompt=5: must be a valid string$"),
    ],
)
def test_what_does_not_fit_the_question_is_refused(asked: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        prediction.predict(Asked(), Model(), asked)


def test_without_a_question_the_test_rows_are_answered() -> None:
    rows = prediction.predict(Unasked(), Model(), {})
    assert rows == [{"count": 1 + (i > 0), "scaled": i / 2} for i in range(3)]
    with pytest.raises(InputError, match=r"^numbers: this model is not asked for that$"):
        prediction.predict(Unasked(), Model(), {"numbers": 1})


def test_without_a_question_and_test_rows_there_is_nothing_to_answer() -> None:
    class Empty(pl.LightningDataModule):
        def test_dataloader(self) -> Any:
            return []

    with pytest.raises(InputError, match="nothing to answer"):
        prediction.predict(Empty(), Model(), {})


def test_an_argument_without_a_default_is_needed() -> None:
    class Needs(Asked):
        def prediction_inputs(self, prompt: str) -> Any:  # type: ignore[override]
            return super().prediction_inputs(prompt)

    with pytest.raises(InputError, match=r"^prompt is missing"):
        prediction.predict(Needs(), Model(), {})


def test_the_model_may_ask_and_format_itself() -> None:
    class Own(Model):
        def prediction_inputs(self, scale: float = 2.0) -> Any:
            return {"tokens": torch.ones(1, 1).long(), "scale": torch.tensor([scale])}

        def prediction_rows(self, inputs: Any, answers: Any) -> Any:
            return [{"answer": answers["scaled"].item()}]

        def prediction_text(self, rows: Any) -> str:
            return f"the answer is {rows[0]['answer']}"

    rows = prediction.predict(Unasked(), Own(), {"scale": 4.0})
    assert prediction.text(Unasked(), Own(), rows) == "the answer is 4.0"


def test_rows_are_shown_and_written_as_tensors() -> None:
    rows = [{"a": i, "b": i / 3, "c": str(i)} for i in range(12)]
    lines = prediction.text(Unasked(), Model(), rows).splitlines()
    assert lines[1] == "a: 1  b: 0.3333  c: 1"
    assert lines[10:] == ["10 of 12 rows; output=FILE.csv writes all"]
    content = torch.load(io.BytesIO(prediction.as_tensors(rows)), weights_only=True)
    assert torch.equal(content["a"], torch.arange(12))
    assert content["c"] == [str(i) for i in range(12)]


def test_answers_other_than_tensors_are_a_row_per_batch() -> None:
    assert prediction.rows_of(["one", {"x": torch.tensor(1.0)}]) == [{"answer": "one"}, {"x": 1.0}]
    assert prediction.rows_of([{"x": [1, 2]}, {"x": [1, 2, 3], "y": torch.zeros(2)}]) == [
        {"x": [1, 2]}, {"x": [1, 2, 3], "y": [0.0, 0.0]},
    ]  # fmt: skip


def test_lists_and_tuples_of_answers_are_rows_and_columns() -> None:
    ragged = [torch.tensor([1.0]), torch.tensor([2.0, 3.0])]
    assert prediction.rows_of([ragged]) == [{"answer": [1.0]}, {"answer": [2.0, 3.0]}]
    named = [{"name": "a", "value": torch.tensor(1)}, {"name": "b", "value": torch.tensor(2)}]
    rows = [{"name": "a", "value": 1}, {"name": "b", "value": 2}]
    assert prediction.rows_of([named]) == rows
    assert prediction.rows_of([{"name": ["a", "b"], "value": torch.tensor([1, 2])}]) == rows
    pair = (torch.tensor([1, 2]), torch.tensor([3, 4]))
    assert prediction.rows_of([pair]) == [
        {"answer_0": 1, "answer_1": 3},
        {"answer_0": 2, "answer_1": 4},
    ]
    mixed = [{"a": {"b": 1}}, {"c": 2}]
    content = torch.load(io.BytesIO(prediction.as_tensors(mixed)), weights_only=True)
    assert content == {"a": [{"b": 1}, None], "c": [None, 2]}


class Scaled(pl.LightningModule):
    """Scales its batches in the hook that Lightning's documentation scales them in."""

    def forward(self, rows: Tensor) -> Tensor:
        return rows.sum(1)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        assert not self.trainer.training
        return batch * 10**dataloader_idx

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return {"sum": self(batch), "of": torch.full((len(batch),), dataloader_idx)}


class SeveralLoaders(pl.LightningDataModule):
    def predict_dataloader(self) -> Any:
        return [DataLoader(torch.ones(2, 3), 2), DataLoader(torch.ones(1, 3))]  # type: ignore[arg-type]


def test_several_loaders_and_the_hooks_around_a_transfer_are_those_of_lightning() -> None:
    data, model = SeveralLoaders(), Scaled()
    assert prediction.predict(data, model, {}) == [
        {"sum": 3.0, "of": 0}, {"sum": 3.0, "of": 0}, {"sum": 30.0, "of": 1},
    ]  # fmt: skip
    assert data.trainer is None


def test_a_missing_predict_step_is_named() -> None:
    class Forward(pl.LightningModule):
        def forward(self, rows: Tensor) -> Tensor:
            return rows.no_such_method()

    with pytest.raises(InputError, match=r"^Forward defines no predict_step, and .*no_such_method"):
        prediction.predict(SeveralLoaders(), Forward(), {})
