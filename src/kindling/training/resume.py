"""How a run goes on: from which checkpoint, with which settings, and from where in its history."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import OmegaConf

from src.kindling import layout
from src.kindling.errors import InputError, first_line, short_repr
from src.kindling.layout import Plain

if TYPE_CHECKING:
    from src.kindling.build import Experiment

ABOUT_THE_COMMAND = ("resume", "allow_changes", "log_dir", "init_from")  # not about the run
CANDIDATES = ("last.ckpt", "previous.ckpt", "best.ckpt")  # what to go on from, the newest first
Changes = dict[str, tuple[Any, Any]]  # key -> (old, new)


# The checkpoint -----------------------------------------------------------------------------------


def newest_whole(run: Path) -> tuple[Path | None, Any, list[str]]:
    """Return the newest checkpoint of a run that is not damaged, its content, and what to say.

    None where there is no checkpoint at all: the run was killed before its first one.

    Raises:
        InputError: there are checkpoints, and none of them is whole.
    """
    from src.kindling.files.checkpoint import load_checkpoint

    said: list[str] = []
    present = [path for name in CANDIDATES if (path := run / "checkpoints" / name).is_file()]
    for path in present:
        try:
            content = load_checkpoint(path)
        except (OSError, ValueError) as error:
            said.append(first_line(error))
            continue
        if said or path.name != CANDIDATES[0]:
            said.append(f"continuing from {path}, of step {content.get('global_step')}")
        return path, content, said
    if present:
        raise InputError(said[0] if len(said) == 1 else f"{said[0]}; and no other is whole")
    return None, None, [f"{run} has no checkpoint yet: it starts from its first step"]


def prepare(
    built: "Experiment", run: Path, checkpoint: Path | None, content: Any, found: Changes
) -> Path | None:
    """Make a run's files what they were when the checkpoint was written, with what is changed.

    Returns:
        The checkpoint to go on from.
    """
    cut_history(built.trainer, content)
    if checkpoint is None:
        return None
    last = checkpoint.with_name(CANDIDATES[0])
    forgotten = _forget_lost_best(run, content)
    if found:
        apply_changes(found, content, built.config)
    if checkpoint == last and not found and not forgotten:
        return last
    from src.kindling.files.checkpoint import AtomicCheckpointIO

    if checkpoint != last and last.exists():
        last.replace(last.with_name("damaged.ckpt"))
    AtomicCheckpointIO().save_checkpoint(content, last)
    return last


def _forget_lost_best(run: Path, content: Any) -> bool:
    """Forget a best checkpoint that is damaged or gone, so that the next takes its place."""
    from src.kindling.files.checkpoint import load_checkpoint

    state = _of_callback(content, "Checkpointing")
    if state.get("best_score") is None:
        return False
    try:
        load_checkpoint(run / "checkpoints" / "best.ckpt")
    except (OSError, ValueError) as error:
        print(f"{first_line(error)}: the best from here on takes its place")
        state["best_score"] = None
        return True
    return False


def cut_history(trainer: Any, content: Any) -> None:
    """Let the history end where it ended when the checkpoint was written; without one, at 0."""
    marks = _of_callback(content, "Checkpointing").get("history", {}) if content else None
    for logger in trainer.loggers:
        name = type(logger).__name__
        if hasattr(logger, "cut") and (marks is None or name in marks):
            logger.cut(marks[name] if marks else None)


def _of_callback(content: Any, name: str) -> Any:
    """Return the state of a callback in a checkpoint, an empty one where it has none."""
    states = content.get("callbacks")
    state = states.get(name) if isinstance(states, dict) else None
    return state if isinstance(state, dict) else {}


# The settings -------------------------------------------------------------------------------------


def with_overrides(saved: Plain, overrides: list[str]) -> Plain:
    """Return a run's own configuration with what the command line changes in it.

    That is what the arguments change in a configuration of this model, whether directly or by an
    interpolation (the data's seed follows `seed`). An option of a group replaces the whole group,
    but for the trainer's, which hold little more than where to run.
    """
    given = {_key(o): o for o in overrides if _key(o) not in ABOUT_THE_COMMAND}
    if not given:
        return saved
    held = layout.flat(saved)
    model = f"model={layout.model_stem(saved)}"
    as_saved = [f"{key}={json.dumps(held[key])}" for key in given if key in held]
    before = layout.flat(_composed([model, *as_saved]))
    after = layout.flat(_composed([*([] if "model" in given else [model]), *given.values()]))
    groups = [key for key in given if (layout.CONF / key).is_dir() and key != "trainer"]
    replaced = tuple(f"{group}." for group in groups)
    gone = before.keys() - after.keys()
    kept = {k: v for k, v in held.items() if k not in gone and not k.startswith(replaced)}
    new = {k: v for k, v in after.items() if v != before.get(k, ...) or k.startswith(replaced)}
    return _nested(kept | new)


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _composed(overrides: list[str]) -> Any:
    return OmegaConf.to_container(hydra.compose("train", overrides), resolve=True)


def _nested(flat: Plain) -> Plain:
    whole: Plain = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        node = whole
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return whole


def changes(old: Any, new: Plain) -> Changes:
    """Return the settings of a run that differ from those that its checkpoint was trained with."""
    if not isinstance(old, dict):
        return {}
    before, after = layout.flat(old), layout.flat(new)
    keys = [key for key in before | after if key not in ABOUT_THE_COMMAND]
    pairs = {key: (before.get(key), after.get(key)) for key in keys}
    return {key: (was, now) for key, (was, now) in pairs.items() if was != now}


def check_allowed(run: Path, found: Changes, allow: bool) -> None:
    """Refuse changes that were not asked for; a longer run is always allowed.

    Raises:
        InputError: saying each.
    """
    asked = {key: pair for key, pair in found.items() if not _is_longer(key, *pair)}
    if asked and not allow:
        said = [f"{key}: {short_repr(a)} -> {short_repr(b)}" for key, (a, b) in asked.items()]
        raise InputError(
            f"{', '.join(said)}: {run} was trained otherwise; allow_changes=true continues with the"
            " new settings, and leaving out resume= starts a new run"
        )


def _is_longer(key: str, old: Any, new: Any) -> bool:
    if key != "trainer.max_epochs" or not isinstance(old, int) or not isinstance(new, int):
        return False
    return old != -1 and (new == -1 or new > old)


def check_length(run: Path, content: Any, settings: Plain, found: Changes) -> None:
    """Refuse a run that would be shorter than it is, or longer than early stopping lets it be.

    Raises:
        InputError: saying which.
    """
    epochs, done = settings["trainer"]["max_epochs"], epochs_done(content)
    if isinstance(epochs, int) and 0 <= epochs < done:
        raise InputError(f"trainer.max_epochs={epochs}: {run} has {done} epochs behind it")
    if "trainer.max_epochs" in found and (stopped := _stopped_early(content)):
        raise InputError(
            f"{run} was ended by early stopping, after {done} epochs; to train it for longer, set"
            f" callbacks.early_stopping.patience above {stopped['patience']} and allow_changes=true"
        )


def epochs_done(content: Any) -> int:
    """Return how many epochs a checkpoint has behind it.

    Raises:
        InputError: it does not say; it is no checkpoint of a training run.
    """
    try:
        return int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    except (LookupError, TypeError, ValueError):
        raise InputError(
            "the checkpoint holds weights alone: init_from= starts a run from them"
        ) from None


def _early_stoppings(content: Any) -> list[Any]:
    states = content.get("callbacks")
    names = [key for key in states if str(key).startswith("EarlyStopping")] if states else []
    return [_of_callback(content, name) for name in names]


def _stopped_early(content: Any) -> Any:
    return next((s for s in _early_stoppings(content) if s.get("stopping_reason")), None)


# Changes that are taken ---------------------------------------------------------------------------

INCOMPATIBLE = {  # what cannot change, because the checkpoint's state would mean something else
    "optimizer._target_": "the state of one optimizer is none of another's",
    "scheduler._target_": "a plateau schedule keeps another state than those that follow the step",
    "steps_per_execution": "between one and several steps an execution, progress is counted anew",
}


def check_possible(content: Any, found: Changes) -> None:
    """Refuse changes that the state in the checkpoint does not allow.

    Raises:
        InputError: saying which, why, and what to do instead.
    """
    for key, reason in INCOMPATIBLE.items():
        old, new = found.get(key, (None, None))
        if key == "scheduler._target_" and not any(str(t).endswith(".plateau") for t in (old, new)):
            continue
        if key == "steps_per_execution" and old != 1 and new != 1:
            if key in found and not _at_epoch_end(content):
                raise InputError(
                    f"{key}: {old} -> {new} is not possible amid an epoch, where the run was left;"
                    f" continue it with {old}"
                )
            continue
        if key in found:
            raise InputError(
                f"{key}: {old} -> {new} is not possible ({reason}); init_from= starts a new run"
                " from these weights"
            )


def _at_epoch_end(content: Any) -> bool:
    """Say whether a checkpoint is from between two epochs."""
    return bool(content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"])


def apply_changes(found: Changes, content: Any, settings: Plain) -> None:
    """Put changed settings where a checkpoint would bring the old ones back.

    An optimizer's state carries its learning rate, a plateau schedule its patience, and so on.
    """
    content["config"] = settings
    for key, (old, new) in found.items():
        group, _, name = key.partition(".")
        if group == "optimizer":
            _take_for_optimizer(content, name, old, new)
        elif group == "scheduler":
            for state in content["lr_schedulers"]:
                state.update({name: new} if name in state else {})
        elif key == "callbacks.early_stopping.patience":
            for state in _early_stoppings(content):
                state["patience"] = new
                if new is not None and state["wait_count"] < new:
                    state["stopping_reason"] = 0
        elif key in ("callbacks.checkpointing.monitor", "callbacks.checkpointing.mode"):
            _of_callback(content, "Checkpointing")["best_score"] = None
    if "early_stopping" not in settings["callbacks"]:
        for name in [n for n in content["callbacks"] if str(n).startswith("EarlyStopping")]:
            del content["callbacks"][name]


def _take_for_optimizer(content: Any, name: str, old: Any, new: Any) -> None:
    for state in content["optimizer_states"]:
        for group in state["param_groups"]:
            if name == "lr":  # keeps its place in the schedule
                group["lr"] = group["lr"] / old * new if old else new
                group["initial_lr"] = new
            elif name in group:
                group[name] = new
    if name == "lr":
        for schedule in content["lr_schedulers"]:
            if "base_lrs" in schedule:
                schedule["base_lrs"] = [new] * len(schedule["base_lrs"])


def check_fit(built: "Experiment", content: Any, checkpoint: Path) -> None:
    """Refuse a checkpoint whose weights or optimizer state do not fit what was built.

    Raises:
        InputError: saying what does not.
    """
    from src.kindling.model import BaseModule

    try:
        built.model.on_load_checkpoint(content)
        built.model.configure_model()
        built.model.load_state_dict(content["state_dict"], strict=built.model.strict_loading)
        if type(built.model).configure_optimizers is BaseModule.configure_optimizers:
            optimizer = built.model.optimizer_factory(built.model.parameters())
            for state in content["optimizer_states"]:
                optimizer.load_state_dict(state)
    except (RuntimeError, ValueError, LookupError, TypeError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{checkpoint} does not fit this configuration: {line}") from error
