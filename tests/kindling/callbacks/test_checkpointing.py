"""best.ckpt is the best, last.ckpt the last, and neither is ever missing."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from src.kindling.build import Experiment
from src.kindling.callbacks.checkpointing import Checkpointing
from tests.conftest import built
from tests.kindling.conftest import compose

Build = Callable[..., Experiment]


def epochs_kept(build: Build, folder: Path, losses: list[float], *overrides: str) -> list[int]:
    """Train an epoch for each loss; return the epochs of best.ckpt and last.ckpt."""
    experiment = build(
        "model.hidden_features=8",
        f"trainer.max_epochs={len(losses)}",
        "trainer.check_val_every_n_epoch=1",
        "logger=none",
        *overrides,
    )
    [checkpointing] = [c for c in experiment.trainer.callbacks if isinstance(c, Checkpointing)]
    script(checkpointing, losses)
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    return [
        torch.load(folder / "checkpoints" / name, weights_only=True)["epoch"]
        for name in ("best.ckpt", "last.ckpt")
    ]


def script(callback: Any, losses: list[float]) -> None:
    """Let a callback see scripted validation losses instead of the real ones."""
    save, scores = callback._save, iter(losses)

    def scripted(trainer: Any) -> None:
        trainer.callback_metrics["val/loss"] = torch.tensor(next(scores))
        save(trainer)

    callback._save = scripted


def test_a_checkpoint_holds_the_gradients_of_an_unfinished_accumulation(build: Build) -> None:
    experiment = build(
        "model.hidden_features=8",
        *("steps_per_execution=1", "trainer.max_epochs=1", "trainer.accumulate_grad_batches=3"),
        *("trainer.check_val_every_n_epoch=1", "trainer.val_check_interval=1", "logger=none"),
    )
    [checkpointing] = [c for c in experiment.trainer.callbacks if isinstance(c, Checkpointing)]
    save, held = checkpointing.on_save_checkpoint, []

    def saving(trainer: Any, model: Any, checkpoint: Any) -> None:
        save(trainer, model, checkpoint)
        held.append("gradients" in checkpoint["callbacks"]["Checkpointing"])

    checkpointing.on_save_checkpoint = saving  # type: ignore[method-assign]
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    assert held == [True, True, False, False]  # the fourth batch is the epoch's last


@pytest.mark.parametrize(("mode", "epochs"), [("min", [0, 1, 3]), ("max", [2, 4, 5])])
def test_save_top_k_keeps_as_many_of_the_best(
    mode: str, epochs: list[int], build: Build, tmp_path: Path
) -> None:
    words = ("callbacks.checkpointing.save_top_k=3", f"callbacks.checkpointing.mode={mode}")
    epochs_kept(build, tmp_path, [3.0, 2.0, 5.0, 1.0, 4.0, 6.0, float("nan")], *words)
    files = sorted((tmp_path / "checkpoints").glob("step-*.ckpt"))
    assert [path.name for path in files] == [f"step-{4 * (e + 1):06d}.ckpt" for e in epochs]
    assert [torch.load(path, weights_only=True)["epoch"] for path in files] == epochs


@pytest.mark.parametrize(
    ("losses", "mode", "best"),
    [
        ([3.0, 2.0, 1.0], "min", 2),
        ([3.0, 1.0, 2.0], "min", 1),
        ([1.0, 1.0, 1.0], "min", 2),  # of equals the later one
        ([1.0, 3.0, 2.0], "max", 1),
        ([float("nan"), 2.0, float("inf")], "min", 1),
        ([2.0, float("nan"), float("-inf")], "min", 0),
    ],
)
def test_best_is_the_best_finite_score_and_last_the_last(
    losses: list[float], mode: str, best: int, build: Build, tmp_path: Path
) -> None:
    override = f"callbacks.checkpointing.mode={mode}"
    assert epochs_kept(build, tmp_path, losses, override) == [best, len(losses) - 1]


def test_a_run_that_is_never_validated_keeps_its_last_as_best(build: Build, tmp_path: Path) -> None:
    experiment = build("trainer.max_epochs=3", "trainer.check_val_every_n_epoch=50", "logger=none")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    best, last = (
        torch.load(tmp_path / "checkpoints" / name, weights_only=True)
        for name in ("best.ckpt", "last.ckpt")
    )
    assert best["global_step"] == last["global_step"] == 12
    assert all(torch.equal(best["state_dict"][k], v) for k, v in last["state_dict"].items())


def saved_as(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Return a list that gets the name and the step of each checkpoint that comes to its place."""
    named, replace = [], os.replace

    def noted(name: str, target: Path) -> None:
        replace(name, target)
        if Path(target).suffix == ".ckpt":
            content = torch.load(target, weights_only=True)
            named.append((Path(target).name, content["global_step"]))

    monkeypatch.setattr(os, "replace", noted)
    return named


def test_the_best_is_written_once_and_before_the_last_that_counts_on_it(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serialized, save = [], torch.save
    monkeypatch.setattr(torch, "save", lambda *args: (serialized.append(1), save(*args)))
    named = saved_as(monkeypatch)
    assert epochs_kept(build, tmp_path, [3.0, 2.0, 2.5]) == [1, 2]
    steps = [4, 4, 8, 8, 12]
    assert named == list(zip(["best.ckpt", "last.ckpt"] * 2 + ["last.ckpt"], steps, strict=True))
    assert len(serialized) == 3
    best, last, previous = (
        tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("best", "last", "previous")
    )
    assert os.path.samefile(best, previous)  # of the second epoch: one file on disk
    assert not os.path.samefile(best, last)
    state = torch.load(best, weights_only=True)["callbacks"]["Checkpointing"]
    assert state["best_score"] == 2.0  # not the one before: what is saved knows that it is best
    assert type(state["metrics"]["val/loss"]) is float


def test_a_checkpoint_that_cannot_be_written_ends_the_run_soon(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = ("trainer.max_epochs=50", "trainer.check_val_every_n_epoch=10", "logger=none")
    experiment = build("model.hidden_features=8", *every)
    calls, fsync = iter(range(1000)), os.fsync

    def full(descriptor: int) -> None:
        if next(calls) >= 3:  # a file, and each of the names that it gets
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    assert experiment.trainer.current_epoch < 30  # not at the end
    for name in ("best.ckpt", "last.ckpt"):
        assert torch.load(tmp_path / "checkpoints" / name, weights_only=True)["epoch"] == 9


def test_validations_inside_an_epoch_are_kept_too(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = build(
        "trainer.max_epochs=1",
        "trainer.val_check_interval=2",
        "steps_per_execution=1",
        "trainer.check_val_every_n_epoch=1",
        "logger=none",
    )
    named = saved_as(monkeypatch)
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    assert [step for name, step in named if name == "last.ckpt"] == [2, 4]


@pytest.mark.parametrize("logger", ["none", "csv", "tensorboard"])
def test_a_model_checkpoint_of_ones_own_has_a_folder_of_its_own(
    logger: str, build: Build, tmp_path: Path
) -> None:
    every = ("trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1")
    experiment = build("model.hidden_features=8", *every, f"logger={logger}")
    own = ModelCheckpoint(save_last=True, filename="best", enable_version_counter=False)
    experiment.trainer.callbacks.append(own)
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.ckpt")}
    folders = ("checkpoints", "checkpoints/ModelCheckpoint")
    assert names == {f"{folder}/{name}.ckpt" for folder in folders for name in ("best", "last")}


def test_a_model_checkpoint_of_ones_own_keeps_its_best_where_its_run_is_resumed(
    tmp_path: Path,
) -> None:
    """A run that was moved, or copied: the original loses no file."""

    def trained(folder: Path, losses: list[float], resumed: bool) -> set[str]:
        words = ("trainer.check_val_every_n_epoch=1", f"trainer.max_epochs={len(losses)}")
        experiment = built(folder, compose, "model.hidden_features=8", "logger=none", *words)
        own = ModelCheckpoint(monitor="val/loss", save_top_k=2, filename="{epoch}")
        script_monitor(own, losses)
        experiment.trainer.callbacks.append(own)
        path = folder / "checkpoints" / "last.ckpt" if resumed else None
        experiment.trainer.fit(experiment.model, datamodule=experiment.data, ckpt_path=path)
        return {path.stem for path in (folder / "checkpoints" / "ModelCheckpoint").iterdir()}

    losses, first, copy = [3.0, 1.0, 2.0, 0.0], tmp_path / "first", tmp_path / "copy"
    kept = {"epoch=1", "epoch=2"}
    assert trained(first, losses[:3], resumed=False) == kept
    shutil.copytree(first, copy)
    assert trained(copy, losses, resumed=True) == {"epoch=1", "epoch=3"}
    assert {path.stem for path in (first / "checkpoints" / "ModelCheckpoint").iterdir()} == kept


def script_monitor(callback: ModelCheckpoint, losses: list[float]) -> None:
    """Let a ModelCheckpoint see scripted validation losses, by epoch."""
    candidates = callback._monitor_candidates

    def scripted(trainer: Any) -> Any:
        return candidates(trainer) | {"val/loss": torch.tensor(losses[trainer.current_epoch])}

    callback._monitor_candidates = scripted  # type: ignore[method-assign]


def test_the_best_score_survives_a_resume() -> None:
    first, second = Checkpointing(), Checkpointing()
    first.best_score = 0.5
    second.load_state_dict(first.state_dict())
    assert not second._is_best(0.6)
    assert second._is_best(0.4)


def test_an_epoch_before_the_first_validation_is_no_turn_to_save(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run would take its checkpoint for the best, by another metric."""
    saved: list[int] = []
    monkeypatch.setattr(
        Checkpointing, "_save", lambda _, trainer: saved.append(trainer.current_epoch)
    )
    words = ("steps_per_execution=1", "trainer.max_epochs=6", "trainer.check_val_every_n_epoch=4")
    experiment = build(*words, "callbacks.checkpointing.every_n_epochs=3")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    assert saved == [3, 5]  # the validation, and the end
