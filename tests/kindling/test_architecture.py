"""The arrows between the modules, and what a newcomer may rely on to find them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SRC, CONF = ROOT / "src", ROOT / "conf"
STANDARD = sys.stdlib_module_names
PARTS = (
    "src.models",
    "src.data",
    "src.kindling.callbacks",
    "src.kindling.loggers.tensorboard",
)  # reached through conf/ alone


def module_name(path):
    """src/kindling/model.py is src.kindling.model, and src/models/__init__.py is src.models."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {
    module_name(path): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(SRC.rglob("*.py"))
}


def statements(node):
    """All nodes below a node, but for those that only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from statements(child)


def imports_of(tree):
    """Every dotted name that a module imports, `from a import b` as both a and a.b."""
    for node in statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where an arrow points"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


IMPORTS = {name: set(imports_of(tree)) for name, tree in TREES.items()}
PACKAGES = {name: {imported.split(".")[0] for imported in IMPORTS[name]} for name in TREES}
ENTRY_POINTS = sorted(
    name
    for name, tree in TREES.items()
    if name.count(".") == 1
    and any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body)
)


def within(name, part):
    return name == part or name.startswith(f"{part}.")


def arrows_into(name, parts):
    return sorted(i for i in IMPORTS[name] if any(within(i, part) for part in parts))


def modules_in(part):
    found = sorted(name for name in TREES if within(name, part))
    assert len(found) > 1, f"{part} has no modules"
    return found


# Arrows -----------------------------------------------------------------------------------------


def test_the_modules_of_the_design_are_there():
    expected = {"nets", "config", "experiment", "train", "evaluate", "predict"}
    assert {f"src.{name}" for name in expected} <= TREES.keys()
    assert set(ENTRY_POINTS) >= {"src.train", "src.evaluate", "src.predict"}


def test_nets_imports_torch_alone():
    assert PACKAGES["src.nets"] - STANDARD == {"torch"}


@pytest.mark.parametrize("part", ["src.models", "src.data", "src.kindling.callbacks"])
def test_models_data_and_callbacks_never_import_each_other(part):
    others = [other for other in PARTS if other != part]
    assert {name: arrows_into(name, others) for name in modules_in(part)} == {
        name: [] for name in modules_in(part)
    }


@pytest.mark.parametrize("part", ["src.models", "src.data", "src.kindling.callbacks"])
def test_models_data_and_callbacks_know_nothing_of_those_who_build_them(part):
    above = [
        "src.kindling.config.settings",
        "src.kindling.build",
        "src.kindling.files.run_directory",
        *ENTRY_POINTS,
    ]
    for name in modules_in(part):
        assert arrows_into(name, above) == []


@pytest.mark.parametrize(
    "name", [*ENTRY_POINTS, "src.kindling.build", "src.kindling.config.settings"]
)
def test_reaches_models_data_callbacks_and_loggers_through_conf_alone(name):
    assert arrows_into(name, PARTS) == []


@pytest.mark.parametrize("name", ["src.train", "src.evaluate", "src.predict"])
def test_entry_points_import_experiment_and_config(name):
    assert arrows_into(name, ["src.kindling.build"])
    assert arrows_into(name, ["src.kindling.config.settings"])


def test_experiment_imports_config_and_no_entry_point():
    assert arrows_into("src.kindling.build", ["src.kindling.config.settings"])
    assert arrows_into("src.kindling.build", ENTRY_POINTS) == []


def test_config_imports_neither_torch_nor_lightning():
    heavy = {"torch", "lightning", "pytorch_lightning", "torchmetrics", "tensorboard"}
    assert PACKAGES["src.kindling.config.settings"] & heavy == set()


@pytest.mark.parametrize("name", ["src.kindling.config.settings", *ENTRY_POINTS])
def test_a_command_is_read_without_importing_torch(name):
    code = f"import {name}, sys; print([m for m in ('torch', 'lightning') if m in sys.modules])"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def graph():
    """Which modules of src/ each imports, a package's `__init__` among them."""
    return {name: {i for i in IMPORTS[name] if i in TREES and i != name} for name in TREES}


def components(arrows):
    """Strongly connected components, by Tarjan's algorithm."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in arrows[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            found.append(sorted(stack[at:]))
            del stack[at:]

    for node in arrows:
        if node not in index:
            visit(node)
    return found


def test_the_search_for_cycles_finds_them():
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert sorted(components(arrows)) == [["a", "b", "c"], ["d", "e"], ["f"]]


def test_no_modules_import_each_other_in_a_circle():
    assert sum(map(len, graph().values())) > 10
    assert [component for component in components(graph()) if len(component) > 1] == []


# Names ------------------------------------------------------------------------------------------


MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


def test_conf_has_models():
    assert MODELS


def targets(node):
    """Every `_target_` in a YAML."""
    if isinstance(node, dict):
        yield from ([node["_target_"]] if "_target_" in node else [])
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from targets(part)


@pytest.mark.parametrize("group", ["model", "data"])
@pytest.mark.parametrize("stem", MODELS)
def test_a_model_is_four_files_of_one_stem(stem, group):
    folder = {"model": "models", "data": "data"}[group]
    assert (SRC / folder / f"{stem}.py").is_file()
    found = list(targets(yaml.safe_load((CONF / group / f"{stem}.yaml").read_text())))
    assert found
    assert {target.rpartition(".")[0] for target in found} == {f"src.{folder}.{stem}"}
    classes = {
        node.name
        for node in TREES[f"src.{folder}.{stem}"].body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    assert {target.rpartition(".")[2] for target in found} <= classes


def test_every_data_of_conf_has_a_module_of_its_stem():
    stems = {path.stem for path in (CONF / "data").glob("*.yaml")}
    assert stems >= set(MODELS)
    assert {f"src.data.{stem}" for stem in stems} <= TREES.keys()


@pytest.mark.parametrize("folder", [SRC, CONF, ROOT / "tests"], ids=lambda folder: folder.name)
def test_there_is_no_utils_drawer(folder):
    drawers = {"util", "utils", "helper", "helpers", "misc", "common"}
    assert [path for path in folder.rglob("*") if path.stem.lower() in drawers] == []


YAMLS = sorted(CONF.rglob("*.yaml"))


def test_conf_has_yamls():
    assert YAMLS


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.relative_to(CONF).as_posix())
def test_every_yaml_opens_with_a_comment(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert comment.startswith("# ")
    assert len(comment) > 10


def undocumented(node, prefix):
    """Public classes and functions below a node that have no docstring."""
    for child in node.body:
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if child.name.startswith("_"):
            continue
        if ast.get_docstring(child) is None:
            yield f"{prefix}.{child.name}"
        if isinstance(child, ast.ClassDef):
            yield from undocumented(child, f"{prefix}.{child.name}")


@pytest.mark.parametrize("name", TREES)
def test_every_public_name_has_a_docstring(name):
    assert ast.get_docstring(TREES[name])
    assert list(undocumented(TREES[name], name)) == []
