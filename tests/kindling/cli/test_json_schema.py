"""The schemas that editors use are those of today's constructors, and take every YAML of conf/."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from omegaconf import OmegaConf
from pydantic import Field, PositiveInt

from src.kindling.cli import check, json_schema
from tests.conftest import ROOT

jsonschema = pytest.importorskip("jsonschema", reason="the schemas are tried with jsonschema")
CONF = ROOT / "conf"
MODELINE = re.compile(r"^# yaml-language-server: \$schema=(\S+)$", re.MULTILINE)
NAMED = {
    path: (path.parent / found[1]).resolve()
    for path in sorted(CONF.rglob("*.yaml"))
    if (found := MODELINE.search(path.read_text(encoding="utf-8")))
}
BY_YAML, SCHEMAS = json_schema.generate()


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def problems(content: Any, name: str) -> list[str]:
    """What a schema has against the content of a YAML."""
    from referencing import Registry, Resource

    resources = [(each, Resource.from_contents(content)) for each, content in SCHEMAS.items()]
    validator = jsonschema.Draft7Validator(
        SCHEMAS[name], registry=Registry().with_resources(resources)
    )
    return [error.message for error in validator.iter_errors(content)]


def contents(path: Path) -> Any:
    """A YAML as Hydra reads it (1e-4 is a number), with its interpolations as they stand."""
    return OmegaConf.to_container(OmegaConf.load(path))


def test_the_yamls_of_every_group_name_a_schema() -> None:
    of_runs = [path for path in CONF.glob("*/*.yaml") if check.command_of(path) == "train"]
    groups = {path.parent.name for path in of_runs}
    assert groups
    assert {path.parent.name for path in NAMED} >= groups
    assert {path.name for path in NAMED.values()} <= SCHEMAS.keys()


def test_a_yaml_names_the_schema_that_is_made_for_it() -> None:
    for path, schema_path in NAMED.items():
        text = path.read_text(encoding="utf-8")
        assert schema_path.name == BY_YAML[path]
        assert json_schema.with_modeline(text, path, BY_YAML[path]) == text


def test_they_are_written_for_editors_and_ignored_by_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.json").write_text("{}")
    monkeypatch.setattr(json_schema, "SCHEMAS", tmp_path)
    monkeypatch.setattr(json_schema, "with_modeline", lambda text, path, name: text)
    monkeypatch.setattr(sys, "argv", ["json_schema"])
    json_schema.main()
    written = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert written == SCHEMAS
    assert f"{len(SCHEMAS)} schemas" in capsys.readouterr().out
    assert ".schema/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one(name: str) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMAS[name])
    refers = re.findall(r'"\$ref": "([^#"]+)"', json.dumps(SCHEMAS[name]))
    assert set(refers) <= SCHEMAS.keys()


@pytest.mark.parametrize("path", NAMED, ids=shown)
def test_a_yaml_fits_its_schema(path: Path) -> None:
    assert problems(contents(path), NAMED[path].name) == []


@pytest.mark.parametrize("path", NAMED, ids=shown)
def test_a_wrong_key_does_not(path: Path) -> None:
    wrong = contents(path) | {"no_such_key": 3}
    takes_any = SCHEMAS[NAMED[path].name].get("additionalProperties") is True
    assert bool(problems(wrong, NAMED[path].name)) != takes_any


@pytest.mark.parametrize(
    ("yaml", "changes"),
    [
        ("optimizer/adam", {"lr": "fast"}),
        ("optimizer/adam", {"betas": [0.9]}),
        ("optimizer/adam", {"betas": [0.9, "b"]}),
        ("optimizer/adam", {"_target_": "torch.optim.Adan"}),
        ("optimizer/adam", {"fused": "no"}),
        ("optimizer/adam", {"params": []}),
        ("scheduler/step", {"every": 1.5}),
        ("scheduler/step", {"total_steps": 100}),
        ("data/fizzbuzz", {"batch_size": 0}),
        ("data/fizzbuzz", {"shuffle": None}),
        ("data/fizzbuzz", {"defaults": "base"}),
        ("trainer/cpu", {"precision": "12-true"}),
        ("trainer/cpu", {"devices": 1.5}),
        ("model/fizzbuzz", {"model": {"hidden_features": 2.5}}),
        ("model/fizzbuzz", {"trainer": {"max_epoch": 3}}),
        ("model/fizzbuzz", {"threads": 0}),
        ("experiment/tutorial_fizzbuzz", {"optimizer": {"betas": [0.9, 0.9]}}),  # it takes sgd
        ("debug/fast", {"trainer": {"fast_dev_run": "yes"}}),
        ("callbacks/default", {"progress": {"seconds_per_line": "often"}}),
        ("callbacks/default", {"another": {"no": "target"}}),
        ("tuned/optimizer/fizzbuzz_adamw", {"momentum": 0.9}),
        ("train", {"sede": 3}),
    ],
)
def test_a_wrong_value_does_not_either(yaml: str, changes: dict[str, Any]) -> None:
    path = CONF / f"{yaml}.yaml"
    assert problems(contents(path) | changes, NAMED[path].name)


@pytest.mark.parametrize(
    ("yaml", "changes"),
    [
        ("optimizer/adam", {"lr": "${model.lr}", "betas": [0.9, "${b}"]}),
        ("trainer/cpu", {"profiler": {"_target_": "lightning.pytorch.profilers.SimpleProfiler"}}),
        ("trainer/cpu", {"_convert_": "all", "devices": [0, 1], "max_time": None}),
        ("data/fizzbuzz", {"batch_size": "???", "defaults": ["base", {"/trainer": "cpu"}]}),
        ("callbacks/default", {"another": {"_target_": "my.Callback", "any": 3}}),
        ("logger/wandb", {"wandb": {"entity": "taken by its **kwargs", "offline": True}}),
        ("experiment/tutorial_fizzbuzz", {"logger": {"csv": {"flush_logs_every_n_steps": 1}}}),
        ("experiment/tutorial_fizzbuzz", {"hydra": {"sweep": {"dir": "elsewhere"}}}),
    ],
)
def test_what_hydra_takes_fits(yaml: str, changes: dict[str, Any]) -> None:
    path = CONF / f"{yaml}.yaml"
    assert problems(contents(path) | changes, NAMED[path].name) == []


# From a constructor to a schema -----------------------------------------------------------------


class Model:
    """A model of a user.

    Args:
        width: hidden units,
            on two lines.
        mode (str, optional): how
            it works.

            More about that.
        names: what they are called.

    Raises:
        ValueError: never, and no argument.
    """

    def __init__(
        self,
        width: PositiveInt,
        mode: Literal["fast", "exact"] = "fast",
        names: dict[str, Annotated[float, Field(lt=1)]] | None = None,
        net: Path | type = Path,
        anything=None,
        unreadable: "NotThere" = 3,  # noqa: F821
    ): ...


def test_descriptions_come_from_the_docstring() -> None:
    assert json_schema.descriptions(Model) == {
        "width": "hidden units, on two lines.",
        "mode": "how it works.",
        "names": "what they are called.",
    }


def test_an_arguments_schema_is_its_annotation() -> None:
    made = json_schema.of_target({"_target_": f"{__name__}.Model"})
    jsonschema.Draft7Validator.check_schema(made)
    takes = jsonschema.Draft7Validator(made).is_valid
    right = [{"width": 3}, {"mode": "exact"}, {"names": {"a": 0.5}}, {"names": None}]
    right += [{"anything": [{}]}, {"unreadable": "any"}, {"net": {"_target_": "torch.nn.Linear"}}]
    wrong = [{"width": 0}, {"width": None}, {"mode": "slow"}, {"names": {"a": 1}}, {"net": 3}]
    assert [content for content in right if not takes(content)] == []
    assert [content for content in wrong if takes(content)] == []


def test_the_schemas_name_stands_below_the_package_which_hydra_wants_first(tmp_path: Path) -> None:
    text = "# @package _global_\n# A model.\n\nmodel:\n  # yaml\n  width: 3\n"
    path = CONF / "model" / "own.yaml"
    once = json_schema.with_modeline(text, path, "own.json")
    assert once.splitlines()[:3] == [
        *text.splitlines()[:2],
        f"{json_schema.MODELINE}../../.schema/own.json",
    ]
    assert json_schema.with_modeline(once, path, "own.json") == once
    assert MODELINE.sub("", once).replace("\n\n\n", "\n\n") == text
