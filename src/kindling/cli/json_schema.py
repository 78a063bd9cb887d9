"""Write JSON schemas for conf/, so that editors complete and check its YAMLs: `make schema`.

They are made from what a configuration is checked against, the constructors. `.schema/` gets one
for each constructor, and one for each YAML that speaks of several. A comment in the YAML names it.
"""

import argparse
import contextlib
import inspect
import json
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
from src.kindling.config.settings import TrainSettings, adapter
from src.kindling.layout import CONF, Plain

SCHEMAS = CONF.parent / ".schema"
MODELINE = "# yaml-language-server: $schema="
ARGUMENT = re.compile(r"^(\w+)(?: \(.*?\))?:\s*(\S.*(?:\n[ \t]+\S.*)*)", re.MULTILINE)
# What may stand in any value's place: an interpolation, `???`, or a node that is built.
OTHER = {"$ref": "#/definitions/other"}
LATER = {"type": "string", "pattern": r"\$\{|^\?\?\?$"}
BUILT = {"type": "object", "required": ["_target_"]}
SHARED: Plain = {
    "$schema": "http://json-schema.org/draft-07/schema#",  # the draft that every editor knows
    "definitions": {"other": {"anyOf": [LATER, BUILT]}},
    "type": "object",
}
DEFAULTS = {
    "description": "Hydra's defaults list: what this YAML is put on top of.",
    "type": "array",
    "items": {"type": ["string", "object"], "maxProperties": 1},
}


def main() -> None:
    """Write all schemas, and into each YAML the line that names its own."""
    argparse.ArgumentParser(
        prog="python -m src.kindling.cli.json_schema", description=__doc__
    ).parse_args()
    named, schemas = made()
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
    """Return a schema as it is written."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def with_modeline(text: str, path: Path, name: str) -> str:
    """Return a YAML's text with the line that names its schema, last in its opening comment.

    Not the first line: Hydra looks for `@package` no further than the first line that lacks it.
    """
    lines = [line for line in text.splitlines(True) if not line.startswith(MODELINE)]
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    relative = Path(os.path.relpath(SCHEMAS / name, path.parent)).as_posix()
    return "".join([*lines[:end], f"{MODELINE}{relative}\n", *lines[end:]])


def made() -> tuple[dict[Path, str], dict[str, Plain]]:
    """Return the name of each YAML's schema, and the schemas by name.

    A YAML's schema follows from a run that it is part of: that says which constructors it sets.

    Raises:
        HydraException: a YAML does not compose; `make check` says which, and why.
    """
    named: dict[Path, str] = {}
    schemas: dict[str, Plain] = {}
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        for path in check.yaml_files():
            if whole := composition(path):
                named[path], schema = of_yaml(path, whole)
                schemas |= {named[path]: schema, **of_targets(whole)}
    return named, dict(sorted(schemas.items()))


def composition(path: Path) -> Plain | None:
    """Return a training run that a YAML is part of; None where there is none."""
    for overrides in check.compositions(path):
        with contextlib.suppress(OmegaConfBaseException):  # data, with a model of other data
            whole = check.composed(path, overrides)
            return whole if "trainer" in whole else None
    return None


# What may stand in a YAML -----------------------------------------------------------------------


def of_yaml(path: Path, whole: Plain) -> tuple[str, Plain]:
    """Return name and schema for a YAML, given a run that it is part of."""
    name = ".".join(path.relative_to(CONF).with_suffix(".json").parts)
    if path.parent == CONF or path.read_text(encoding="utf-8").startswith(check.GLOBAL):
        return name, of_run(whole)
    group = whole[path.parent.name]
    if "_target_" in group:
        return f"{group['_target_']}.json", of_target(group)
    return name, SHARED | of_group(group, defaults=DEFAULTS)


def of_run(whole: Plain) -> Plain:
    """Return the schema of a YAML whose keys are those of the whole run: a model's, say."""
    top = TrainSettings.model_json_schema()["properties"]
    groups = {key: of_group(node) for key, node in whole.items() if isinstance(node, dict)}
    settings = {key: opened(top[key]) for key in top.keys() - groups}
    properties = {"defaults": DEFAULTS, "hydra": {"type": "object"}, **groups, **settings}
    return SHARED | {"properties": dict(sorted(properties.items())), "additionalProperties": False}


def of_group(group: Plain, **more: Plain) -> Plain:
    """Return the schema of a group's keys: its constructor's, or a name for each of several."""
    if "_target_" in group:
        return {"$ref": f"{group['_target_']}.json"}
    names = {name: of_group(node) for name, node in group.items()}
    return {"type": "object", "properties": {**more, **names}, "additionalProperties": BUILT}


def of_targets(node: Any) -> dict[str, Plain]:
    """Return the schemas of all constructors that a configuration names, by name."""
    found = {f"{node['_target_']}.json": of_target(node)} if "_target_" in node else {}
    for child in node.values():
        found |= of_targets(child) if isinstance(child, dict) else {}
    return found


def of_target(node: Plain) -> Plain:
    """Return the schema of a constructor's arguments, for a node that names it."""
    target = signatures.locate(node["_target_"])
    parameters, said = signatures.from_object(target).parameters.values(), descriptions(target)
    properties: Plain = {"_target_": {"const": node["_target_"]}, "_partial_": {"type": "boolean"}}
    definitions = dict(SHARED["definitions"])
    for argument in parameters:
        given_later = node.get("_partial_") and argument.default is argument.empty
        if argument.kind in (argument.VAR_KEYWORD, argument.VAR_POSITIONAL) or given_later:
            continue
        description = {"description": said[argument.name]} if argument.name in said else {}
        narrower = ranges.tighter_annotation(node["_target_"], argument.name)
        expected = argument.annotation if narrower is Any else narrower
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
    """Return what may stand for an argument: what its annotation takes, or what becomes such."""
    if (fits := adapter(annotation)) is None:
        return {}
    try:
        schema: Plain = fits.json_schema(ref_template="#/definitions/{model}")
    except PydanticUserError:  # an object, for which no text can stand
        schema = {"anyOf": []}
    definitions = schema.pop("$defs", {})
    schema = dict(opened(schema))
    if default is None and "anyOf" in schema and {"type": "null"} not in schema["anyOf"]:
        schema["anyOf"].append({"type": "null"})
    return schema | {"$defs": definitions}


def opened(schema: Any) -> Any:
    """Let an interpolation, or a node to build, stand wherever a value may."""
    if isinstance(schema, list):
        return [opened(part) for part in schema]
    if schema in ({}, True, False):
        return schema
    return {"anyOf": [*map(opened_inside, schema.get("anyOf", [schema])), OTHER]}


def opened_inside(schema: Plain) -> Plain:
    """Do so for the parts of a list, tuple or dictionary; draft 7 calls a tuple's parts `items`."""
    renamed = {"items" if key == "prefixItems" else key: part for key, part in schema.items()}
    inside = ("items", "additionalProperties")
    return {key: opened(part) if key in inside else part for key, part in renamed.items()}


def descriptions(target: Any) -> dict[str, str]:
    """Return the first paragraph on each argument that stands below `Args:` in a docstring."""
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
