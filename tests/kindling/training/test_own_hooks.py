"""Hooks and loaders of a user's own: a run that is stopped anywhere lacks nothing of them."""

from pathlib import Path

import pytest

from tests.conftest import Command
from tests.kills import differences
from tests.kindling.training.test_own_optimizers import (
    _fresh_environment,  # noqa: F401 # a fixture
    stopped,
)

HERE = "tests.kindling.training"
# Epochs of four batches, and a validation after each second one.
PLACES = {5: "after a batch", 6: "after a validation", 8: "after an epoch", 4: "after the first"}


KINDS = {
    "own_hooks.Hooked": "own_optimizers.Rows",  # module and callbacks count
    "own_hooks.Ordered": "own_hooks.Drawn",  # a validation draws its order and noise
}


def words(conf: Path, model: str) -> list[str]:
    """The command line of a run."""
    for group, target in (("model", model), ("data", KINDS[model])):
        (conf / group).mkdir(parents=True)
        head = "# @package _global_\nmodel:\n  " if group == "model" else ""
        (conf / group / "hooked.yaml").write_text(f"{head}_target_: {HERE}.{target}\n")
    return [
        f"--config-dir={conf}", "model=hooked", "data=hooked", "trainer.accelerator=cpu",
        "trainer.max_epochs=3", "trainer.log_every_n_steps=1", "trainer.val_check_interval=2",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Your `val_dataloader`.s sampler has shuffling enabled")
@pytest.mark.parametrize("model", KINDS)
def test_a_stopped_run_lacks_nothing_that_hooks_change_or_loaders_draw(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, line = Command(tmp_path / "whole"), words(tmp_path / "conf", model)
    whole.here("train", *line)
    for step, place in PLACES.items():
        parts = Command(tmp_path / str(step))
        stopped(parts, step, monkeypatch, *line)
        parts.here("train", line[0], "resume=latest")
        assert (place, list(differences(whole.latest, parts.latest))) == (place, [])
