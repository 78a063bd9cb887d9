"""What a changed setting does to the state in a checkpoint."""

import pytest

from src.kindling.training.resume_changes import apply_changes

SETTINGS = {"callbacks": {"early_stopping": {"_target_": "a.b.EarlyStopping"}}}


def content_of(**state):
    """A checkpoint with empty states, but for those given."""
    empty = {"callbacks": {}, "optimizer_states": [], "lr_schedulers": []}
    return empty | state


@pytest.mark.parametrize("key", ["monitor", "mode"])
def test_another_monitor_or_mode_forgets_the_best_scores(key):
    state = {"best_score": 0.1, "kept": [[0.1, "step-1.ckpt"]], "metrics": {"val/loss": 0.1}}
    content = content_of(callbacks={"Checkpointing": state})
    apply_changes({f"callbacks.checkpointing.{key}": ("min", "max")}, content, SETTINGS)
    assert state == {"best_score": None, "kept": [], "metrics": {"val/loss": 0.1}}


def test_a_new_learning_rate_keeps_its_place_in_the_schedule_and_the_groups_their_proportion():
    groups = [{"lr": 0.05, "initial_lr": 0.1}, {"lr": 0.005, "initial_lr": 0.01}]
    content = content_of(
        optimizer_states=[{"param_groups": groups}],
        lr_schedulers=[{"base_lrs": [0.1, 0.01], "last_epoch": 5}, {"patience": 3}],
    )
    apply_changes({"optimizer.lr": (0.1, 0.2)}, content, SETTINGS)
    assert [group["lr"] for group in groups] == pytest.approx([0.1, 0.01])
    assert [group["initial_lr"] for group in groups] == pytest.approx([0.2, 0.02])
    schedule, plateau = content["lr_schedulers"]
    assert schedule["base_lrs"] == pytest.approx([0.2, 0.02])
    assert (schedule["last_epoch"], plateau) == (5, {"patience": 3})


def test_from_a_learning_rate_of_0_the_new_one_is_taken_as_it_is():
    groups = [{"lr": 0.0, "initial_lr": 0.0}]
    content = content_of(optimizer_states=[{"param_groups": groups}])
    apply_changes({"optimizer.lr": (0.0, 0.2)}, content, SETTINGS)
    assert groups == [{"lr": 0.2, "initial_lr": 0.2}]


@pytest.mark.parametrize(("patience", "reason"), [(4, 0), (3, 1), (2, 1)])
def test_more_patience_than_was_waited_continues_a_run_that_was_stopped_early(patience, reason):
    state = {"wait_count": 3, "patience": 3, "stopping_reason": 1}
    content = content_of(callbacks={"EarlyStopping{'mode': 'min'}": state})
    apply_changes({"callbacks.early_stopping.patience": (3, patience)}, content, SETTINGS)
    assert state == {"wait_count": 3, "patience": patience, "stopping_reason": reason}


def test_without_early_stopping_its_state_is_dropped():
    content = content_of(callbacks={"EarlyStopping{'mode': 'min'}": {}, "Checkpointing": {}})
    removed = {"callbacks.early_stopping._target_": ("a.b.EarlyStopping", None)}
    apply_changes(removed, content, {"callbacks": {}})
    assert list(content["callbacks"]) == ["Checkpointing"]


def test_another_value_of_a_plateau_schedule_and_of_an_optimizer_is_taken():
    groups, plateau = [{"lr": 0.1, "weight_decay": 0.0}], {"patience": 3}
    content = content_of(optimizer_states=[{"param_groups": groups}], lr_schedulers=[plateau])
    found = {"optimizer.weight_decay": (0.0, 0.5), "scheduler.patience": (3, 9)}
    apply_changes(found, content, SETTINGS)
    assert (groups[0]["weight_decay"], plateau) == (0.5, {"patience": 9})
