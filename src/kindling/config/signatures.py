"""Read the signature of a constructor from its source, without importing torch, or else import it.

A name is followed through the `import` lines of source files to its definition. Annotations are
rebuilt from their parts: Python's own types, and those of typing and pydantic.
"""

import ast
import builtins
import contextlib
import functools
import importlib.util
import inspect
import sys
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNREAD: Any = object()  # instead of an annotation or default that the source alone does not show
LIGHT = {"pydantic", "annotated_types", "typing_extensions", *sys.stdlib_module_names}
WRAPPERS = {"_defaults_from_env_vars"}  # Lightning's, which does not change the Trainer's signature
# Bases whose subclasses pydantic validates by more than isinstance.
SPECIAL = {"Enum", "IntEnum", "StrEnum", "TypedDict", "NamedTuple", "Protocol", "BaseModel"}


class UnreadableError(Exception):
    """Raised when the source does not show a signature; importing the code might."""


def from_object(found: Any) -> inspect.Signature:
    """Return the signature of a class or function; unresolvable annotations become Any."""
    function: Any = inspect.unwrap(found.__init__ if inspect.isclass(found) else found)
    from_source: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        with contextlib.suppress(NameError, TypeError, AttributeError):
            names = vars(sys.modules[function.__module__])
            from_source |= typing.get_type_hints(alone, names, None, True)
    parameters = inspect.signature(found).parameters.values()
    return inspect.Signature(
        [p.replace(annotation=from_source.get(p.name, Any)) for p in parameters]
    )


def locate(target: str) -> Any:
    """Import the object that a dotted name refers to.

    Raises:
        ImportError, AttributeError, ValueError: it does not exist.
    """
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


@functools.cache
def from_source(target: str, names: frozenset[str]) -> inspect.Signature:
    """Return the signature of a class or function from its source, with UNREAD for unknown parts.

    Args:
        target: its dotted name.
        names: parameters whose annotations are needed; reading a few is faster than reading all.

    Raises:
        UnreadableError: it has no source, or is created in a way that the source does not show.
        AttributeError: its module has no such name.
    """
    module, _, name = target.rpartition(".")
    found = resolved(module, name)
    method = isinstance(found, Definition) and isinstance(found.node, ast.ClassDef)
    function = constructor(found) if method else found
    if not isinstance(function, Definition) or not isinstance(function.node, ast.FunctionDef):
        raise UnreadableError(target)
    wrappers = {ast.unparse(decorator) for decorator in function.node.decorator_list}
    if wrappers - WRAPPERS:
        raise UnreadableError(target)
    return inspect.Signature(list(parameters(function, names))[method:])


# Where a name is defined --------------------------------------------------------------------------


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


# Parameters ---------------------------------------------------------------------------------------


def constructor(found: Definition) -> Definition:
    """Return the `__init__` of a class, its own or the nearest inherited one.

    Raises:
        UnreadableError: the class has a decorator, a `__new__`, or several bases to search.
    """
    node = found.node
    assert isinstance(node, ast.ClassDef)
    own = dict(statements(node.body))
    if node.decorator_list or "__new__" in own:
        raise UnreadableError(node.name)
    if "__init__" in own:
        return Definition(found.source, own["__init__"])
    if len(node.bases) != 1:
        raise UnreadableError(node.name)
    base = looked_up(node.bases[0], found.source)
    if not isinstance(base, Definition) or not isinstance(base.node, ast.ClassDef):
        raise UnreadableError(node.name)
    return constructor(base)


def parameters(function: Definition, names: frozenset[str]) -> typing.Iterator[inspect.Parameter]:
    """Yield the parameters of a function, with UNREAD for unknown annotations and defaults."""
    assert isinstance(function.node, ast.FunctionDef)
    arguments, kind = function.node.args, inspect.Parameter

    def parameter(argument: ast.arg, default: ast.expr | None, how: Any) -> inspect.Parameter:
        wanted = argument.annotation if argument.arg in names else None
        return kind(
            argument.arg, how, default=value(default), annotation=read_if(wanted, function.source)
        )

    positional = [*arguments.posonlyargs, *arguments.args]
    absent: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    defaults = [*absent, *arguments.defaults]
    for index, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        first = index < len(arguments.posonlyargs)
        how = kind.POSITIONAL_ONLY if first else kind.POSITIONAL_OR_KEYWORD
        yield parameter(argument, default, how)
    if arguments.vararg:
        yield parameter(arguments.vararg, None, kind.VAR_POSITIONAL)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield parameter(argument, default, kind.KEYWORD_ONLY)
    if arguments.kwarg:
        yield parameter(arguments.kwarg, None, kind.VAR_KEYWORD)


def value(default: ast.expr | None) -> Any:
    """Return a default; UNREAD unless it is a literal."""
    if default is None:
        return inspect.Parameter.empty
    try:
        return ast.literal_eval(default)
    except ValueError:
        return UNREAD


def read_if(annotation: ast.expr | None, source: Source) -> Any:
    """Return an annotation: Any if there is none, UNREAD if the source does not show it."""
    if annotation is None:
        return Any
    try:
        return annotated(annotation, source)
    except UnreadableError:
        return UNREAD


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
