"""The schemas that editors use are made from the constructors, and accept a project's YAMLs."""

import io
import json
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from omegaconf import OmegaConf
from pydantic import Field, PositiveInt

from src.kindling.cli import check, json_schema
from tests.conftest import ROOT
from tests.kindling.conftest import copy_project

jsonschema = pytest.importorskip("jsonschema", reason="the schemas are tried with jsonschema")
referencing = pytest.importorskip("referencing")
MODELINE = re.compile(r"^# yaml-language-server: \$schema=(\S+)$", re.MULTILINE)
# Options that are left out: each costs a composition. tests/test_conf.py tries all of a project.
LEFT_OUT = {"adagrad", "lbfgs", "momentum", "muon", "rmsprop", "cosine", "plateau",
            "ddp", "ddp_cpu", "fsdp", "gpu", "mps", "anomaly", "overfit", "profile", "line",
            "teacher", "line_sgd", "teacher_adamw", "asha", "hyperband", "wilcoxon", "cma_es", "gp",
            "grid", "nsga2", "quasi_random", "random"}  # fmt: skip
# An experiment: sgd instead of the model's own optimizer.
OWN = """# @package _global_
# With another optimizer.
defaults:
  - override /model: quadrants
  - override /optimizer: sgd
"""


class Made:
    """A project's YAMLs and the schemas that were written for them.

    Args:
        folder: the project's.
        said: what the command printed.
    """

    def __init__(self, folder: Path, said: str) -> None:
        self.conf, self.said = folder / "conf", said
        written = (folder / ".schema").glob("*.json")
        self.schemas = {path.name: json.loads(path.read_text()) for path in written}
        texts = {path: path.read_text() for path in sorted(self.conf.rglob("*.yaml"))}
        self.named = {
            path: (path.parent / found[1]).resolve().name
            for path, text in texts.items()
            if (found := MODELINE.search(text))
        }

    def problems(self, path: Path, content: Any) -> list[str]:
        """Return what the schema of a YAML has against a content."""
        resources = [
            (name, referencing.Resource.from_contents(each)) for name, each in self.schemas.items()
        ]
        registry = referencing.Registry().with_resources(resources)
        schema = self.schemas[self.named[path]]
        validator = jsonschema.Draft7Validator(schema, registry=registry)
        return [error.message for error in validator.iter_errors(content)]

    def against(self, yaml: str, changes: dict[str, Any]) -> list[str]:
        """Return what a schema has against changes of its YAML."""
        path = self.conf / f"{yaml}.yaml"
        return self.problems(path, contents(path) | changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """What `make schema` makes of a project with the examples, and an experiment."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    for path in (folder / "conf").glob("*/**/*.yaml"):
        if path.stem in LEFT_OUT:
            path.unlink()
    (folder / "conf" / "experiment").mkdir()
    (folder / "conf" / "experiment" / "own.yaml").write_text(OWN)
    (folder / ".schema").mkdir()
    (folder / ".schema" / "old.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        patch.setattr(check, "CONF", folder / "conf")
        patch.setattr(json_schema, "CONF", folder / "conf")
        patch.setattr(json_schema, "SCHEMAS", folder / ".schema")
        patch.setattr(sys, "argv", ["json_schema"])
        json_schema.main()
    return Made(folder, said.getvalue())


def contents(path: Path) -> Any:
    """A YAML as Hydra reads it (1e-4 is a number), with its interpolations as they stand."""
    return OmegaConf.to_container(OmegaConf.load(path))


def test_they_are_written_for_editors_and_ignored_by_git(made: Made) -> None:
    assert f"wrote {len(made.schemas)} schemas for {len(made.named)} YAMLs" in made.said
    assert "old.json" not in made.schemas
    assert ".schema/" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_yamls_of_every_group_name_a_schema(made: Made) -> None:
    groups = {path.parent.name for path in made.conf.glob("*/*.yaml")}
    assert {"model", "data", "experiment", "optimizer", "trainer"} <= groups
    assert {path.parent.name for path in made.named} >= groups
    assert set(made.named.values()) <= made.schemas.keys()


def test_each_schema_is_one_and_refers_to_others_that_are_there(made: Made) -> None:
    for schema in made.schemas.values():
        jsonschema.Draft7Validator.check_schema(schema)
    refers = re.findall(r'"\$ref": "([^#"]+)"', json.dumps(made.schemas))
    assert set(refers) <= made.schemas.keys()


def test_each_yaml_fits_its_schema_and_with_a_wrong_key_does_not(made: Made) -> None:
    for path, name in made.named.items():
        assert made.problems(path, contents(path)) == [], path
        wrong = contents(path) | {"no_such_key": 3}
        takes_any = made.schemas[name].get("additionalProperties") is True
        assert bool(made.problems(path, wrong)) != takes_any, path


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
        ("data/quadrants", {"batch_size": 0}),
        ("data/quadrants", {"shuffle": None}),
        ("data/quadrants", {"defaults": "base"}),
        ("trainer/cpu", {"precision": "12-true"}),
        ("trainer/cpu", {"devices": 1.5}),
        ("model/quadrants", {"model": {"hidden_features": 2.5}}),
        ("model/quadrants", {"trainer": {"max_epoch": 3}}),
        ("model/quadrants", {"threads": 0}),
        ("experiment/own", {"optimizer": {"betas": [0.9, 0.9]}}),  # it takes sgd
        ("debug/fast", {"trainer": {"fast_dev_run": "yes"}}),
        ("callbacks/default", {"progress": {"seconds_per_line": "often"}}),
        ("callbacks/default", {"another": {"no": "target"}}),
        ("tuned/optimizer/quadrants_adamw", {"momentum": 0.9}),
        ("train", {"sede": 3}),
    ],
)
def test_a_wrong_value_does_not_either(yaml: str, changes: dict[str, Any], made: Made) -> None:
    assert made.against(yaml, changes)


@pytest.mark.parametrize(
    ("yaml", "changes"),
    [
        ("optimizer/adam", {"lr": "${model.lr}", "betas": [0.9, "${b}"]}),
        ("trainer/cpu", {"profiler": {"_target_": "lightning.pytorch.profilers.SimpleProfiler"}}),
        ("trainer/cpu", {"_convert_": "all", "devices": [0, 1], "max_time": None}),
        ("data/quadrants", {"batch_size": "???", "defaults": ["base", {"/trainer": "cpu"}]}),
        ("callbacks/default", {"another": {"_target_": "my.Callback", "any": 3}}),
        ("logger/wandb", {"wandb": {"entity": "taken by its **kwargs", "offline": True}}),
        ("experiment/own", {"logger": {"csv": {"flush_logs_every_n_steps": 1}}}),
        ("experiment/own", {"hydra": {"sweep": {"dir": "elsewhere"}}}),
    ],
)
def test_what_hydra_takes_fits(yaml: str, changes: dict[str, Any], made: Made) -> None:
    assert made.against(yaml, changes) == []


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


def test_the_schemas_name_stands_below_the_package_which_hydra_wants_first() -> None:
    text = "# @package _global_\n# A model.\n\nmodel:\n  # yaml\n  width: 3\n"
    path = ROOT / "conf" / "model" / "own.yaml"
    once = json_schema.with_modeline(text, path, "own.json")
    assert once.splitlines()[:3] == [
        *text.splitlines()[:2],
        f"{json_schema.MODELINE}../../.schema/own.json",
    ]
    assert json_schema.with_modeline(once, path, "own.json") == once
    assert MODELINE.sub("", once).replace("\n\n\n", "\n\n") == text
