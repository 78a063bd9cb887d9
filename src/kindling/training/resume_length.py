"""How long a resumed run may become, and the overrides that make a finished one longer."""

import math
from pathlib import Path
from typing import Any

from src.kindling import layout
from src.kindling.errors import InputError
from src.kindling.layout import Plain
from src.kindling.training.resume_changes import (
    Changes,
    early_stopping_nodes,
    early_stoppings,
)

# A finished run may continue if one of these, or a key below it, has changed.
EXTENDING = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "callbacks.")


def extends(found: Changes) -> bool:
    """Return whether these changes may let a finished run train further."""
    return any(key.startswith(EXTENDING) for key in found)


def longer(
    settings: Plain, epochs: int, steps: int, has_end: bool, stopped_early: bool
) -> dict[str, str]:
    """Return the overrides that make a finished run longer; none if no setting of it would.

    Args:
        settings: its configuration.
        epochs: the completed epochs.
        steps: the optimizer steps.
        has_end: whether a schedule of it raises after its last step, as torch's OneCycleLR does.
        stopped_early: whether early stopping has ended it.
    """
    found: dict[str, str] = {}
    limits = settings["trainer"]
    patience = _patience(settings) if stopped_early else {}
    if stopped_early and not patience:  # of a callback that is not in the configuration
        return {}
    most, ended = limits["max_epochs"] or -1, 0 < limits["max_steps"] <= steps
    if ended and not has_end:
        found |= {"trainer.max_steps": str(2 * limits["max_steps"]), "allow_changes": "true"}
    elif not has_end and 0 < most <= (math.inf if patience else epochs):
        found["trainer.max_epochs"] = str(2 * most)
    return found | patience


def longer_by_checkpoint(settings: Plain, content: Any) -> dict[str, str]:
    """Return the overrides that make a finished run longer, given what its checkpoint holds."""
    has_end = any("total_steps" in state for state in content.get("lr_schedulers", []))
    stopped_early = any(state.get("stopping_reason") for state in early_stoppings(content))
    return longer(settings, epochs_done(content), _steps(content), has_end, stopped_early)


def _patience(settings: Plain) -> dict[str, str]:
    """Return the overrides with which a run continues that early stopping has ended."""
    found = {
        f"callbacks.{name}.patience": str(2 * max(node.get("patience", 3), 1))
        for name, node in early_stopping_nodes(settings).items()
    }
    return found | ({"allow_changes": "true"} if found else {})


def check_length(run: Path, content: Any, settings: Plain, found: Changes) -> None:
    """Refuse to make a run shorter than it is, or longer than early stopping lets it be."""
    done = {"trainer.max_epochs": epochs_done(content), "trainer.max_steps": _steps(content)}
    for key, count in done.items():
        limit = settings["trainer"][key.removeprefix("trainer.")]
        if isinstance(limit, int) and 0 <= limit < count:
            unit = key.removeprefix("trainer.max_")
            raise InputError(f"{key}={limit}: {run} has completed {count} {unit} already")
    if "trainer.max_epochs" in found:
        _check_schedules(run, content, settings)
        _check_patience(run, content, settings)


def _check_patience(run: Path, content: Any, settings: Plain) -> None:
    epochs = settings["trainer"]["max_epochs"]
    waits = [s["wait_count"] for s in early_stoppings(content) if s.get("stopping_reason")]
    given = [node.get("patience", 3) for node in early_stopping_nodes(settings).values()]
    if waits and given and min(given) <= max(waits):
        longer = {"trainer.max_epochs": str(epochs)} | _patience(settings)
        raise InputError(
            f"trainer.max_epochs={epochs}: early stopping ended {run} after"
            f" {epochs_done(content)} epochs; with more patience it continues: "
            f"{layout.command_line('train', resume=str(run), **longer)}"
        )


def _check_schedules(run: Path, content: Any, settings: Plain) -> None:
    """Refuse more steps than a schedule of torch's OneCycleLR has, which raises at the next one."""
    epochs, most = settings["trainer"]["max_epochs"], settings["trainer"]["max_steps"]
    done = epochs_done(content)
    by_epochs = _steps(content) / done * epochs if done and epochs >= 0 else math.inf
    steps = min(by_epochs, most if most >= 0 else math.inf)
    for state in content.get("lr_schedulers", []):
        if done and 0 < state.get("total_steps", steps) < steps:
            raise InputError(
                f"trainer.max_epochs={epochs}: the OneCycleLR of {run} ends after"
                f" {state['total_steps']} steps; init_from= starts a longer run from these weights"
            )


def _steps(content: Any) -> int:
    return int(content.get("global_step", 0))


def epochs_done(content: Any) -> int:
    """Return how many epochs were completed at a checkpoint.

    Raises:
        InputError: it does not say, so it is not from a training run.
    """
    try:
        return int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    except (LookupError, TypeError, ValueError):
        raise InputError(
            "the checkpoint holds only weights: init_from= starts a run from them"
        ) from None
