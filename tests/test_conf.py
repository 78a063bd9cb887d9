"""The YAMLs of conf/: each composes, and fits the schema that editors check it against."""

import re
from typing import Any

import pytest
from omegaconf import OmegaConf

from src.kindling import layout
from src.kindling.cli import check, json_schema

MODELINE = re.compile(r"^# yaml-language-server: \$schema=(\S+)$", re.MULTILINE)
pytestmark = [
    pytest.mark.slow,  # make check, which takes half a minute, does the first alone
    pytest.mark.skipif(not (layout.CONF / "model").is_dir(), reason="there is no model yet"),
]


def test_every_yaml_is_part_of_a_valid_composition() -> None:
    count, problems = check.check()
    assert problems == []
    assert count > 0


def test_every_yaml_fits_the_schema_that_it_names() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="the schemas are tried with jsonschema")
    from referencing import Registry, Resource

    by_yaml, schemas = json_schema.generate()
    resources = [(name, Resource.from_contents(schema)) for name, schema in schemas.items()]
    registry: Any = Registry().with_resources(resources)
    for path, name in by_yaml.items():
        text = path.read_text(encoding="utf-8")
        if not MODELINE.search(text):  # `make schema` adds the line
            continue
        assert json_schema.with_modeline(text, path, name) == text
        content = OmegaConf.to_container(OmegaConf.load(path))
        validator = jsonschema.Draft7Validator(schemas[name], registry=registry)
        assert [error.message for error in validator.iter_errors(content)] == [], path
