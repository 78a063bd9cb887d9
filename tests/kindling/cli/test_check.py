"""`make check` composes every YAML there is, and names the one that a problem stands in."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from src.kindling.cli import check
from tests.conftest import ROOT, environment, options
from tests.warm import PYTHON


def checked(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PYTHON, "-m", "src.kindling.cli.check"],
        cwd=folder,
        env=environment(PYTHONPATH=str(folder)),
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A copy of the project, in which faults are planted."""
    for name in ("src", "conf"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    return tmp_path


def plant(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_project_passes() -> None:
    done = checked(ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    found = sum(len(check.compositions(path)) for path in check.yaml_files())
    assert done.stdout == f"checked {found} compositions\n"


@pytest.mark.parametrize("path", check.yaml_files(), ids=check.shown)
def test_every_yaml_is_part_of_a_composition(path: Path) -> None:
    ways = check.compositions(path)
    assert ways
    of_train = check.command_of(path) == "train"
    if of_train and path.parent.name not in ("conf", "model", "data", "experiment", "optimizer"):
        assert [way[0] for way in ways] == [f"model={model}" for model in options("model")]


# What a run is made of, and where faults are planted.
CHOSEN = {"fizzbuzz", "two_layer_net", "adamw", "rmsprop", "one_cycle", "step", "default", "mps",
          "csv", "tensorboard", "overfit", "fizzbuzz_adamw", "tpe", "median"}  # fmt: skip


def test_each_fault_is_said_once_with_its_yaml(scratch: Path) -> None:
    conf = scratch / "conf"
    for path in conf.glob("*/**/*.yaml"):  # few options: each costs a composition for each model
        if path.stem not in CHOSEN and path.parent.name != "callbacks":
            path.unlink()
    for group in ("model", "data"):  # a new model is checked without an edit
        shutil.copy2(conf / group / "fizzbuzz.yaml", conf / group / "own.yaml")
    plant(conf / "data" / "own.yaml", "val_fraction: 0.05", "val_fraction: 1.5")
    plant(conf / "model" / "fizzbuzz.yaml", "${data.num_digits}", "${data.num_digitz}")
    plant(conf / "trainer" / "default.yaml", "detect_anomaly: false", 'detect_anomaly: "no"')
    plant(conf / "trainer" / "mps.yaml", "- default", "- defalt")
    plant(conf / "data" / "two_layer_net.yaml", "batch_size: 64", "batch_size: null")
    plant(conf / "debug" / "overfit.yaml", "max_epochs:", "max_epoch:")
    plant(conf / "optimizer" / "rmsprop.yaml", "lr: 0.001", "lr: fast")
    plant(
        conf / "scheduler" / "step.yaml",
        "src.kindling.schedulers.step",
        "src.kindling.schedulers.steps",
    )
    (conf / "tuned" / "optimizer" / "fizzbuzz_adm.yaml").write_text("# Typed wrong.\nlr: 0.1\n")
    (conf / "other").mkdir()
    (conf / "other" / "x.yaml").write_text("# In no defaults list.\nlr: 0.1\n")
    done = checked(scratch)
    assert done.returncode == 2
    lines = sorted(done.stderr.replace("error: conf/", "").splitlines())
    assert [line.split(": there is no such")[0] for line in lines] == [
        "data/own.yaml: data.val_fraction=1.5: must be less than 1",
        "data/two_layer_net.yaml: data.batch_size=null: must be a valid integer",
        "debug/overfit.yaml: trainer.max_epoch",
        "model/fizzbuzz.yaml: model.num_digits: Interpolation key 'data.num_digitz' not found",
        "optimizer/rmsprop.yaml: optimizer.lr=fast: must be a valid number",
        "other/x.yaml: Could not override 'other'. No match in the defaults list.",
        "scheduler/step.yaml: scheduler._target_=src.kindling.schedulers.steps: module "
        "'src.kindling.schedulers' has no attribute 'steps'",
        "trainer/default.yaml: trainer.detect_anomaly='no': must be true or false",
        "trainer/mps.yaml: In 'trainer/mps': Could not load 'trainer/defalt'.",
        "tuned/optimizer/fizzbuzz_adm.yaml: unused: its name is not MODEL_OPTION",
    ]


@pytest.mark.parametrize("text", ["# No YAML.\nlr: [1\n", "# A list.\n- 1\n", "# Nothing.\n3\n"])
def test_what_cannot_be_read_is_named(text: str, scratch: Path) -> None:
    (scratch / "conf" / "trainer" / "default.yaml").write_text(text)
    done = checked(scratch)
    assert done.returncode == 2
    assert re.match("error: conf/trainer/default.yaml(, line 3)?: ", done.stderr)
    assert done.stderr.count("\n") == 1
    assert str(scratch) not in done.stderr


def test_to_find_no_yaml_is_an_error(scratch: Path) -> None:
    shutil.rmtree(scratch / "conf")
    done = checked(scratch)
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no YAML in ")
