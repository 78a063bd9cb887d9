"""Any two options together: a run of two epochs, stopped after the first, resumes to the same bits.

Then evaluate repeats its test and predict answers. A pair may be refused, in one line and before
there is a run directory.
"""

import contextlib
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from src.kindling.callbacks.checkpointing import Checkpointing
from src.kindling.process import ranks
from tests.conftest import options
from tests.kills import differences, history
from tests.kindling.conftest import Command
from tests.kindling.examples.models.quadrants import Quadrants

pytestmark = pytest.mark.usefixtures("own_models")

GROUPS = ("optimizer", "scheduler", "callbacks", "debug", "logger")
# Without checkpoints or history, with a service, or with minutes of compilation.
LEFT_OUT = {"callbacks=none", "debug=fast", "logger=none"}
LEFT_OUT |= {f"logger={name}" for name in ("wandb", "mlflow", "dvclive")}
KEYS = (
    *("trainer.accumulate_grad_batches=3", "trainer.gradient_clip_val=0.1", "model.dropout=0.2"),
    *(
        "trainer.precision=bf16-mixed",
        "trainer.precision=64-true",
        "trainer.val_check_interval=0.5",
    ),
    *(
        "trainer.limit_train_batches=3",
        "trainer.limit_val_batches=0",
        "trainer.num_sanity_val_steps=1",
    ),
    *("trainer.log_every_n_steps=1", "trainer.deterministic=true", "trainer.profiler=simple"),
    *(
        "trainer.max_time=00:01:00:00",
        "trainer.gradient_clip_algorithm=value",
        "trainer.min_epochs=1",
        "trainer.max_steps=7",
    ),
    *("trainer.overfit_batches=2", "trainer.detect_anomaly=true", "steps_per_execution=1"),
    *("steps_per_execution=3", "steps_per_execution=50", "callbacks.checkpointing.save_top_k=2"),
    *("callbacks.checkpointing.monitor=val/accuracy", "callbacks.non_finite.action=skip"),
    *("callbacks.figures.every_n_epochs=1", "data.batch_size=70", "data.shuffle=false", "seed=7"),
    *("model.label_smoothing=0.1", "model.bias=false", "threads=1", "optimizer.lr=0.003"),
)
TWO = ("trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.check_val_every_n_epoch=1")


def settings() -> dict[str, list[str]]:
    """Return the options by the group, or key, of which a run has one."""
    found = {group: [f"{group}={name}" for name in options(group)] for group in GROUPS}
    for word in KEYS:
        found.setdefault(word.partition("=")[0], []).append(word)
    return {key: [w for w in words if w not in LEFT_OUT] for key, words in found.items()}


def pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """Return so many pairs of different groups, drawn at random."""
    several = itertools.combinations(settings().values(), 2)
    every = [pair for a, b in several for pair in itertools.product(a, b)]
    return random.Random(seed).sample(every, count)


def stopped_after_an_epoch(command: Command, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Train until the checkpoint of the first epoch is written, and end there."""
    save = Checkpointing._save

    def stopping(callback: Checkpointing, trainer: object) -> None:
        save(callback, trainer)
        if trainer.current_epoch == 0 and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            trainer.strategy.checkpoint_io.finish()
            raise SystemExit(3)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointing, "_save", stopping)
        with pytest.raises(SystemExit) as stop:
            command.here("train", *words)
    assert stop.value.code == 3
    GlobalHydra.instance().clear()


def problem(
    pair: tuple[str, str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str | None:
    """Return what is wrong with a pair of options; None if nothing is."""
    words = [*TWO, "callbacks.progress.seconds_per_line=60", *pair]
    whole, parts = Command(folder / "whole"), Command(folder / "parts")
    capsys.readouterr()
    try:
        whole.here("train", *words)
    except SystemExit as stop:
        GlobalHydra.instance().clear()
        lines = capsys.readouterr().err.splitlines()
        refused = stop.code == 2 and len(lines) == 1 and not whole.log_dir.exists()
        return None if refused else f"{stop.code}: {lines}"
    _forget(monkeypatch)
    if not (whole.latest / "checkpoints" / "last.ckpt").is_file():
        return "no checkpoint"
    if "trainer.limit_val_batches=0" not in pair:  # without validation the last epoch alone saves
        stopped_after_an_epoch(parts, monkeypatch, *words)
        _forget(monkeypatch)
        parts.here("train", "resume=latest")
        _forget(monkeypatch)
        found: list[str] = []
        with contextlib.suppress(FileNotFoundError):  # a single logger keeps a part of the history
            for difference in differences(whole.latest, parts.latest):
                if "time_elapsed" not in difference:  # the clock of trainer.max_time
                    found.append(difference)
        if found:
            return f"{found[:3]}"
    whole.here("evaluate", "run=latest")
    whole.here("predict", "run=latest")
    held = json.loads((whole.latest / "metrics.json").read_text())
    return None if "test/loss" in held else f"no test: {held}"


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ranks.VARIABLE, "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "pair", [*pairs(3, seed=1), ("trainer.max_steps=7", "steps_per_execution=50")], ids=" ".join
)
def test_a_pair_of_options_trains_resumes_and_is_read_back(
    pair: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert problem(pair, tmp_path, monkeypatch, capsys) is None


@pytest.mark.slow
def test_many_pairs_of_options_train_resume_and_are_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    drawn = [
        pair for pair in pairs(80, seed=2) if "lr_find" not in " ".join(pair)
    ]  # trains to find
    for number, pair in enumerate(drawn[:60]):
        try:
            what = problem(pair, tmp_path / str(number), monkeypatch, capsys)
        except (Exception, SystemExit, pytest.fail.Exception) as error:
            what = f"{type(error).__name__}: {error} {capsys.readouterr().err[-300:]}"
        if what:
            found[" ".join(pair)] = what
        with capsys.disabled():
            print(number, *pair, what or "", flush=True)
    assert found == {}


def test_metrics_of_a_whole_epoch_outlive_a_stop_right_after_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def logging(self: Quadrants, batch: Any, batch_idx: int) -> Any:
        loss = self.training_loss(batch)
        self.log("odd", loss.detach(), on_step=False, on_epoch=True)
        return loss

    monkeypatch.setattr(Quadrants, "training_step", logging)
    whole, parts = Command(tmp_path / "whole"), Command(tmp_path / "parts")
    bare = Command(tmp_path / "bare")
    whole.here("train", *TWO)
    _forget(monkeypatch)
    bare.here("train", *TWO, "~callbacks.checkpointing", "logger=csv")  # Lightning's own rows
    _forget(monkeypatch)
    stopped_after_an_epoch(parts, monkeypatch, *TWO)
    _forget(monkeypatch)
    parts.here("train", "resume=latest")
    assert list(differences(whole.latest, parts.latest)) == []
    rows = [[(r["step"], r["epoch"], r["odd"]) for r in history(c.latest)] for c in (whole, bare)]
    found, expected = ([row for row in one if row[2]] for one in rows)
    assert found == expected
    assert [step for step, _, _ in found] == ["3", "7"]
