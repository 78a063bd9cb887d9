"""A question's keys need no `+`: they reach the command, whose run says which there are."""

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from pydantic import PositiveInt

from src.kindling.cli import arguments, run_question
from src.kindling.config import question
from src.kindling.config.source import UnreadableError
from src.kindling.data import BaseData
from src.kindling.errors import InputError


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("prompt=once upon", "once upon"),
        ("prompt=what's up?", "what's up?"),
        (r"prompt=a\'b\\", r"a\'b" + "\\\\"),
        ("prompt=a: {b", "a: {b"),
        ("length=200", 200),
        ("numbers=[15,300]", [15, 300]),
        ("features=[[1,0],[0,1]]", [[1, 0], [0, 1]]),
    ],
)
def test_a_key_that_the_yaml_lacks_is_added_with_its_value(typed: str, value: object) -> None:
    [added] = arguments.added("predict", [typed])
    override = OverridesParser.create().parse_override(added)
    assert override.is_add()
    assert override.value() == value


@pytest.mark.parametrize(
    "typed", ["run=latest", "output=a.csv", "hydra.verbose=true", "+own=1", "model=fizzbuzz"]
)
def test_other_words_stay_as_they_are(typed: str) -> None:
    assert arguments.added("predict", [typed]) == [typed]


# The question of a run, without importing it ------------------------------------------------------


class Asked(pl.LightningDataModule):
    def prediction_inputs(
        self, prompt: str = "a b", length: PositiveInt = 80, *, top: float | None = None
    ) -> None: ...


class Inherits(Asked):
    pass


class Needs(pl.LightningDataModule):
    def prediction_inputs(self, seed: int, **others: int) -> None: ...


class Decorated(pl.LightningDataModule):
    @staticmethod
    def prediction_inputs(prompt: str = "") -> None: ...


class Unasked(BaseData):
    pass


class Model(pl.LightningModule):
    def prediction_inputs(self, count=5) -> None: ...


def config(data: type, model: type = pl.LightningModule) -> dict[str, Any]:
    return {
        group: {"_target_": f"{part.__module__}.{part.__qualname__}"}
        for group, part in (("data", data), ("model", model))
    }


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (Asked, Inherits, Needs, Decorated, Unasked, Model, pl.LightningModule)
    found = {
        (group, key, node[key])
        for kind in kinds
        for group, node in config(kind, kind).items()
        for key in node
    }
    monkeypatch.setattr(question, "allowed_targets", lambda: found)


@pytest.mark.parametrize("data", [Asked, Inherits, Needs])
def test_the_source_shows_what_the_imported_method_has(data: type[Any]) -> None:
    parameters, _ = question.from_source(config(data))
    assert parameters == question.from_object(data().prediction_inputs)


def test_help_has_a_line_per_argument_as_one_types_it() -> None:
    assert question.from_source(config(Asked))[1] == [
        "prompt='a b'  str",
        "length=80     PositiveInt",
        "top=null      float | None",
    ]
    assert question.from_source(config(Needs))[1] == ["seed=???  int"]


def test_the_model_is_asked_where_the_data_is_not() -> None:
    assert question.from_source(config(Unasked, Model))[1] == ["count=5"]
    assert question.from_source(config(Unasked)) == ({}, [])


@pytest.mark.parametrize("data", [Decorated, dict, type("Gone", (), {"__module__": __name__})])
def test_what_the_source_does_not_show_or_conf_does_not_name_is_not_read(data: type) -> None:
    with pytest.raises(UnreadableError):
        question.from_source(config(data))


@pytest.mark.parametrize(
    ("data", "asked", "line"),
    [
        (Asked, {"lenght": 3}, r"^lenght: this model is not asked for that: did you mean 'length'"),
        (Asked, {"length": 0}, r"^length=0: must be greater than 0$"),
        (Unasked, {"x": 0}, r"^x: this model is not asked for that$"),
        (Needs, {"other": 1}, r"^seed is missing: this model needs it to answer$"),
    ],
)
def test_a_wrong_key_is_refused_before_the_run_is_rebuilt(
    data: type, asked: dict[str, Any], line: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=line):
        run_question.check(saved(tmp_path, data), asked)


@pytest.mark.parametrize(
    ("data", "asked"),
    [(Asked, {"top": 0.5}), (Needs, {"seed": 1, "other": 1}), (Decorated, {"x": 1})],
)
def test_a_right_key_passes_and_so_does_what_is_checked_later(
    data: type, asked: dict[str, Any], tmp_path: Path
) -> None:
    run_question.check(saved(tmp_path, data), asked)


def saved(folder: Path, data: type) -> Path:
    """Write the configuration of a run, and return its checkpoint."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config(data)))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.ckpt").touch()
    return folder / "checkpoints" / "best.ckpt"


def test_help_and_completion_know_the_keys_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, Asked)
    words = run_question.shown("predict", ["--help", f"run={tmp_path}"])
    assert words[0] == "--help"
    footer = OverridesParser.create().parse_override(words[-1]).value()
    assert footer.splitlines()[0] == f"The keys of the question of run={tmp_path}:"
    assert footer.splitlines()[-2] == "length=80     PositiveInt"
    monkeypatch.setenv("COMP_LINE", f"predict.py run={tmp_path} prompt='a b' le")
    run_question.shown("predict", ["-sc", "query=bash"])
    own = "+prompt=null +length=null +top=null"
    assert os.environ["COMP_LINE"] == f"predict.py {own} run={tmp_path} le"


def test_a_run_that_is_not_there_leaves_help_as_it_is(tmp_path: Path) -> None:
    words = [f"run={tmp_path}", "--help"]
    assert run_question.shown("predict", words) == words
