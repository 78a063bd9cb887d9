"""Write JSON schemas for conf/, so that editors complete and check its YAMLs: `make schema`.

Schemas are generated from the constructors that a configuration is checked against. `.schema/` gets
one per constructor, and one per YAML that configures several. A comment in each YAML names its own.
"""

import argparse
import contextlib
import functools
import inspect
import json
import operator
import os
import re
import textwrap
from pathlib import Path
from typing import Any

import hydra
from omegaconf.errors import OmegaConfBaseException
from pydantic import PydanticUserError

from src.kindling.cli import check
from src.kindling.config import ranges, signatures
from src.kindling.config.hydra_calls import BASE
from src.kindling.config.settings import TrainSettings
from src.kindling.config.values import adapter
from src.kindling.layout import CONF, Plain

SCHEMAS = CONF.parent / ".schema"
MODELINE = "# yaml-language-server: $schema="
ARGUMENT = re.compile(r"^(\w+)(?: \(.*?\))?:\s*(\S.*(?:\n[ \t]+\S.*)*)", re.MULTILINE)
# Any value may be replaced by an interpolation, `???`, or a node that Hydra builds.
OTHER = {"$ref": "#/definitions/other"}
LATER = {"type": "string", "pattern": r"\$\{|^\?\?\?$"}
BUILT = {"type": "object", "required": ["_target_"]}
SHARED: Plain = {
    "$schema": "http://json-schema.org/draft-07/schema#",  # the draft that every editor supports
    "definitions": {"other": {"anyOf": [LATER, BUILT]}},
    "type": "object",
}
DEFAULTS = {
    "description": "Hydra's defaults list: the options that this YAML overrides.",
    "type": "array",
    "items": {"type": ["string", "object"], "maxProperties": 1},
}


def main() -> None:
    """Write all schemas, and the line that names its schema into each YAML."""
    argparse.ArgumentParser(
        prog="python -m src.kindling.cli.json_schema", description=__doc__
    ).parse_args()
    named, schemas = generate()
    SCHEMAS.mkdir(exist_ok=True)
    for old in SCHEMAS.glob("*.json"):
        old.unlink()
    for name, schema in schemas.items():
        (SCHEMAS / name).write_text(as_text(schema), encoding="utf-8")
    for path, name in named.items():
        text = path.read_text(encoding="utf-8")
        path.write_text(with_modeline(text, path, name), encoding="utf-8")
    print(f"wrote {len(schemas)} schemas for {len(named)} YAMLs to {SCHEMAS.name}/")


def as_text(schema: Plain) -> str:
    """Format a schema as the text of its file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def with_modeline(text: str, path: Path, name: str) -> str:
    """Return a YAML's text with the line that names its schema at the end of its opening comment.

    Not on the first line: Hydra looks for `@package` only there.
    """
    lines = [line for line in text.splitlines(True) if not line.startswith(MODELINE)]
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    relative = Path(os.path.relpath(SCHEMAS / name, path.parent)).as_posix()
    return "".join([*lines[:end], f"{MODELINE}{relative}\n", *lines[end:]])


def generate() -> tuple[dict[Path, str], dict[str, Plain]]:
    """Return the name of each YAML's schema, and the schemas by name.

    A YAML's schema is derived from a run that includes it, which names the constructors.

    Raises:
        HydraException: a YAML does not compose; `make check` reports which one, and why.
    """
    named: dict[Path, str] = {}
    schemas: dict[str, Plain] = {}
    with hydra.initialize_config_dir(str(CONF), **BASE):
        for path in check.yaml_files():
            if config := composition(path):
                with contextlib.suppress(ImportError):  # of a package that is not installed
                    named[path], schema = of_yaml(path, config)
                    schemas[named[path]] = schema
                schemas |= of_targets(config)
    return named, dict(sorted(schemas.items()))


def composition(path: Path) -> Plain | None:
    """Return a configuration that includes a YAML: of a training run, or of its own command."""
    for overrides in check.compositions(path):
        with contextlib.suppress(OmegaConfBaseException):  # data and model that do not match
            config = check.composed(path, overrides)
            return config if "trainer" in config or path.parent != CONF else None
    return None


# Schemas ----------------------------------------------------------------------------------------


def of_yaml(path: Path, config: Plain) -> tuple[str, Plain]:
    """Return the name and the schema of a YAML, given the configuration of a run with it."""
    name = ".".join(path.relative_to(CONF).with_suffix(".json").parts)
    if path.parent == CONF or path.read_text(encoding="utf-8").startswith(check.GLOBAL):
        return name, of_run(config)
    node = functools.reduce(operator.getitem, check.group(path), config)
    if "_target_" in node:
        return f"{node['_target_']}.json", of_target(node)
    return name, SHARED | of_group(node, defaults=DEFAULTS)


def of_run(config: Plain) -> Plain:
    """Return the schema of a YAML with the keys of an entire run, such as a model's."""
    top = TrainSettings.model_json_schema()["properties"]
    groups = {key: of_group(node) for key, node in config.items() if isinstance(node, dict)}
    settings = {key: opened(top[key]) for key in top.keys() - groups}
    properties = {"defaults": DEFAULTS, "hydra": {"type": "object"}, **groups, **settings}
    return SHARED | {"properties": dict(sorted(properties.items())), "additionalProperties": False}


def of_group(group: Plain, **more: Plain) -> Plain:
    """Return the schema of a group: that of its constructor, or of several under their names."""
    if "_target_" in group:
        return {"$ref": f"{group['_target_']}.json"}
    names = {name: of_group(node) for name, node in group.items()}
    return {"type": "object", "properties": {**more, **names}, "additionalProperties": BUILT}


def of_targets(node: Any) -> dict[str, Plain]:
    """Return the schemas of all constructors in a configuration, by name."""
    found: dict[str, Plain] = {}
    with contextlib.suppress(ImportError):  # of a package that is not installed
        found = {f"{node['_target_']}.json": of_target(node)} if "_target_" in node else {}
    for child in node.values():
        found |= of_targets(child) if isinstance(child, dict) else {}
    return found


def of_target(node: Plain) -> Plain:
    """Return the schema of a constructor's arguments, given a node that names it."""
    target = signatures.locate(node["_target_"])
    parameters = signatures.from_object(target).parameters.values()
    documented = descriptions(target)
    properties: Plain = {"_target_": {"const": node["_target_"]}, "_partial_": {"type": "boolean"}}
    definitions = dict(SHARED["definitions"])
    for argument in parameters:
        given_later = node.get("_partial_") and argument.default is argument.empty
        if argument.kind in (argument.VAR_KEYWORD, argument.VAR_POSITIONAL) or given_later:
            continue
        text = documented.get(argument.name)
        description = {"description": text} if text else {}
        tighter = ranges.tighter_annotation(node["_target_"], argument.name)
        expected = argument.annotation if tighter is Any else tighter
        schema = of_argument(expected, argument.default)
        definitions |= schema.pop("$defs", {})
        properties[argument.name] = description | schema
    return SHARED | {
        "definitions": definitions,
        "properties": {**properties, "defaults": DEFAULTS},
        "patternProperties": {"^_": {}},  # Hydra's own, such as _convert_
        "additionalProperties": any(a.kind is a.VAR_KEYWORD for a in parameters),
    }


def of_argument(annotation: Any, default: Any) -> Plain:
    """Return the schema of an argument: values that match its annotation, or resolve to one."""
    if (fits := adapter(annotation)) is None:
        return {}
    try:
        schema: Plain = fits.json_schema(ref_template="#/definitions/{model}")
    except PydanticUserError:  # an object that YAML cannot express
        schema = {"anyOf": []}
    definitions = schema.pop("$defs", {})
    schema = dict(opened(schema))
    if default is None and "anyOf" in schema and {"type": "null"} not in schema["anyOf"]:
        schema["anyOf"].append({"type": "null"})
    return schema | {"$defs": definitions}


def opened(schema: Any) -> Any:
    """Also allow an interpolation, or a node that Hydra builds, in place of every value."""
    if isinstance(schema, list):
        return [opened(part) for part in schema]
    if schema in ({}, True, False):
        return schema
    return {"anyOf": [*map(opened_inside, schema.get("anyOf", [schema])), OTHER]}


def opened_inside(schema: Plain) -> Plain:
    """Do so inside a list, tuple or dictionary; draft 7 calls the parts of a tuple `items`."""
    renamed = {"items" if key == "prefixItems" else key: part for key, part in schema.items()}
    inside = ("items", "additionalProperties")
    return {key: opened(part) if key in inside else part for key, part in renamed.items()}


def descriptions(target: Any) -> dict[str, str]:
    """Return the first paragraph about each argument under `Args:` in a docstring."""
    found: dict[str, str] = {}
    for documented in (target, getattr(target, "__init__", None)):
        _, _, after = (inspect.getdoc(documented) or "").partition("Args:\n")
        section = textwrap.dedent(re.match(r"(?:[ \t].*\n?|\n)*", after)[0])  # type: ignore[index]
        for name, text in ARGUMENT.findall(section):
            found.setdefault(name, " ".join(text.split()))
    return found


if __name__ == "__main__":
    from src.kindling.cli.command import one_line_errors

    with one_line_errors():
        main()
