"""Read a constructor's signature from its source, without importing torch, or else import it."""

import ast
import contextlib
import functools
import importlib
import inspect
import sys
import types
import typing
from typing import Any

from src.kindling.config.source import (
    UNREAD,
    Definition,
    Source,
    UnreadableError,
    annotated,
    looked_up,
    resolved,
    statements,
)

WRAPPERS = {"_defaults_from_env_vars"}  # Lightning's, which does not change the Trainer's signature


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


def method(target: str, name: str) -> Definition | None:
    """Return the definition of a class's method, its own or inherited; None without such a method.

    Raises:
        UnreadableError: the source does not show it.
        AttributeError: the module of `target` has no such class.
    """
    module, _, kind = target.rpartition(".")
    return _method(resolved(module, kind), name)


def _method(found: Any, name: str) -> Definition | None:
    if not isinstance(found, Definition) or not isinstance(found.node, ast.ClassDef):
        raise UnreadableError(name)
    if found.source.name.split(".")[0] in ("lightning", "torch"):
        return None
    node = dict(statements(found.node.body)).get(name)
    if isinstance(node, ast.FunctionDef) and not node.decorator_list:
        return Definition(found.source, node)
    if node is not None or found.node.decorator_list:
        raise UnreadableError(name)
    inherited = (_method(looked_up(base, found.source), name) for base in found.node.bases)
    return next((definition for definition in inherited if definition is not None), None)


def texts(function: Definition) -> dict[str, str]:
    """Return the annotations of a function's arguments as they are written; "" for none."""
    arguments = [node for node in ast.walk(function.node) if isinstance(node, ast.arg)]
    return {a.arg: ast.unparse(a.annotation) if a.annotation else "" for a in arguments}


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
