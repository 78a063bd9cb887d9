"""A `_target_` is allowed in the group for which some YAML of the user's conf/ names it."""

from pathlib import Path

import pytest

from src.kindling import layout
from src.kindling.config import targets

YAMLS = {
    "callbacks/flat.yaml": "mine: {_target_: own.Flat}",
    "callbacks/folder/nested.yaml": "mine: {_target_: own.Nested}",
    "tuned/optimizer/net_sgd.yaml": "_target_: own.SGD",
    "experiment/tried.yaml": "# @package _global_\ncallbacks: {mine: {_target_: own.Tried}}",
    "model/net.yaml": (
        "# @package _global_\nmodel: {_target_: own.Net}\ncallbacks: {mine: {_target_: own.ForNet}}"
    ),
    "train.yaml": "callbacks: {mine: {_target_: own.Always}}",
}


@pytest.fixture(autouse=True)
def _conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in YAMLS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(layout, "conf_folders", lambda: [tmp_path])


@pytest.mark.parametrize("name", ["Flat", "Nested", "Tried", "ForNet", "Always"])
def test_a_callback_may_be_named_wherever_hydra_takes_it_from(name: str) -> None:
    node = {"_target_": f"own.{name}"}
    assert targets.problems({"callbacks": {"other": node}}) == []
    [problem] = targets.problems({"data": node})
    assert problem.startswith(f"data._target_=own.{name}: not in any YAML of conf/data/")


def test_an_option_of_another_group_is_allowed_there() -> None:
    assert targets.problems({"optimizer": {"_target_": "own.SGD"}}) == []


def test_the_option_of_a_target_is_found() -> None:
    assert targets.option("model", "own.Net") == "net"
    assert targets.option("callbacks", "own.Net") is None
