"""Resolve names and annotations in source files, without importing what they define.

A name is followed through the `import` lines of source files to its definition. Annotations are
rebuilt from their parts: Python's own types, and those of typing and pydantic.
"""

import ast
import builtins
import functools
import importlib.util
import sys
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNREAD: Any = object()  # instead of an annotation or default that the source alone does not show
LIGHT = {"pydantic", "annotated_types", "typing_extensions", *sys.stdlib_module_names}
# Bases whose subclasses pydantic validates by more than isinstance.
SPECIAL = {"Enum", "IntEnum", "StrEnum", "TypedDict", "NamedTuple", "Protocol", "BaseModel"}


class UnreadableError(Exception):
    """Raised when the source does not show a meaning; importing the code might."""


@dataclass(frozen=True)
class Source:
    """A module that is not imported: its name, and the statements that bind its names."""

    name: str
    is_package: bool
    text: str
    statements: dict[str, ast.stmt]


@dataclass(frozen=True)
class Definition:
    """The definition of a class or function that is not imported, and its module."""

    source: Source
    node: ast.stmt


@functools.cache
def source_of(module: str) -> Source:
    """Read the source of a module without running it.

    Raises:
        UnreadableError: it has no Python source.
    """
    top, *parts = module.split(".")
    if not all(map(str.isidentifier, (top, *parts))):
        raise UnreadableError(module)
    try:
        spec = importlib.util.find_spec(top)  # imports nothing for a top-level name
    except (ImportError, ValueError, AttributeError):
        spec = None
    roots = (spec and spec.submodule_search_locations) or ()
    places = [Path(root, *parts) for root in roots]
    files = [file for p in places for file in (p / "__init__.py", p.with_suffix(".py"))]
    if spec and spec.origin and not parts:
        files = [Path(spec.origin)]
    for file in files:
        if file.suffix == ".py" and file.is_file():
            text = file.read_text(encoding="utf-8")
            names = dict(statements(ast.parse(text).body))
            return Source(module, file.stem == "__init__", text, names)
    raise UnreadableError(module)


def statements(body: list[ast.stmt]) -> typing.Iterator[tuple[str, ast.stmt]]:
    """Yield the names that statements bind, in order, each with its statement."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node


def resolved(module: str, name: str) -> Any:
    """Resolve a name in a module to an object, a Definition, or the name of a module.

    Raises:
        UnreadableError: the source does not show it.
    """
    if module.split(".")[0] in LIGHT:
        return getattr(importlib.import_module(module), name, UNREAD)
    source = source_of(module)
    if name not in source.statements:
        if not source.is_package and not may_bind(source, name):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        source_of(f"{module}.{name}")  # a module of a package
        return f"{module}.{name}"
    node = source.statements[name]
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return Definition(source, node)
    if isinstance(node, ast.ImportFrom):
        [alias] = [a for a in node.names if (a.asname or a.name) == name]
        return resolved(origin(source, node), alias.name)
    if isinstance(node, ast.Import):
        [alias] = [a for a in node.names if (a.asname or a.name) == name]
        return alias.name
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    if value is None:
        raise UnreadableError(name)
    return evaluate(value, source)


def may_bind(source: Source, name: str) -> bool:
    """Return whether a module may still bind a name: in an `if`, by `*`, or at run time."""
    for node in ast.walk(ast.parse(source.text)):
        named = getattr(node, "asname", None) or getattr(node, "name", None)
        if isinstance(node, ast.Name) and (isinstance(node.ctx, ast.Store) or node.id == "globals"):
            named = "*" if node.id == "globals" else node.id
        if named in (name, "*", "__getattr__"):
            return True
    return False


def origin(source: Source, node: ast.ImportFrom) -> str:
    """Return the module that a `from ... import` statement refers to."""
    if not node.level:
        return node.module or ""
    parts = source.name.split(".")
    parent = parts[: len(parts) - node.level + source.is_package]
    return ".".join([*parent, *([node.module] if node.module else [])])


# Annotations --------------------------------------------------------------------------------------


def annotated(node: ast.expr, source: Source) -> Any:
    """Evaluate an expression as an annotation.

    Raises:
        UnreadableError: the source does not show its meaning.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # a forward reference
        try:
            return annotated(ast.parse(node.value, mode="eval").body, source)
        except SyntaxError:
            raise UnreadableError(node.value) from None
    try:
        return of_class(evaluate(node, source))
    except UnreadableError:
        raise
    except Exception as error:  # an invalid subscript or call can raise anything
        raise UnreadableError(ast.unparse(node)) from error


def evaluate(node: ast.expr, source: Source) -> Any:
    """Evaluate the kinds of expressions that annotations consist of."""
    if isinstance(node, ast.Name | ast.Attribute):
        return looked_up(node, source)
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List):
        return [annotated(part, source) for part in node.elts]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return annotated(node.left, source) | annotated(node.right, source)
    if isinstance(node, ast.Subscript):
        kind = of_class(evaluate(node.value, source))
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if kind is typing.Literal:
            return kind[tuple(literal(part, source) for part in parts)]
        if kind is typing.Annotated:
            return kind[annotated(parts[0], source), *(evaluate(p, source) for p in parts[1:])]
        inside = tuple(annotated(part, source) for part in parts)
        return kind[inside if len(inside) > 1 else inside[0]]
    if isinstance(node, ast.Call):
        made = looked_up(node.func, source)
        if getattr(made, "__module__", "").split(".")[0] in ("pydantic", "annotated_types"):
            named = {word.arg or "": ast.literal_eval(word.value) for word in node.keywords}
            return made(*map(ast.literal_eval, node.args), **named)
    raise UnreadableError(ast.unparse(node))


def literal(node: ast.expr, source: Source) -> Any:
    """Evaluate one choice of a Literal: a value, or another Literal."""
    return evaluate(node, source) if isinstance(node, ast.Subscript) else ast.literal_eval(node)


def looked_up(node: ast.expr, source: Source) -> Any:
    """Resolve a name, dotted or not, in a module."""
    if isinstance(node, ast.Attribute):
        owner = looked_up(node.value, source)
        if isinstance(owner, str):  # a module
            return resolved(owner, node.attr)
        raise UnreadableError(node.attr)
    if not isinstance(node, ast.Name):
        raise UnreadableError(ast.unparse(node))
    if node.id not in source.statements and hasattr(builtins, node.id):
        return getattr(builtins, node.id)
    return resolved(source.name, node.id)


def of_class(found: Any) -> Any:
    """Return a placeholder for a class that is not imported: no YAML value is an instance of it."""
    if found is UNREAD or isinstance(found, str):
        raise UnreadableError(found)
    if not isinstance(found, Definition):
        return found
    node = found.node
    if not isinstance(node, ast.ClassDef) or node.decorator_list:
        raise UnreadableError(getattr(node, "name", ""))
    if any(ast.unparse(base).rpartition(".")[2] in SPECIAL for base in node.bases):
        raise UnreadableError(node.name)
    return placeholder(found.source.name, node.name)


@functools.cache
def placeholder(module: str, name: str) -> type[Any]:
    """Return an empty class with this name; the same class for the same name."""
    return type(name, (), {"__module__": module})
