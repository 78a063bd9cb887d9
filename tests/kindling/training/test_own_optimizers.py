"""Optimizers of a user's own: a run resumes to the same bits, or is refused before it changes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from src.kindling.process import ranks, signals
from tests.conftest import Command
from tests.kills import differences

HERE = "tests.kindling.training.own_optimizers"
KINDS = ("Groups", "Two", "Gan", "Tuned", "Averaged", "Accumulating")
TRAINED = ("trainer.accelerator=cpu", "trainer.max_epochs=5", "trainer.log_every_n_steps=1")


@pytest.fixture(autouse=True)
def _fresh_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ranks.VARIABLE, "LOCAL_RANK"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """The YAMLs of a user's own folder."""
    folder = tmp_path / "conf"
    for group in ("model", "data", "callbacks"):
        (folder / group).mkdir(parents=True)
    for kind in KINDS:
        text = f"# @package _global_\nmodel:\n  _target_: {HERE}.{kind}\n  width: 8\n  groups: 2\n"
        (folder / "model" / f"{kind.lower()}.yaml").write_text(text)
    (folder / "data" / "rows.yaml").write_text(f"_target_: {HERE}.Rows\n")
    unfreeze = f"defaults:\n  - default\nunfreeze:\n  _target_: {HERE}.Unfreeze\n  epoch: 2\n"
    (folder / "callbacks" / "unfreeze.yaml").write_text(unfreeze)
    return folder


def words(kind: str, conf: Path) -> list[str]:
    """The command line of a run."""
    callbacks = ["callbacks=unfreeze"] if kind == "Tuned" else []
    return [
        f"--config-dir={conf}", f"model={kind.lower()}", "data=rows", *callbacks, *TRAINED,
    ]  # fmt: skip


def stopped(command: Command, step: int, monkeypatch: pytest.MonkeyPatch, *line: str) -> None:
    """Train until a signal comes after a step."""
    from src.kindling.callbacks.training_metrics import TrainingMetrics

    counts = TrainingMetrics.on_train_batch_end

    def signalled(self: TrainingMetrics, trainer: object, *rest: object) -> None:
        counts(self, trainer, *rest)
        if trainer.fit_loop.total_batch_idx + 1 == step:
            monkeypatch.setattr(signals, "pending_signal", lambda: 15)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingMetrics, "on_train_batch_end", signalled)
        with pytest.raises(SystemExit) as stop:
            command.here("train", *line)
        assert stop.value.code == 143
    monkeypatch.setattr(signals, "pending_signal", lambda: 0)
    GlobalHydra.instance().clear()  # which a stopped command leaves to the end of its process


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_resumes_to_the_same_bits(
    kind: str, conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Command(tmp_path / "whole")
    whole.here("train", *words(kind, conf))
    for step in (6, 14):  # before the unfreeze, and after it
        parts = Command(tmp_path / f"parts{step}")
        stopped(parts, step, monkeypatch, *words(kind, conf))
        parts.here("train", f"--config-dir={conf}", "resume=latest")
        assert list(differences(whole.latest, parts.latest)) == []


MISFITS = {
    "Groups model.groups=1": "different number of parameter groups",
    "Two model.groups=1": "it holds the state of 2 optimizers, and the model configures 1",
    "Gan model.groups=1": "it holds the state of 2 optimizers, and the model configures 1",
    "Tuned callbacks=default": "different number of parameter groups",
    "Groups model.width=9": "size mismatch for backbone.0.weight",
}


def content(run: Path) -> Iterator[tuple[str, bytes]]:
    return ((str(p), p.read_bytes()) for p in sorted(run.rglob("*")) if p.is_file())


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_misfit_is_one_line_and_the_run_stays_as_it_was(
    misfit: str,
    conf: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind, change = misfit.split()
    stopped(command, 14, monkeypatch, *words(kind, conf))
    before = list(content(command.latest))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        command.here("train", f"--config-dir={conf}", "resume=latest", change, "allow_changes=true")
    said = capsys.readouterr().err
    assert (stop.value.code, said.count("\n")) == (2, 1), said
    assert "last.ckpt does not fit this configuration: " in said
    assert MISFITS[misfit] in said
    assert list(content(command.latest)) == before


def test_a_schedule_that_ends_with_the_run_makes_no_longer_one(
    conf: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "trainer.max_epochs=" not in command.here("train", *words("Groups", conf))
    before = list(content(command.latest))
    with pytest.raises(SystemExit) as stop:
        command.here("train", f"--config-dir={conf}", "resume=latest", "trainer.max_epochs=9")
    [line] = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert line.startswith("error: trainer.max_epochs=9: the OneCycleLR of ")
    assert "ends after 20 steps; init_from= starts a longer run" in line
    assert list(content(command.latest)) == before
