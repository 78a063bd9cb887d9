"""Find the settings that change when a run is resumed; refuse or apply them."""

from pathlib import Path
from typing import Any

from src.kindling.errors import InputError, short_repr
from src.kindling.layout import Plain, flat

Changes = dict[str, tuple[Any, Any]]  # key -> (old, new)
NOT_OF_THE_RUN = ("resume", "allow_changes", "log_dir", "init_from")  # keys of the command alone

INCOMPATIBLE = {  # cannot change: the state in the checkpoint would mean something else
    "optimizer._target_": "one optimizer's state cannot be loaded into another",
    "scheduler._target_": "the state of a plateau schedule differs from that of a schedule by step",
}


def changes(old: Any, new: Plain) -> Changes:
    """Return the settings of a run that differ from those that its checkpoint was trained with."""
    if not isinstance(old, dict):
        return {}
    before, after = flat(old), flat(new)
    keys = [key for key in before | after if key not in NOT_OF_THE_RUN]
    pairs = {key: (before.get(key), after.get(key)) for key in keys}
    return {key: (was, now) for key, (was, now) in pairs.items() if was != now}


def check_allowed(run: Path, found: Changes, allow: bool) -> None:
    """Refuse changes without `allow_changes`, except for a longer run."""
    asked = {key: pair for key, pair in found.items() if not _is_longer(key, *pair)}
    if asked and not allow:
        lines = [f"{key}: {short_repr(a)} -> {short_repr(b)}" for key, (a, b) in asked.items()]
        raise InputError(
            f"{', '.join(lines)}: {run} was trained with other settings; allow_changes=true"
            " continues with the new ones, and a command without resume= starts a new run"
        )


def _is_longer(key: str, old: Any, new: Any) -> bool:
    if key != "trainer.max_epochs" or not isinstance(old, int) or not isinstance(new, int):
        return False
    return old != -1 and (new == -1 or new > old)


def check_possible(found: Changes) -> None:
    """Refuse changes that the state in the checkpoint rules out."""
    for key, reason in INCOMPATIBLE.items():
        if key not in found:
            continue
        old, new = found[key]
        if key == "scheduler._target_" and not any(str(t).endswith(".plateau") for t in (old, new)):
            continue
        raise InputError(
            f"{key}: {old} -> {new} is not possible ({reason}); init_from= starts a new run"
            " from these weights"
        )


def apply_changes(found: Changes, content: Any, settings: Plain) -> None:
    """Write changed settings into a checkpoint, which would otherwise restore the old ones.

    An optimizer's state carries its learning rate, a plateau schedule its patience, and so on.
    """
    content["config"] = settings
    patience = {f"callbacks.{name}.patience" for name in early_stopping_nodes(settings)}
    for key, (old, new) in found.items():
        group, _, name = key.partition(".")
        if group == "optimizer":
            _apply_to_optimizer(content, name, old, new)
        elif group == "scheduler":
            for state in content["lr_schedulers"]:
                state.update({name: new} if name in state else {})
        elif key in patience:
            for state in early_stoppings(content):
                state["patience"] = new
                if new is not None and state["wait_count"] < new:
                    state["stopping_reason"] = 0
        elif key in ("callbacks.checkpointing.monitor", "callbacks.checkpointing.mode"):
            state_of(content, "Checkpointing").update(best_score=None, kept=[])
    if any(
        key.startswith("callbacks.") and _is_early_stopping(old) for key, (old, _) in found.items()
    ):
        for name in [n for n in content["callbacks"] if str(n).startswith("EarlyStopping")]:
            del content["callbacks"][name]


def _apply_to_optimizer(content: Any, name: str, old: Any, new: Any) -> None:
    def scaled(rate: float) -> float:  # parameter groups keep the proportion of their rates
        return float(rate / old * new if old else new)

    for group in (g for state in content["optimizer_states"] for g in state["param_groups"]):
        if name == "lr":  # it keeps its place in the schedule
            group["lr"] = scaled(group["lr"])
            group["initial_lr"] = scaled(group.get("initial_lr", old or new))
        elif name in group:
            group[name] = new
    for schedule in content["lr_schedulers"] if name == "lr" else ():
        if "base_lrs" in schedule:
            schedule["base_lrs"] = [scaled(rate) for rate in schedule["base_lrs"]]


def early_stopping_nodes(settings: Plain) -> dict[str, Plain]:
    """Return the callbacks of a configuration that stop a run early, by their names in it."""
    nodes = settings["callbacks"].items()
    return {k: node for k, node in nodes if node and _is_early_stopping(node.get("_target_"))}


def _is_early_stopping(target: Any) -> bool:
    return str(target).endswith(".EarlyStopping")


def early_stoppings(content: Any) -> list[Any]:
    """Return the states of early stopping in a checkpoint, one per callback."""
    states = content.get("callbacks")
    names = [key for key in states if str(key).startswith("EarlyStopping")] if states else []
    return [state_of(content, name) for name in names]


def state_of(content: Any, name: str) -> Any:
    """Return the state of a callback in a checkpoint; empty if it has none."""
    states = content.get("callbacks")
    state = states.get(name) if isinstance(states, dict) else None
    return state if isinstance(state, dict) else {}
