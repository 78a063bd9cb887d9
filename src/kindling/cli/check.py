"""Compose every YAML of conf/ and check the result, without training: `make check`.

A problem is said once, with the YAML that it stands in, however many compositions it spoils.
"""

import argparse
import functools
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import hydra
import yaml
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.kindling.config.settings import node_problems, problems
from src.kindling.errors import InputError, first_line
from src.kindling.layout import CONF, Plain

ABSENT = object()  # null is a value
GLOBAL = "# @package _global_"  # a YAML whose keys are those of the whole run


def main() -> None:
    """Print a line a problem and how many compositions there were; exit with 0 or 2."""
    argparse.ArgumentParser(
        prog="python -m src.kindling.cli.check", description=__doc__
    ).parse_args()
    count, problems = check()
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"checked {count} compositions")
    sys.exit(2 if problems else 0)


def check() -> tuple[int, list[str]]:
    """Return how many compositions were checked, and what is wrong, a line a problem."""
    if problems := [line for path in yaml_files() for line in unreadable(path)]:
        return 0, problems  # with one of them, whatever it is part of does not compose
    count = 0
    found: dict[tuple[Path | None, str], str] = {}
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        for path in yaml_files():
            tried = [list(problems_of(path, overrides)) for overrides in compositions(path)]
            count += len(tried)
            if path.parent.name == "data" and not all(tried):
                continue  # data need not go with every model, but with one
            unused = [] if tried else [(path, "no model and option have this name: it is not used")]
            for where, text in itertools.chain(unused, *tried):
                found.setdefault((where, text), f"{shown(where or path)}: {text}")
    return count, list(found.values())


def yaml_files() -> list[Path]:
    """Return every YAML of conf/, those of the commands first.

    Raises:
        InputError: there is none.
    """
    if found := sorted(CONF.rglob("*.yaml"), key=lambda path: (len(path.parts), path)):
        return found
    raise InputError(f"there is no YAML in {CONF}")


def compositions(path: Path) -> list[list[str]]:
    """Return the overrides that bring a YAML into a training run, a list a composition.

    An option is tried with every model. A command's own YAML needs no override.
    """
    group, option = path.parent.relative_to(CONF).as_posix(), path.stem
    models = options("model")
    if group == ".":
        return [[]]
    if command_of(path) != "train":
        return [[f"{group}={option}"]]
    if group in ("model", "experiment") or (group == "data" and option in models):
        return [[f"{'model' if group == 'data' else group}={option}"]]
    if group.startswith("tuned/"):  # values for a pair, of the name MODEL_OPTION
        kind = path.parent.name
        pairs = [(model, other) for model in models for other in options(kind)]
        return [[f"model={m}", f"{kind}={o}"] for m, o in pairs if f"{m}_{o}" == option]
    return [[f"model={model}", f"{group}={option}"] for model in models]


def options(group: str) -> list[str]:
    """Return the options of a group, found on disk.

    Raises:
        InputError: there is none.
    """
    if found := sorted(path.stem for path in (CONF / group).glob("*.yaml")):
        return found
    raise InputError(f"conf/{group} has no option")


def command_of(path: Path) -> str:
    """Return the command that a YAML configures; the folder of its own groups has its name."""
    top = path.relative_to(CONF).parts[0]
    return Path(top).stem if (CONF / top).with_suffix(".yaml").is_file() else "train"


def composed(path: Path, overrides: list[str]) -> Plain:
    """Return the resolved configuration of a training run, or of a YAML that is a command's own.

    Raises:
        HydraException, OmegaConfBaseException: it does not compose, or not resolve.
    """
    container = OmegaConf.to_container(hydra.compose(command_of(path), overrides), resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def problems_of(path: Path, overrides: list[str]) -> Iterator[tuple[Path | None, str]]:
    """Yield what is wrong with one composition, and the YAML that it stands in, if it is known."""
    try:
        whole = composed(path, overrides)
    except HydraException as error:
        named = re.match("In '([^']+)'", str(error))
        yield CONF / f"{named[1]}.yaml" if named else None, first_line(error)
        return
    except OmegaConfBaseException as error:
        key = str(error.full_key)
        yield defining_file(key, path), f"{key}: {first_line(error)}"
        return
    nodes = {key: node for key, node in whole.items() if isinstance(node, dict)}
    found = [line for key, node in nodes.items() for line in node_problems(key, node)]
    for text in problems(whole) if "trainer" in whole else found:
        key = re.split("[=:]", text)[0]
        yield defining_file(key, path, at(whole, key)), text


# Which YAML to blame ----------------------------------------------------------------------------


def defining_file(key: str, path: Path, value: Any = ABSENT) -> Path | None:
    """Return the YAML that sets a dotted key: the one being checked, or else the first that does.

    Args:
        value: what the key has in the composition, where it resolves; a YAML with another value
            is not the one.
    """
    for other in [path, *yaml_files()]:
        said = at(contents(other), key)
        if said is not ABSENT and (value in (ABSENT, said) or "${" in str(said)):
            return other
    return None


def at(node: Any, key: str) -> Any:
    """Return the value at a dotted key; ABSENT where there is none."""
    for part in key.split("."):
        node = node.get(part, ABSENT) if isinstance(node, dict) else ABSENT
    return node


@functools.cache
def contents(path: Path) -> Plain:
    """Return what a YAML says, below the group that it says it of."""
    text = path.read_text(encoding="utf-8")
    said: Any = OmegaConf.to_container(OmegaConf.load(path))
    parts = path.parent.relative_to(CONF).parts
    for part in () if text.startswith(GLOBAL) else reversed(parts[parts[:1] == ("tuned",) :]):
        said = {part: said}
    return cast(Plain, said)


def unreadable(path: Path) -> Iterator[str]:
    """Yield the line that says why a YAML cannot be read, if it cannot."""
    try:
        if not OmegaConf.is_dict(OmegaConf.load(path)):
            yield f"{shown(path)}: this holds no keys"
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        yield f"{shown(path)}, line {line}: {error.problem}"
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        yield f"{shown(path)}: {first_line(error)}"


def shown(path: Path) -> str:
    """Return a path as a user writes it: conf/trainer/cpu.yaml."""
    return path.relative_to(CONF.parent).as_posix()


if __name__ == "__main__":
    from src.kindling.cli.command import one_line_errors

    with one_line_errors():
        main()
