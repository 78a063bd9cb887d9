"""A run that was killed, moved, damaged or changed resumes as it should, or says why not."""

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
import yaml

from src.kindling.callbacks.checkpointing import Checkpointing
from src.kindling.errors import InputError
from src.kindling.files import run_directory, run_lock
from src.kindling.files.checkpoint import AtomicCheckpointIO, load_checkpoint
from src.kindling.process import ranks, signals
from src.kindling.training import resume, resume_changes
from tests import kills
from tests.kindling.conftest import Command, compose
from tests.soak.soak_resume import EXTRAS, SMALL, flipped

SHORT = ("model=line", "trainer.accelerator=cpu", "trainer.max_epochs=20", "~callbacks.figures")


@pytest.fixture(autouse=True)
def fresh_environment(monkeypatch):
    """Forget what another run has announced, now and afterwards."""
    for name in (ranks.VARIABLE, "LOCAL_RANK"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run; whoever changes it takes a copy."""
    command = Command(tmp_path_factory.mktemp("trained") / "logs")
    command.here("train", *SHORT)
    return command.latest


@pytest.fixture
def run(trained, command):
    """A copy of it, in another place, and the latest there."""
    copy = command.log_dir / "train" / "line" / "copy"
    shutil.copytree(trained, copy)
    run_directory.link_to(copy, command.log_dir / "latest")
    return copy


def refused(command, capsys, name, *arguments):
    """Return the one line of a refusal."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        command.here(name, *arguments)
    said = capsys.readouterr().err
    assert (stop.value.code, said.count("\n")) == (2, 1)
    return said


def killed(run):
    """Let a finished run look as if it had been killed in its test."""
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"status": "running", "end": None}))
    (run / "metrics.json").unlink()


def damage(path):
    """Change one bit of a weight."""
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)


# Kills: the short form of tests/soak/soak_resume.py -----------------------------------------------

CHAINS = {
    "quadrants": (["model=quadrants", *SMALL["quadrants"]], None),
    "teacher": (
        [
            "model=teacher",
            *SMALL["teacher"],
            *EXTRAS["accumulation, validation inside it"],
            "scheduler=plateau",
            "~callbacks.figures",
        ],
        None,
    ),
    "line": (
        [
            "model=line",
            *SMALL["line"],
            *EXTRAS["early stopping"],
            "optimizer=adam",
            "~callbacks.figures",
        ],
        None,
    ),
    "own DataLoader": (
        [
            "model=quadrants",
            "trainer.max_epochs=6",
            "steps_per_execution=1",
            "trainer.val_check_interval=3",
            "trainer.check_val_every_n_epoch=1",
            "~callbacks.figures",
        ],
        kills.in_two_workers,
    ),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")
@pytest.mark.parametrize("name", CHAINS)
def test_killed_twice_it_ends_as_if_nothing_had_happened(name, tmp_path):
    words, first = CHAINS[name]
    chain = kills.Chain(tmp_path, tuple(words), seed=len(name), first=first)
    assert chain.run(2) == []
    assert chain.kills == 2


def test_the_comparison_of_runs_finds_a_changed_weight_and_a_missing_row(trained, run):
    assert list(kills.differences(trained, run)) == []
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    content["state_dict"]["net.weight"][0, 0] += 1e-9
    torch.save(content, run / "checkpoints" / "last.ckpt")
    (run / "metrics.csv").write_text((run / "metrics.csv").read_text().rpartition("\n")[0][:-90])
    found = " ".join(kills.differences(trained, run))
    assert "last.ckpt: state_dict: net.weight" in found
    assert "metrics.csv" in found


@pytest.mark.parametrize("step", [4, 5])
def test_a_signal_at_any_step_is_resumed_exactly(step, tmp_path, monkeypatch):
    words = ["model=teacher", *SMALL["teacher"], "trainer.val_check_interval=2"]
    words += ["steps_per_execution=1"]  # so that any step may be the last one
    words += ["trainer.max_epochs=2", "trainer.log_every_n_steps=3", "trainer.accelerator=cpu"]
    straight, stopped = Command(tmp_path / "straight"), Command(tmp_path / "stopped")
    straight.here("train", *words)
    from src.kindling.callbacks.training_metrics import TrainingMetrics

    counts = TrainingMetrics.on_train_batch_end

    def signalled(self, trainer, *rest):
        counts(self, trainer, *rest)
        if trainer.global_step == step:
            monkeypatch.setattr(signals, "pending_signal", lambda: 15)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingMetrics, "on_train_batch_end", signalled)
        with pytest.raises(SystemExit):
            stopped.here("train", *words)
    monkeypatch.setattr(signals, "pending_signal", lambda: 0)
    last = torch.load(stopped.latest / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == step
    stopped.here("train", "resume=latest")
    assert list(kills.differences(straight.latest, stopped.latest)) == []


def test_killed_before_its_first_checkpoint_it_starts_again(trained, run, command):
    killed(run)
    shutil.rmtree(run / "checkpoints")
    assert "has no checkpoint yet: it starts from its first step" in command.here(
        "train", "resume=latest"
    )
    assert list(kills.differences(trained, run)) == []


def test_killed_in_its_test_it_is_tested_and_not_trained(trained, run, command, monkeypatch):
    killed(run)
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    (run / "checkpoints" / ".abc.tmp").write_bytes(b"half a checkpoint")
    from src.kindling.model import BaseModule

    def trained_again(self, batch, batch_idx):
        raise AssertionError("it was trained already")

    monkeypatch.setattr(BaseModule, "training_step", trained_again)
    command.here("train", "resume=latest")
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before
    assert list(kills.differences(trained, run)) == []  # metrics.json with train/ and val/ as well
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert list(run.rglob(".*")) == []  # neither what a kill has left, nor the lock


# Storage that lies --------------------------------------------------------------------------------


def test_each_flipped_bit_is_detected_or_changes_nothing(trained, tmp_path):
    path = tmp_path / "last.ckpt"
    weights = {"net.weight": torch.randn(4, 4), "net.bias": torch.randn(4)}
    torch.save({"state_dict": weights, "epoch": 3, "config": {"seed": 1}}, path)
    whole = path.read_bytes()
    entry = whole.rindex(b"data/1") - 46  # where the directory tells of the second tensor
    bits = random.Random(0).sample(range(len(whole) * 8), 600)
    found = flipped(path, [*bits, *range(entry * 8, (entry + 52) * 8)])
    assert found["harmful"] == 0
    assert found["detected"] > 200
    assert found["detected"] + found["harmless"] == 1016


@pytest.mark.parametrize("how", ["flipped", "flipped with the best", "truncated", "gone"])
def test_a_damaged_last_checkpoint_gives_way_to_the_previous_one(how, trained, run, command):
    killed(run)
    last = run / "checkpoints" / "last.ckpt"
    if how.startswith("flipped"):
        damage(last)
        if how != "flipped":  # they were one file on disk, before this run was copied
            assert os.path.samefile(
                *(trained / "checkpoints" / n for n in ("best.ckpt", last.name))
            )
            damage(last.with_name("best.ckpt"))
    elif how == "truncated":
        last.write_bytes(last.read_bytes()[:-100])
    else:
        last.unlink()
    said = command.here("train", "resume=latest")
    assert f"continuing from {run}/checkpoints/previous.ckpt, of step 10" in said
    assert list(kills.differences(trained, run)) == []
    assert (run / "checkpoints" / "damaged.ckpt").exists() == (how != "gone")


def test_without_a_whole_checkpoint_nothing_is_touched(run, command, capsys):
    killed(run)
    for path in (run / "checkpoints").iterdir():
        damage(path)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert "last.ckpt" in refused(command, capsys, "train", "resume=latest")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_a_damaged_best_checkpoint_is_refused_with_another_that_is_whole(
    name, run, command, capsys
):
    damage(run / "checkpoints" / "best.ckpt")
    said = refused(command, capsys, name)
    assert "best.ckpt" in said
    assert f"; use run={run}/checkpoints/last.ckpt" in said


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
@pytest.mark.parametrize("best_too", [False, True], ids=["last", "best and last"])
def test_at_each_instant_of_a_save_there_is_a_whole_checkpoint(
    links, best_too, tmp_path, monkeypatch
):
    last, seen = tmp_path / "checkpoints" / "last.ckpt", []
    for name in ("open", "fsync", "link", "replace", "unlink"):
        original = getattr(os, name)

        def looked(*arguments, call=original, name=name, **options):
            if last.parent.exists() and list(last.parent.glob("*.ckpt")):
                seen.append((name, resume.newest_whole(tmp_path)[1]["epoch"]))
            if name == "link" and not links:
                raise OSError("no hard links here")
            return call(*arguments, **options)

        monkeypatch.setattr(os, name, looked)
    writer, best = AtomicCheckpointIO(), last.with_name("best.ckpt")
    for epoch in range(3):
        writer.save_checkpoint({"state_dict": {}, "epoch": epoch}, best if best_too else last)
        if best_too:
            writer.name_checkpoint(last, best)
    assert [epoch for _, epoch in seen] == sorted(epoch for _, epoch in seen)
    assert {"link", "replace", "fsync"} <= {name for name, _ in seen}
    assert load_checkpoint(last)["epoch"] == 2
    assert load_checkpoint(last.with_name("previous.ckpt"))["epoch"] == 1


# Disks and rights ---------------------------------------------------------------------------------


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(tmp_path, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        words = ["model.hidden_features=480", "trainer.check_val_every_n_epoch=5"]
        with pytest.raises(SystemExit) as stop:
            Command(disk).here("train", *words, "trainer.accelerator=cpu", "logger=csv")
        said = capsys.readouterr().err
        assert (stop.value.code, said.count("\n")) == (1, 1)
        assert "No space left on device" in said
        load_checkpoint(disk / "latest" / "checkpoints" / "last.ckpt")
        assert list(disk.rglob(".*.tmp")) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def as_somebody(act):
    """Do something in a fork that has no rights of its own; return its exit status."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        status = act() or 0
    except SystemExit as stop:
        status = stop.code
    finally:
        os._exit(status)


@pytest.fixture
def open_folder():
    """A folder that everyone may enter; tmp_path's parents belong to their owner."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


def test_a_read_only_run_is_evaluated_asked_and_continued_in_a_copy(trained, open_folder, capfd):
    run = open_folder / "given"
    shutil.copytree(trained, run)
    killed(run)
    for path in [run, *run.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(run.rglob("*"))
    command = Command(open_folder / "logs")

    def use():
        for name, key in (("evaluate", "run"), ("predict", "run"), ("train", "resume")):
            with contextlib.redirect_stdout(None):
                print(command.here(name, f"{key}={run}"))

    assert as_somebody(use) == 0, capfd.readouterr().err
    assert sorted(run.rglob("*")) == before
    assert command.latest.parent == open_folder / "logs" / "train" / "line"
    assert f"{run} cannot be written to" in (command.latest / "run.log").read_text()
    assert list(kills.differences(trained, command.latest)) == []
    for path in (run, *(p for p in run.rglob("*") if p.is_dir())):
        path.chmod(0o755)


def test_a_read_only_place_is_one_line(open_folder, capfd):
    (open_folder / "logs").mkdir(mode=0o555)
    command = Command(open_folder / "logs")
    assert as_somebody(lambda: command.here("train", *SHORT) and 0) == 2
    said = capfd.readouterr().err
    assert said.startswith("error: ")
    assert "Permission denied" in said
    assert said.count("\n") == 1


# Two at once --------------------------------------------------------------------------------------


def test_a_run_that_another_process_trains_is_refused_until_that_ends(run, command, capsys):
    killed(run)
    ready, other = os.pipe()
    if not (pid := os.fork()):
        lock = (run / ".lock").open("w")
        fcntl.lockf(lock, fcntl.LOCK_EX)
        os.write(other, b".")
        signal.pause()  # until it is killed
        os._exit(0)
    os.read(ready, 1)
    assert "another process is training" in refused(command, capsys, "train", "resume=latest")
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    command.here("train", "resume=latest")
    assert not (run / ".lock").exists()


def test_a_lock_file_that_is_left_locks_nothing(run):
    (run / ".lock").touch()
    with run_lock.locked(run):
        assert (run / ".lock").exists()
    assert not (run / ".lock").exists()


# Other settings -----------------------------------------------------------------------------------

REFUSED = {
    "seed=4": "seed: 0 -> 4, data.seed: 0 -> 4",
    "optimizer.lr=0.5": "optimizer.lr: 0.1 -> 0.5",
    "trainer.max_epochs=10": "has completed 20 epochs already",
    "optimizer=adam": "optimizer._target_",
    "logger=csv": "logger.tensorboard._target_",
    "optimizer=adam allow_changes=true": "one optimizer's state cannot be loaded into another",
    "scheduler=plateau allow_changes=true": "the state of a plateau schedule differs",
    "trainer.max_epoch=30": "there is no such key: did you mean 'trainer.max_epochs'?",
    "scheduler=plateau scheduler.patiense=3": "did you mean 'scheduler.patience'?",
    "model=line model.bias=true allow_changes=true": "does not fit",
}


@pytest.mark.parametrize("words", REFUSED)
def test_other_settings_are_said_and_refused(words, run, command, capsys):
    killed(run)
    assert REFUSED[words] in refused(command, capsys, "train", "resume=latest", *words.split())
    assert yaml.safe_load((run / "config.yaml").read_text())["optimizer"]["lr"] == 0.1


def test_near_names_are_those_of_the_run_itself(run, command, capsys):
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["callbacks"]["early_stopping"] = {"patience": 3}  # not in the default recipe
    run_directory.write_config(run, settings)
    word = "callbacks.early_stopping.patiense=4"
    said = refused(command, capsys, "train", "resume=latest", word)
    assert said.endswith("no such key: did you mean 'callbacks.early_stopping.patience'?\n")


@pytest.mark.parametrize("steps", [1, 7])
def test_the_steps_per_call_may_change_in_the_middle_of_an_epoch(steps, command, monkeypatch):
    words = ("model=teacher", "trainer.max_epochs=2", "trainer.val_check_interval=4")
    words += ("trainer.accelerator=cpu", "model.dropout=0.2")  # of 10 steps per epoch
    command.here("train", *words)
    whole, save = command.latest, Checkpointing._save

    def stop_after_saving(callback, trainer):
        save(callback, trainer)
        if trainer.global_step == 4:
            raise SystemExit(3)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointing, "_save", stop_after_saving)
        with pytest.raises(SystemExit):
            command.here("train", *words)
    change = f"steps_per_execution={steps}"
    command.here("train", "resume=latest", change, "allow_changes=true")
    assert command.latest != whole
    found = [d for d in kills.differences(whole, command.latest) if change.split("=")[0] not in d]
    assert found == []


def test_the_same_settings_are_no_change(run, command):
    assert "is finished" in command.here("train", *SHORT, "seed=0", "resume=latest")


def test_changes_that_are_asked_for_are_taken(run, command):
    words = ("trainer.max_epochs=30", "optimizer.lr=0.5", "allow_changes=true")
    command.here("train", "resume=latest", *words)
    last = load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] == 0.5
    assert last["config"]["optimizer"]["lr"] == 0.5
    assert last["global_step"] == 30
    history = kills.history(run)
    assert [float(row["train/lr"]) for row in history if row["train/lr"]] == [0.1, 0.1, 0.5]
    assert sum(bool(row["test/loss"]) for row in history) == 1  # that of the shorter run is gone


def test_an_edited_configuration_is_a_change_as_well(run, command, capsys):
    killed(run)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["optimizer"]["lr"] = 0.4
    run_directory.write_config(run, settings)
    assert "optimizer.lr: 0.1 -> 0.4" in refused(command, capsys, "train", "resume=latest")


def test_a_missing_key_of_the_trainer_is_named(run, command, capsys):
    killed(run)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    del settings["trainer"]["precision"], settings["trainer"]["max_epochs"]
    run_directory.write_config(run, settings)
    said = refused(command, capsys, "train", "resume=latest")
    assert "trainer.precision: missing" in said
    assert "trainer.max_epochs: missing" in said


def content_with(patience, reason):
    """A checkpoint of a run with early stopping."""
    state = {"wait_count": 3, "patience": patience, "stopping_reason": reason}
    loops = {"fit_loop": {"epoch_progress": {"current": {"processed": 7}}}}
    return {"callbacks": {"EarlyStopping{'mode': 'min'}": state}, "loops": loops}


def test_a_run_that_early_stopping_has_ended_gets_longer_by_patience_alone():
    settings = compose("callbacks=early_stopping", "callbacks.early_stopping.patience=3")
    content, longer = content_with(3, 3), {"trainer.max_epochs": (10, 200)}
    with pytest.raises(InputError, match=r"after 7 epochs.* resume=run .*patience=6 allow_changes"):
        resume.check_length(Path("run"), content, settings, longer)
    settings["callbacks"]["early_stopping"]["patience"] = 5
    resume.check_length(Path("run"), content, settings, longer)
    resume_changes.apply_changes({"callbacks.early_stopping.patience": (3, 5)}, content, settings)
    [state] = content["callbacks"].values()
    assert (state["patience"], state["stopping_reason"]) == (5, 0)


# Another run's weights ----------------------------------------------------------------------------


def test_a_run_begins_with_the_weights_of_another(run, command):
    command.here("train", *SHORT, "init_from=latest", "trainer.max_epochs=0")
    line = f"init_from: 1 of 1 tensors taken from {run}/checkpoints/best.ckpt"
    assert json.loads((command.latest / "run.json").read_text())["init_from"] == line
    config = yaml.safe_load((command.latest / "config.yaml").read_text())
    assert config["init_from"] == f"{run}/checkpoints/best.ckpt"
    assert command.latest != run


def test_what_does_not_fit_is_said_and_nothing_in_common_is_refused(run, command, capsys):
    said = command.here("train", *SHORT, f"init_from={run}", "model.bias=true")
    assert "init_from: 1 of 2 tensors taken from" in said
    assert "; net.bias is not there" in said
    wide = ("model=line", "data.in_features=3")
    said = refused(command, capsys, "train", *wide, f"init_from={run}")
    assert "0 of 1 tensors" in said
    assert "net.weight [1, 2] does not fit [1, 3]" in said
