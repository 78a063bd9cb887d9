"""Determine which metrics a run can log from the sources alone, without importing torch."""

import ast
import re
from collections.abc import Iterator

from src.kindling.config.signatures import method
from src.kindling.config.source import Definition, UnreadableError, looked_up, resolved, source_of
from src.kindling.layout import Plain

ENGINE = "src.kindling."
# Matches code that logs by itself, or a hook that may change what is logged.
LOGS = re.compile(r"\blog(_dict)?\(|callback_metrics|def configure_model\b")


def metrics(settings: Plain) -> set[str] | None:
    """Return all metrics that a run could log; None if only a step can tell.

    Known are those of a BaseModule whose classes log nothing by themselves and whose `metrics` and
    `parameter_metrics` are written as dictionaries, and those of this project's own callbacks.

    Args:
        settings: the resolved configuration of the run.
    """
    callbacks = [node["_target_"] for node in settings["callbacks"].values()]
    if not all(target.startswith(ENGINE) for target in callbacks):
        return None
    target = settings["model"]["_target_"]
    try:
        _check_silent(resolved(*target.rpartition(".")[::2]))
        found = {"val/loss", *(f"val/{name}" for name in _stage_names(target))}
        for callback in callbacks:
            text = source_of(callback.rpartition(".")[0]).text
            found |= set(re.findall(r'"(train/\w+)"', text))
    except (UnreadableError, AttributeError):
        return None
    return found


def _check_silent(found: object) -> None:
    """Accept a class that logs what BaseModule does, and no more.

    Raises:
        UnreadableError: it may log by itself.
    """
    if not isinstance(found, Definition) or not isinstance(found.node, ast.ClassDef):
        raise UnreadableError
    if found.source.name == f"{ENGINE}model":
        return
    text = ast.get_source_segment(found.source.text, found.node) or "log("
    if LOGS.search(text) or found.node.decorator_list or len(found.node.bases) != 1:
        raise UnreadableError(found.node.name)
    _check_silent(looked_up(found.node.bases[0], found.source))


def _stage_names(target: str) -> Iterator[str]:
    """Yield the names of `metrics` and `parameter_metrics`.

    Raises:
        UnreadableError: a dictionary is not written out, or a metric may have several values.
    """
    for name in ("metrics", "parameter_metrics", "loss_metric"):
        found = method(target, name)
        assert found is not None  # BaseModule has it
        for node in ast.walk(found.node):
            if isinstance(node, ast.Call) and name != "parameter_metrics":
                _check_one_value(node.func, found)
            if isinstance(node, ast.Return) and name != "loss_metric":
                yield from _keys(node.value, ast.Call if name == "metrics" else ast.expr)


def _keys(node: ast.expr | None, values: type[ast.expr]) -> Iterator[str]:
    """Yield the keys of a dictionary that is written out, with such values.

    Raises:
        UnreadableError: it is not.
    """
    if not isinstance(node, ast.Dict) or not all(isinstance(v, values) for v in node.values):
        raise UnreadableError
    for key in node.keys:
        if not isinstance(key, ast.Constant):
            raise UnreadableError
        yield str(key.value)


def _check_one_value(metric: ast.expr, place: Definition) -> None:
    """Accept the class of a metric that computes a tensor; a collection has several, with names.

    Raises:
        UnreadableError: it may be one of those.
    """
    if ast.unparse(metric).startswith("super"):
        return
    made = looked_up(metric, place.source)
    if not isinstance(made, Definition):
        raise UnreadableError
    compute = method(f"{made.source.name}.{getattr(made.node, 'name', '')}", "compute")
    if "-> Tensor:" not in ast.unparse(compute.node if compute else made.node).partition("\n")[0]:
        raise UnreadableError
