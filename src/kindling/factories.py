"""Determine which factories a model uses, of `optimizer=` and `scheduler=`."""

import inspect
import re
from typing import Any

from src.kindling.errors import InputError
from src.kindling.model import BaseModule

GROUPS = {"optimizer", "scheduler"}  # groups of conf/, and parameters of a model's constructor


def taken_by(kind: type[Any]) -> set[str]:
    """Return the factories that the constructor of a model class has a parameter for."""
    return GROUPS & inspect.signature(kind).parameters.keys()


def used_by(kind: type[Any]) -> set[str]:
    """Return the factories that a model class uses, according to its code.

    A subclass of BaseModule has both parameters. If it overrides `configure_optimizers`, it uses
    the factories named in that method, or in methods of its own that are called from there.
    """
    if not issubclass(kind, BaseModule):
        return taken_by(kind)
    own: dict[str, Any] = {}
    for parent in kind.mro()[: kind.mro().index(BaseModule)]:
        own = {**vars(parent), **own}
    if "configure_optimizers" not in own:
        return taken_by(kind)
    names = _names_in(own, "configure_optimizers")
    return {group for group in taken_by(kind) if {f"{group}_factory", "super"} & names}


def _names_in(methods: dict[str, Any], method: str) -> set[str]:
    """Return the names in the code of a method, and of the methods that it refers to."""
    found, waiting = {method}, [method]
    while waiting:
        code = getattr(methods.get(waiting.pop()), "__code__", None)
        new = set(code.co_names) - found if code else set()
        found |= new
        waiting += new
    return found


def check_overrides(model: Any, overrides: list[str]) -> None:
    """Refuse settings of an optimizer or schedule that the model would ignore.

    Args:
        model: the LightningModule.
        overrides: those of the command line: ["optimizer=sgd", "optimizer.lr=0.1", ...].
    """
    ignored = GROUPS - used_by(type(model))
    for override in overrides:
        group = re.split("[.=@]", override.lstrip("+~"), maxsplit=1)[0]
        if group in ignored:
            raise InputError(
                f"{override}: {type(model).__name__} does not use {group}=; its constructor needs a"
                f" parameter {group!r}, and its configure_optimizers must call that factory"
            )
