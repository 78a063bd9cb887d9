"""Compose every YAML of conf/ and check the result, without training: `make check`.

Each problem is reported once, with the YAML that causes it, however many compositions it breaks.
"""

import argparse
import functools
import importlib.util
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

from src.kindling.config.hydra_calls import BASE
from src.kindling.config.settings import node_problems, problems
from src.kindling.errors import InputError, first_line
from src.kindling.layout import CONF, Plain, install_extra

ABSENT = object()  # null is a value
GLOBAL = "# @package _global_"  # a YAML whose keys are those of the whole run


def main() -> None:
    """Print one line per problem and the number of compositions; exit with 0 or 2."""
    argparse.ArgumentParser(
        prog="python -m src.kindling.cli.check", description=__doc__
    ).parse_args()
    count, problems = check()
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"checked {count} compositions")
    if not options("model"):
        print("no training run was checked: there are no models yet; `make new` writes one")
    if lacks_optuna() and (CONF / "study").is_dir():
        print(f"conf/study was not checked: it needs Optuna; {install_extra('study')}")
    sys.exit(2 if problems else 0)


def check() -> tuple[int, list[str]]:
    """Check every composition; return how many there are, and one line per problem."""
    if problems := [line for path in yaml_files() for line in unreadable(path)]:
        return 0, problems  # nothing that includes an unreadable YAML composes
    count = 0
    found: dict[tuple[Path | None, str], str] = {}
    with hydra.initialize_config_dir(str(CONF), **BASE):
        for path in yaml_files():
            if command_of(path) == "study" and lacks_optuna():
                continue
            tried = [list(problems_of(path, overrides)) for overrides in compositions(path)]
            count += len(tried)
            if path.parent.name == "data" and not all(tried):
                continue  # a data set must match one model, not all
            if not tried and options("model"):
                tried = [[(path, "unused: its name is not MODEL_OPTION")]]
            for where, text in itertools.chain(*tried):
                found.setdefault((where, text), f"{shown(where or path)}: {text}")
    return count, list(found.values())


def lacks_optuna() -> bool:
    """Return whether the package of samplers and pruners, an extra, is not installed."""
    return importlib.util.find_spec("optuna") is None


def yaml_files() -> list[Path]:
    """Return every YAML of conf/, those of the commands first.

    Raises:
        InputError: conf/ holds no YAML.
    """
    if found := sorted(CONF.rglob("*.yaml"), key=lambda path: (len(path.parts), path)):
        return found
    raise InputError(f"there is no YAML in {CONF}")


def compositions(path: Path) -> list[list[str]]:
    """Return the overrides that select a YAML in a training run, one list per composition.

    An option is tried with every model; a project without models trains nothing. A command's own
    YAML needs no override.
    """
    folder, option = path.parent.relative_to(CONF).as_posix(), path.stem
    models = options("model")
    if folder == ".":
        return [[]] if models or path.stem != "train" else []
    if command_of(path) != "train":
        return [[f"{folder}={option}"]]
    if folder in ("model", "experiment") or (folder == "data" and option in models):
        return [[f"{'model' if folder == 'data' else folder}={option}"]]
    if folder.startswith("tuned/"):  # values for a pair, named MODEL_OPTION
        kind = path.parent.name
        pairs = [(model, other) for model in models for other in options(kind)]
        return [[f"model={m}", f"{kind}={o}"] for m, o in pairs if f"{m}_{o}" == option]
    return [[f"model={model}", f"{folder}={option}"] for model in models]


def options(folder: str) -> list[str]:
    """Return the options in a folder of conf/, found on disk."""
    return sorted(path.stem for path in (CONF / folder).glob("*.yaml"))


def command_of(path: Path) -> str:
    """Return the command that a YAML configures; the folder of its own groups has its name."""
    top = path.relative_to(CONF).parts[0]
    return Path(top).stem if (CONF / top).with_suffix(".yaml").is_file() else "train"


def composed(path: Path, overrides: list[str]) -> Plain:
    """Return the resolved configuration of a training run, or of a command's own YAML.

    Raises:
        HydraException, OmegaConfBaseException: it does not compose or resolve.
    """
    container = OmegaConf.to_container(hydra.compose(command_of(path), overrides), resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def problems_of(path: Path, overrides: list[str]) -> Iterator[tuple[Path | None, str]]:
    """Yield the problems of one composition, each with the YAML that causes it, if known."""
    try:
        config = composed(path, overrides)
    except HydraException as error:
        named = re.match("In '([^']+)'", str(error))
        yield CONF / f"{named[1]}.yaml" if named else None, first_line(error)
        return
    except OmegaConfBaseException as error:
        key = str(error.full_key)
        yield defining_file(key, path), f"{key}: {first_line(error)}"
        return
    nodes = {key: node for key, node in config.items() if isinstance(node, dict)}
    lines = [line for key, node in nodes.items() for line in node_problems(key, node)]
    for text in problems(config) if "trainer" in config else lines:
        key = re.split("[=:]", text)[0]
        yield defining_file(key, path, get(config, key)), text


# Which YAML to blame ----------------------------------------------------------------------------


def defining_file(key: str, path: Path, value: Any = ABSENT) -> Path | None:
    """Return the YAML that sets a dotted key: the one being checked, or else the first that does.

    Args:
        value: the key's value in the composition, if it resolves; YAMLs that set another value are
            skipped.
    """
    for other in [path, *yaml_files()]:
        stored = get(contents(other), key)
        if stored is not ABSENT and (value in (ABSENT, stored) or "${" in str(stored)):
            return other
    return None


def get(node: Any, key: str) -> Any:
    """Return the value of a dotted key; ABSENT if it is missing."""
    for part in key.split("."):
        node = node.get(part, ABSENT) if isinstance(node, dict) else ABSENT
    return node


@functools.cache
def contents(path: Path) -> Plain:
    """Return the content of a YAML, nested under its group."""
    text = path.read_text(encoding="utf-8")
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    for part in () if text.startswith(GLOBAL) else reversed(group(path)):
        content = {part: content}
    return cast(Plain, content)


def group(path: Path) -> tuple[str, ...]:
    """Return the keys above a YAML's content; those of conf/tuned/optimizer/ are `optimizer`."""
    parts = path.parent.relative_to(CONF).parts
    return parts[parts[:1] == ("tuned",) :]


def unreadable(path: Path) -> Iterator[str]:
    """Yield one line if a YAML cannot be read."""
    try:
        if not OmegaConf.is_dict(OmegaConf.load(path)):
            yield f"{shown(path)}: not a mapping of keys to values"
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
