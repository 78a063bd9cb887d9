"""Wrong input: exit status 2, one line that says what is wrong and what would be right, no file."""

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml

from src.kindling import layout, restore
from tests.conftest import ROOT, environment
from tests.kindling import examples
from tests.kindling.conftest import Command, compose
from tests.warm import PYTHON

WRONG = {
    # what is typed -> what the line must name
    "model=quadrant": "did you mean 'quadrants'?",
    "modle=line": "did you mean 'model'?",
    "optimizer=adma": "did you mean 'adam'?",
    "trainer.max_epoch=3": "did you mean 'trainer.max_epochs'?",
    "max_epochs=3": "did you mean 'trainer.max_epochs'?",
    "+trainer.epochs=3": "trainer.epochs",
    "+sede=3": "did you mean 'seed'?",
    "trainer.max_epochs=ten": "trainer.max_epochs=ten",
    "data.batch_size=2.5": "data.batch_size=2.5",
    "data.batch_size=": "data.batch_size=''",
    "model.hidden_features=0": "greater than 0",
    "data.in_features=1": "greater than or equal to 2",
    "optimizer.lr=-0.1": "optimizer.lr=-0.1: must be greater than or equal to 0",
    "optimizer.lr=nan": "must be a finite number",
    "seed=-1": "seed=-1",
    "steps_per_execution=0": "steps_per_execution=0",
    "trainer.devices=0": "devices=0",
    "trainer.precision=bf15": "'bf16-mixed'",
    "trainer.precision=16-mixed trainer.accelerator=cpu": "on the CPU use bf16-mixed",
    "trainer.devices=999 trainer.accelerator=cpu": "trainer.devices=999",
    "trainer.strategy=dpp": "trainer.strategy=dpp: there is no such choice: did you mean 'ddp'?",
    "data=line": "model=quadrants takes out_features 4, data=line gives 1",
    "logger=wandb": "pip install -e '.[wandb]'",
    "logger=mlflow": "pip install -e '.[mlflow]'",
    "logger=dvclive": "pip install -e '.[dvclive]'",
    "model.hidden_features=[": "model.hidden_features=[: cannot be parsed as key=value",
    "log_dir='half": "cannot be parsed as key=value",
    "data={a:1": "cannot be parsed as key=value",
    "=3": "=3: a setting is key=value",
    "model=": "model=: an option is needed: choose from ",
    "data=null": "data=null: an option is needed",
    "scheduler=none": "scheduler=none: an option is needed: choose from constant, cosine",
    "model=[line,teacher]": "one option is needed, not a list",
    "logger=[csv,tensorbord]": "did you mean 'tensorboard'?",
    "+model=line": "model",
    "hydra.nothing=1": "hydra.nothing",
    "trainer=fast": "trainer=fast: there is no such option",
    "scheduler=onecycle": "did you mean 'one_cycle'?",
    "data.infeatures=10": "did you mean 'data.in_features'?",
    "model.hidden_feature=9": "did you mean 'model.hidden_features'?",
    "optimizer.momentum=0.9": "optimizer.momentum: there is no such key",
    "callbacks.checkpointing.every=3": "callbacks.checkpointing",
    "data.val_fraction=1.5": "data.val_fraction=1.5",
    "data.val_fraction=0.9999": "leaves no row to train on",
    "data.in_features=64": "less than or equal to 24",
    "model.in_features=8": "model=quadrants takes in_features 8, data=quadrants gives 3",
    "model.label_smoothing=1": "model.label_smoothing=1",
    "model=line data.noise=-1": "data.noise=-1",
    "model=teacher data.targets=teachers": "'random' or 'teacher'",
    "model=teacher model.reduction=max": "'sum' or 'mean'",
    "data.seed=x": "data.seed=x",
    "threads=0": "threads=0",
    "threads=many": "threads=many",
    "compile=perhaps": "compile=perhaps",
    "seed=4294967296": "less than 4294967296",
    "trainer.max_epochs=-7": "max_epochs",
    "trainer.accelerator=abacus": "abacus",
    "trainer.profiler=stopwatch": "'simple'",
    "trainer.gradient_clip_algorithm=hard": "hard",
    "trainer.max_epochs=-1 trainer.max_steps=-1": "this schedule spans the run",
    "scheduler.pct_start=1.5": "scheduler.pct_start=1.5",
    "callbacks.progress.seconds_per_line=-1": "greater than 0",
    "callbacks.checkpointing.mode=most": "'min' or 'max'",
    "trainer=ddp_cpu -m seed=1,2": "before or after all settings",
    "trainer.max_epochs": "trainer.max_epochs: cannot be parsed as key=value",
    "--max_epochs 5": "--max_epochs: there is no such flag; settings are key=value: max_epochs=5",
    "resume=nowhere": "nowhere: there is no such run directory",
    "resume=https://example.com/run": "only runs and checkpoints on this machine",
    "debug=fats": "did you mean 'fast'?",
    "model.hidden_features=1000000000000": "model: its weights and their gradients take 64,000 GB",
    f"model.hidden_features={10**29}": "too large for any tensor",
    "threads=1025": "less than or equal to 1024",
    "trainer.devices=1025": "trainer.devices=1025",
    "trainer.num_nodes=2": "MASTER_ADDR, MASTER_PORT, NODE_RANK missing",
    "trainer.max_time=soon": 'trainer.max_time=soon: must be "DD:HH:MM:SS"',
    "+trainer.logger=false": "trainer.logger: set by the run itself: use logger=none",
    "+trainer.enable_checkpointing=false": "use callbacks=none, or ~callbacks.checkpointing",
    "+trainer.callbacks=[]": "use an option of callbacks=",
    "+trainer.enable_progress_bar=false": "use ~callbacks.progress",
    "+trainer.default_root_dir=out": "use log_dir=FOLDER",
    "+trainer.plugins=[]": "use precision= and strategy= of trainer",
    "+trainer.barebones=true": "use logger=none callbacks=none",
    "trainer.limit_val_batches=1.5": "less than or equal to 1",
    "trainer.check_val_every_n_epoch=0": "greater than 0",
    "optimizer.betas=[0.9,1.0]": "[1] must be less than 1",
    "optimizer.lr=1e400": "must be a finite number",
    "data.seed=-5": "data.seed=-5",
    "seed=1e99": "seed=1.0e+99",
    "seed=\N{ARABIC-INDIC DIGIT THREE}": "seed=",
    "seed=${seed}": "Recursive interpolation",
    "seed=${oc.env:KINDLING_NOT_SET}": "KINDLING_NOT_SET: there is no such environment variable",
    "optimizer.lr=${oc.env:HOME}": "optimizer.lr=",
    "log_dir=": "log_dir='': ",
    "~seed": "~seed: every run needs seed",
    "~trainer": "~trainer: every run needs trainer",
    "~trainer.max_epochs": "trainer.max_epochs: missing",
    "~nothing": "nothing: there is no such key",
    "++model.depth=3": "model.depth: there is no such key",
    "++seed=x": "seed=x",
    "hydra.run.dir=out": "log_dir= is the folder of runs",
    "++hydra.job.chdir=true": "log_dir= is the folder of runs",
    "hydra.output_subdir=.hydra": "log_dir= is the folder of runs",
    "hydra/job_logging=default": "log_dir= is the folder of runs",
    "hydra/launcher=joblib": "hydra/launcher/joblib",
    "--config-name evaluate": "a command has one configuration",
    "-cp /tmp": "a command has one configuration",
    "--config-dir /nowhere": "/nowhere",
    "--experimental-rerun job.pickle": "loads a pickle",
    "seed=0,1": "seed=0,1: several values need --multirun; a list is written seed=[0,1]",
    "seed=range(3)": "seed=range(3): several values need --multirun",
    "hydra.mode=MULTIRUN seed=1,-1": "seed=-1: must be greater than or equal to 0 (in the job",
    "--multirun seed=1,-1": "seed=-1: must be greater than or equal to 0 (in the job seed=-1",
    "--multirun model=quadrants,quadrant": "did you mean 'quadrants'?",
    "--multirun optimizer.lr=interval(0,1)": "src.study draws from an interval",
    "--multirun hydra.sweep.dir=out seed=1,2": "log_dir= is the folder of runs",
}
NEEDS_PACKAGE = {f"logger={name}": name for name in ("wandb", "mlflow", "dvclive")}


class Typed:
    """A command's `main`, called in this process with the words that a shell would give it."""

    def __init__(self, log_dir: Path, patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
        self.log_dir, self.patch, self.capfd = log_dir, patch, capfd

    def __call__(self, name: str, *arguments: str) -> str:
        """Return the one line of an error."""
        named = any(word.startswith("log_dir=") for word in arguments)
        own = [] if named else [f"log_dir={self.log_dir}"]
        return self.exactly(name, *examples.arguments(name, *arguments), *own)

    def exactly(self, name: str, *arguments: str) -> str:
        """Do so with no other word added."""
        self.patch.setattr(sys, "argv", [f"src/{name}.py", *arguments])
        with pytest.raises(SystemExit) as stop:
            importlib.import_module(f"src.{name}").main()
        said = self.capfd.readouterr()
        assert (stop.value.code, said.out) == (2, "")
        return one_line(said.err, self.log_dir)


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Typed:
    return Typed(tmp_path / "logs", monkeypatch, capfd)


def one_line(said: str, log_dir: Path) -> str:
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert not log_dir.exists()
    return said


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_gets_one_line_and_leaves_nothing(wrong: str, typed: Typed) -> None:
    if wrong in NEEDS_PACKAGE and installed(NEEDS_PACKAGE[wrong]):
        pytest.skip("the package is installed here")
    assert WRONG[wrong] in typed("train", *wrong.split())


# Seconds to import: what is refused without them, or only asked, must not wait for them.
HEAVY = re.compile(r"\| +(torch|lightning|numpy|matplotlib)$")


def in_no_time(folder: Path, name: str, *words: str) -> tuple[int, str, str]:
    """Return status and output of the real interpreter, which must not have imported torch."""
    own = examples.arguments(name.removeprefix("src."), *words)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", name, *own, f"log_dir={folder}/logs"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = done.stderr.splitlines()
    assert any(line.split()[-1] == "hydra" for line in lines)
    assert [line for line in lines if HEAVY.search(line)] == []
    said = [line for line in lines if not line.startswith("import time:")]
    return done.returncode, done.stdout, "\n".join(said)


WITHOUT_TORCH = [
    ["optimizer=adma", "sede=3", "trainer.max_epoch=3"],
    ["sede=3", "seed=-1", "optimizer.lr=nan", "data.batch_size=0"],
    [
        *("optimizer.lr=-0.1", "optimizer.betas=[0.9,1.0]", "scheduler.pct_start=1.5"),
        *("trainer.max_epochs=ten", "trainer.devices=0", "trainer.precision=bf15"),
        *("trainer.strategy=dpp", "trainer.accelerator=abacus", "trainer.profiler=stopwatch"),
        *("model.hidden_features=0", "data.val_fraction=1.5", "callbacks.checkpointing.mode=most"),
        "data.batch_size=",
    ],
    ["seed=-1", "threads=0", "steps_per_execution=0"],
    ["resume=nowhere"],
]


@pytest.mark.parametrize("wrong", WITHOUT_TORCH, ids=lambda words: words[0])
def test_the_real_command_says_all_of_it_before_torch_is_imported(
    wrong: list[str], tmp_path: Path
) -> None:
    status, out, said = in_no_time(tmp_path, "src.train", *wrong)
    assert (status, out) == (2, "")
    assert said.startswith("error: ")
    assert "\n" not in said
    assert said.count("; ") == len(wrong) - 1
    assert all(key in said or value in said for key, value in (w.split("=") for w in wrong))
    assert list(tmp_path.iterdir()) == []


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("asked", ["trainer.accelerator=gpu", "trainer=gpu", "trainer=ddp"])
def test_a_gpu_that_is_not_there_gets_one_line(asked: str, typed: Typed) -> None:
    said = typed("train", asked)
    assert "trainer.accelerator=gpu: torch finds none on this machine" in said


OTHERS_WRONG = {
    "evaluate log_dir=5": "log_dir=5: must be a path (a string)",
    "evaluate log_dir=": "log_dir=: must be a path",
    "evaluate run=null": "run=null: must be the name of a run",
    "evaluate run=[1]": "run=[1]: must be the name of a run",
    "evaluate runs=latest": "did you mean 'run'?",
    "evaluate run=http://example.com/best.ckpt": "only runs and checkpoints on this machine",
    "predict run=5": "run=5: must be the name of a run",
    "predict output=5": "output=5: name a file that ends in .csv, .json or .pt",
    "predict output=[a.csv]": "name a file that ends in .csv, .json or .pt",
    "predict output=/nowhere/a.csv": "the folder /nowhere does not exist",
    "predict log_dir={a:1}": "must be a path",
    "train resume=[]": "[]: there is no such run directory",
    "train resume=latest log_dir=[]": "log_dir=[]: must be a path",
    "train resume=/etc/passwd": "is not a run directory",
}


@pytest.mark.parametrize("wrong", OTHERS_WRONG)
def test_wrong_input_of_the_other_commands_too(wrong: str, typed: Typed) -> None:
    name, *arguments = wrong.split()
    last = [] if "log_dir" in wrong else [f"log_dir={typed.log_dir}"]
    words = examples.arguments(name, *arguments)
    assert OTHERS_WRONG[wrong] in typed.exactly(name, *words, *last)


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_without_a_run_the_line_says_how_to_make_one(name: str, typed: Typed) -> None:
    said = typed(name)
    assert "there is no run yet; `python -m src.train" in said
    assert said.endswith("` makes one\n")


def test_a_checkpoint_that_is_none_is_named(typed: Typed, tmp_path: Path) -> None:
    for content in (b"", b"garbage", b"PK\x03\x04 cut short"):
        path = tmp_path / "some.ckpt"
        path.write_bytes(content)
        assert f"{path} is not a checkpoint" in typed("evaluate", f"run={path}")


def test_an_empty_argument_is_none(typed: Typed) -> None:
    assert ": cannot be parsed as key=value" in typed("train", "")


def test_a_sweep_of_several_processes_says_how_else(command: Command) -> None:
    done = command("train", "-m", "trainer=ddp_cpu", "seed=1,2", status=2)
    assert done.stderr.startswith(
        "error: trainer: each run of a --multirun or a study trains in one process"
    )
    assert done.stderr.count("\n") == 1
    assert not (command.log_dir / "train").exists()


def test_a_job_that_fails_leaves_the_others_their_turn(
    command: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fit = pl.Trainer.fit

    def broken(trainer: pl.Trainer, model: Any, *rest: Any, **more: Any) -> None:
        if "\nseed: 2\n" in Path(trainer.default_root_dir, "config.yaml").read_text():
            raise OSError(28, "No space left on device")
        fit(trainer, model, *rest, **more)

    monkeypatch.setattr(pl.Trainer, "fit", broken)
    quick = ("model=line", "trainer.max_epochs=1", "trainer.accelerator=cpu")
    with pytest.raises(SystemExit) as stop:
        command.here("train", "--multirun", "seed=1,2,3", *quick)
    said = capfd.readouterr().err
    assert stop.value.code == 1
    assert said.count("\n") == 1
    [log] = re.findall(r"^error: OSError: .*No space left on device \(traceback: (.*)\)$", said)
    assert "Traceback" in Path(log).read_text()
    ends = [
        json.loads((path / "run.json").read_text())["status"]
        for path in sorted((command.log_dir / "train" / "line").iterdir())
    ]
    assert sorted(ends) == ["failed", "finished", "finished"]
    assert {path.name for path in command.log_dir.iterdir()} == {"train", "latest", "sweep"}


LIMITED = """
import resource, runpy, sys
sys.dont_write_bytecode = True  # Python would keep what the limit has cut off
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv[:] = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize("size", [3_000, 40_000])  # while writing the history; a checkpoint
def test_a_disk_that_fills_up_ends_the_run_in_one_line(
    size: int, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "limited.py").write_text(LIMITED)
    quick = ("model.hidden_features=1024", "trainer.max_epochs=25", "trainer.accelerator=cpu")
    words = ["limited", str(size), "src.train", *command.words("train", *quick)]
    done = subprocess.run(
        [*PYTHON, "-m", *words],
        cwd=ROOT,
        env=environment(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}"),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 1
    *warnings, last = done.stderr.splitlines()  # a picture may not have fitted either
    assert [line for line in warnings if not line.startswith("warning: ")] == []
    [(file, log)] = re.findall(
        r"^error: OSError: .*File too large: '(.*)' \(traceback: (.*)\)$", last
    )
    assert Path(log) == command.latest / "run.log"
    assert file
    if size > 20_000:  # there was room for it
        assert "Traceback" in Path(log).read_text()
        assert json.loads((command.latest / "run.json").read_text())["status"] == "failed"


def test_several_problems_are_said_at_once(typed: Typed) -> None:
    said = typed("train", "modle=line", "trainer=fast", "sede=3")
    assert "'model'" in said
    assert "trainer=fast" in said
    assert "'seed'" in said
    said = typed("train", "data.batch_size=0", "model.hidden_features=many")
    assert "data.batch_size=0" in said
    assert "model.hidden_features=many" in said


@pytest.mark.parametrize(
    ("setting", "said"),
    [("trainer.max_epochs=0", "nothing is trained"), ("optimizer.lr=0", "the weights stay")],
)
def test_what_is_surely_unmeant_gets_a_warning(
    setting: str, said: str, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = examples.arguments("train", setting, "debug=fast", f"log_dir={typed.log_dir}")
    monkeypatch.setattr(sys, "argv", ["src/train.py", *words])
    importlib.import_module("src.train").main()
    warnings = typed.capfd.readouterr().err.splitlines()
    assert [line for line in warnings if line.startswith("warning: ") and said in line]


def test_the_traceback_is_there_for_who_asks(command: Command) -> None:
    done = subprocess.run(
        command.line("train", "model=quadrant"),
        cwd=ROOT,
        env=environment(HYDRA_FULL_ERROR="1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("name", ["train", "evaluate", "predict"])
def test_help_shows_settings_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    status, out, said = in_no_time(tmp_path, f"src.{name}", "--help")
    assert (status, said) == (0, "")
    assert f"python -m src.{name}" in out
    assert "log_dir:" in out
    assert list(tmp_path.iterdir()) == []


def test_the_settings_are_shown_and_nothing_is_left(tmp_path: Path) -> None:
    status, out, said = in_no_time(tmp_path, "src.train", "--cfg", "job", "model=teacher")
    assert (status, said) == (0, "")
    assert yaml.safe_load(out)["model"]["_target_"].endswith("models.teacher.Teacher")
    assert list(tmp_path.iterdir()) == []


def test_help_lists_every_group_and_an_example(command: Command) -> None:
    said = command("train", "--help").stdout
    for group in ("model", "data", "optimizer", "scheduler", "trainer", "logger", "callbacks"):
        assert f"\n{group}: " in said
    assert re.search(r"python -m src\.train model=\w+ seed=3", said)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_what_a_gpu_trained_in_half_precision_is_tested_on_the_cpu(tmp_path: Path) -> None:
    settings = compose("trainer.precision=16-mixed")
    trainer = restore.build_tester(settings, "auto", tmp_path)
    assert trainer.precision == "32-true"


@pytest.mark.parametrize(
    ("started", "installs"),
    [
        ("src/train.py", "pip install -e '.[study]'"),
        ("/venv/bin/kindling-train", "pip install 'kindling[study]'"),
        ("/venv/bin/my-own-report", "pip install 'my-own[study]'"),
    ],
)
def test_an_extra_is_installed_for_a_clone_or_for_the_installed_project(
    started: str, installs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    assert layout.install_extra("study") == installs
