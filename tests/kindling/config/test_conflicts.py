"""A setting of the Trainer that another one leaves without effect is refused, if it was typed."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from src.kindling.config import conflicts
from src.kindling.errors import InputError
from tests.conftest import has_command
from tests.kindling.conftest import Command, compose

# Settings without effect, and what overrides them.
PAIRS = [
    ("limit_val_batches=0", "overfit_batches=1"),
    ("limit_train_batches=3", "overfit_batches=2"),
    ("num_sanity_val_steps=2", "limit_val_batches=0"),
    ("val_check_interval=0.5", "limit_val_batches=0.0"),
    ("check_val_every_n_epoch=3", "limit_val_batches=0"),
    ("gradient_clip_algorithm=value", "gradient_clip_val=null"),
    ("min_epochs=4", "max_epochs=2"),
]


def words(*settings: str) -> list[str]:
    return [f"trainer.{setting}" for setting in settings]


@pytest.mark.parametrize("pair", PAIRS, ids=" ".join)
def test_a_setting_that_has_no_effect_is_refused_by_name(pair: tuple[str, str]) -> None:
    trainer = compose(*words(*pair))["trainer"]
    message = rf"^trainer\.{pair[0]}: has no effect with trainer\.{pair[1]}; leave one"
    with pytest.raises(InputError, match=message):
        conflicts.check(trainer, words(*pair))
    conflicts.check(trainer, words(pair[1]))  # the first one is the recipe's, say
    for setting in pair:
        alone = words(setting)
        conflicts.check(compose(*alone)["trainer"], [] if "=null" in pair[1] else alone)


@pytest.mark.parametrize(
    ("asked", "other"),
    [
        ({"limit_val_batches": 0}, {"overfit_batches": 1}),
        ({"limit_train_batches": 3}, {"overfit_batches": 2}),
        ({"limit_test_batches": 3}, {"fast_dev_run": 1}),
        ({"num_sanity_val_steps": 3}, {"fast_dev_run": 1}),
        ({"val_check_interval": 0.5}, {"fast_dev_run": 1}),
        ({"check_val_every_n_epoch": 5}, {"fast_dev_run": 1}),
        ({"max_epochs": 5}, {"fast_dev_run": 1}),
    ],
)
def test_lightning_itself_ignores_the_one_without_a_word(
    asked: dict[str, Any], other: dict[str, Any], tmp_path: Path
) -> None:
    quiet: dict[str, Any] = {"logger": False, "accelerator": "cpu", "enable_checkpointing": False}
    trainer = pl.Trainer(**asked, **other, **quiet, default_root_dir=str(tmp_path))
    [(name, value)] = asked.items()
    assert getattr(trainer, name) != value


def test_a_default_that_is_typed_asks_for_nothing() -> None:
    typed = words("limit_val_batches=0", "num_sanity_val_steps=0", "check_val_every_n_epoch=1")
    conflicts.check(compose(*typed)["trainer"], typed)


def test_a_development_run_takes_the_words_of_any_run_and_names_what_it_ignores() -> None:
    typed = words("fast_dev_run=2", "max_epochs=50", "limit_val_batches=0.5", "precision=64-true")
    trainer = compose(*typed)["trainer"]
    conflicts.check(trainer, typed)
    assert list(conflicts.notices({"trainer": trainer, "optimizer": {}}, typed)) == [
        "trainer.limit_val_batches, trainer.max_epochs: no effect with trainer.fast_dev_run=2"
    ]
    assert list(conflicts.notices({"trainer": trainer, "optimizer": {}}, typed[:1])) == []


@pytest.mark.parametrize("start", [["train"], ["train", "-m", "seed=0,1"], ["study"]])
def test_every_command_that_trains_refuses_it_before_it_writes(
    start: list[str], command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *more = start
    if name == "study":
        if not has_command("study"):
            pytest.skip("the studies are deleted")
        pytest.importorskip("optuna")
        more = ["study.name=a", "model=line", "optimizer.lr=interval(0.01, 0.1)"]
    with pytest.raises(SystemExit) as stop:
        command.here(name, *more, *words("overfit_batches=1", "limit_val_batches=0"))
    [line] = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert line.startswith("error: trainer.limit_val_batches=0: has no effect")
    assert not command.log_dir.exists()


def test_no_batches_to_train_on_are_refused(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.here("train", "trainer.limit_train_batches=0")
    assert "trainer.limit_train_batches=0: must be greater than 0" in capsys.readouterr().err
