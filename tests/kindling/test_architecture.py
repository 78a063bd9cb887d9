"""Hold the arrows between the rooms, and what a newcomer relies on to find their way."""

import ast
import re
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SRC, CONF = ROOT / "src", ROOT / "conf"
ENGINE = "src.kindling"
YOURS = ("src.models", "src.data", "src.figures", "src.nets", "src.tour")

# A room of the engine and the rooms that it may import; what those may import, it may too.
ARROWS = {
    "errors": [],
    "chart": [],
    "colors": [],
    "layout": ["errors"],
    "config": ["errors", "layout"],
    "process": ["errors", "layout"],
    "files": ["process", "config"],
    "figures": ["colors", "files"],
    "optimizers": ["files"],
    "schedulers": ["files"],
    "resumable": ["process"],
    "repeatable": ["resumable"],
    "loader": ["resumable", "files"],
    "data": ["loader", "files"],
    "model": ["schedulers", "files"],
    "tracking": ["files"],
    "loggers": ["tracking", "files"],
    "callbacks": ["figures", "schedulers", "files"],
    "results": ["chart", "colors", "files"],
    "cli": ["files"],
    "speed": ["model"],
    "factories": ["model"],
    "build": ["speed", "callbacks", "factories", "data", "repeatable", "tracking"],
    "restore": ["build"],
    "training": ["restore", "callbacks"],
    "studies": ["training", "cli", "chart", "colors"],
    "export": ["training"],
    "serve": ["training"],
}
DOORS = ["training", "restore", "results", "studies", "export", "serve", "cli"]
# Rooms that a copier may delete, and the only files outside them that import them.
OPTIONAL = {
    "speed": {"src.kindling.build"},
    "results": {"src.compare", "src.report", "src.study"},
    "studies": {"src.study", "src.report"},
    "export": {"src.export"},
    "serve": {"src.serve"},
    "figures": {"src.kindling.callbacks.figures", "src.figures"},
}


def module_name(path):
    """Return src.kindling.model for src/kindling/model.py, src.models for its `__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {
    module_name(path): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(SRC.rglob("*.py"))
}


def statements(node, depth=0):
    """Yield the statements below a node, unless for type checkers, and their depth in functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr | ast.arguments | ast.expr_context):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield child, depth
        yield from statements(child, depth + inside)


def imports_of(tree):
    """Yield each dotted name that a module imports, and whether it does so when it is imported.

    `from a import b` yields both a and a.b.
    """
    for node, depth in statements(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, depth == 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where an arrow points"
            assert node.module is not None
            yield node.module, depth == 0
            yield from ((f"{node.module}.{alias.name}", depth == 0) for alias in node.names)


IMPORTS = {name: {imported for imported, _ in imports_of(tree)} for name, tree in TREES.items()}
PACKAGES = {name: {imported.split(".")[0] for imported in IMPORTS[name]} for name in TREES}
ENTRY_POINTS = sorted(
    name
    for name, tree in TREES.items()
    if name.count(".") == 1
    and any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body)
)


def graph():
    """Return which modules of src/ each imports, a package's `__init__` among them."""
    return {name: {i for i in IMPORTS[name] if i in TREES} for name in TREES}


def within(name, part):
    return name == part or name.startswith(f"{part}.")


def room(name):
    """Return the engine room of a module: `files` for src.kindling.files.run_lock."""
    return name.split(".")[2] if name.startswith(f"{ENGINE}.") else None


def chains(start, arrows):
    """Return, for each module that one reaches, the shortest chain of imports that leads there."""
    found, waiting = {start: [start]}, deque([start])
    while waiting:
        name = waiting.popleft()
        for other in sorted(arrows[name] - found.keys()):
            found[other] = [*found[name], other]
            waiting.append(other)
    return found


def allowed(rooms):
    """Return the rooms that may be reached from these, themselves among them."""
    reached = set(rooms)
    for name in rooms:
        reached |= allowed(ARROWS[name])
    return reached


def astray(start, permitted):
    """Return the chains of imports from a module to a room that it may not reach."""
    reached = chains(start, graph())
    return [" -> ".join(chain) for name, chain in reached.items() if room(name) not in permitted]


# Arrows -------------------------------------------------------------------------------------------


def test_a_chain_of_imports_is_followed_through_other_files():
    arrows = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set()}
    assert chains("a", arrows)["d"] == ["a", "b", "d"]
    assert "a" not in chains("d", arrows)
    below = {"files", "process", "config", "errors", "layout"}
    assert allowed(["model"]) == {"model", "schedulers"} | below


def test_every_room_of_the_engine_has_its_place_among_the_arrows():
    assert {room(name) for name in TREES} - {None} <= ARROWS.keys()


@pytest.mark.parametrize("name", sorted({room(name) for name in TREES} - {None}))
def test_the_arrows_of_a_room_point_downward(name):
    modules = [module for module in TREES if room(module) == name]
    permitted = allowed([name]) | {None}
    assert [chain for module in modules for chain in astray(module, permitted)] == []


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_a_door_reaches_yours_and_the_engine_only_downward(name):
    assert astray(name, allowed(DOORS) | {None}) == []
    direct = {room(imported) for imported in graph()[name]} - {None}
    assert direct & {"speed", "build", "model", "data", "callbacks", "loggers"} == set()


@pytest.mark.parametrize("name", [name for name in TREES if name.startswith(ENGINE)])
def test_the_engine_names_nothing_of_yours(name):
    outside = {i for i in graph()[name] if not within(i, ENGINE)} - {"src"}
    assert outside == set()
    text = Path(ROOT, *name.split(".")).with_suffix(".py")
    text = text if text.exists() else text.with_suffix("") / "__init__.py"
    pattern = "|".join(map(re.escape, YOURS))
    found = re.findall(rf"\b(?:{pattern})\b", text.read_text(encoding="utf-8"))
    assert found == [], "the engine reaches what is yours through conf/ alone"


@pytest.mark.parametrize("name", OPTIONAL)
def test_only_its_users_import_a_room_that_may_be_deleted(name):
    users = {
        user for user, imported in graph().items() if any(room(i) == name for i in imported)
    } - {module for module in TREES if room(module) == name}
    strangers = {user for user in users if not any(within(user, one) for one in OPTIONAL[name])}
    assert strangers == set()


def test_one_arrow_enters_speed_and_only_when_it_is_needed():
    found = {
        (name, imported, at_once)
        for name, tree in TREES.items()
        for imported, at_once in imports_of(tree)
        if room(imported) == "speed" and room(name) != "speed" and imported in TREES
    }
    wanted = {("src.kindling.build", "src.kindling.speed.install", False)}
    assert found - {(name, "src.kindling.speed", at) for name, _, at in wanted} <= wanted


@pytest.mark.parametrize("name", [name for name in ENTRY_POINTS if name != "src.tour"])
def test_a_door_fits_on_a_screen(name):
    lines = Path(ROOT, *name.split(".")).with_suffix(".py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60


def test_src_shows_few_entries():
    shown = {path.name for path in SRC.iterdir()} - {"__pycache__"}
    assert {"__init__.py", "train.py", "kindling"} <= shown
    assert len(shown) <= 15


def test_nets_imports_torch_alone():
    assert PACKAGES["src.nets"] - sys.stdlib_module_names == {"torch"}


@pytest.mark.parametrize("part", ["src.models", "src.data", "src.figures"])
def test_models_data_and_figures_do_not_import_each_other(part):
    others = [other for other in ("src.models", "src.data", "src.figures") if other != part]
    modules = [name for name in TREES if within(name, part)]
    arrows = {i for name in modules for i in IMPORTS[name] if any(within(i, o) for o in others)}
    assert arrows == set()


def test_a_command_line_is_read_without_importing_torch():
    code = (
        f"import {', '.join(ENTRY_POINTS)}, sys; print({{'torch', 'lightning'}} & {{*sys.modules}})"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.stdout.strip(), result.stderr) == ("set()", "")


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
    assert [name for name, imported in graph().items() if name in imported] == []


# Names ------------------------------------------------------------------------------------------


MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


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
