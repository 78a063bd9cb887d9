"""`make check` composes every YAML there is, and names the one that causes a problem."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from src.kindling.cli import check
from src.kindling.errors import InputError
from tests.conftest import environment
from tests.kindling.conftest import copy_project, options
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
    """A project in which faults are planted."""
    return copy_project(tmp_path)


def plant(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_every_yaml_is_part_of_a_composition(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "CONF", scratch / "conf")
    every = [f"model={model}" for model in options("model")]
    ways = {path: check.compositions(path) for path in check.yaml_files()}
    assert len(ways) > 20
    assert all(ways.values())
    for path in ways:
        own = path.parent.name in ("conf", "model", "data", "experiment", "optimizer")
        if check.command_of(path) == "train" and not own:
            assert [way[0] for way in ways[path]] == every


# What a run is made of, and where faults are planted.
CHOSEN = {"quadrants", "adamw", "rmsprop", "one_cycle", "step", "default", "mps",
          "csv", "tensorboard", "overfit", "quadrants_adamw", "tpe", "median"}  # fmt: skip


def only_chosen(conf: Path, *left_out: str) -> None:
    """Leave few options: each costs a composition for each model."""
    for path in conf.glob("*/**/*.yaml"):
        if path.stem not in CHOSEN or path.stem in left_out:
            path.unlink()


def test_a_project_without_faults_passes(scratch: Path) -> None:
    only_chosen(scratch / "conf", "rmsprop", "step", "mps", "overfit")
    done = checked(scratch)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"checked [1-9]\d+ compositions\n", done.stdout)


def test_a_project_without_models_passes_and_says_how_to_add_one(scratch: Path) -> None:
    for group in ("model", "data", "tuned"):
        shutil.rmtree(scratch / "conf" / group)
    plant(scratch / "conf" / "train.yaml", "- model: quadrants", "- model: ???")
    done = checked(scratch)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert re.fullmatch(r"checked [1-9]\d* compositions", first)
    assert second == "no training run was checked: there are no models yet; `make new` writes one"


def test_each_fault_is_reported_once_with_its_yaml(scratch: Path) -> None:
    conf = scratch / "conf"
    only_chosen(conf)
    for group in ("model", "data"):  # a new model is checked without an edit
        shutil.copy2(conf / group / "quadrants.yaml", conf / group / "rings.yaml")
    plant(conf / "data" / "rings.yaml", "val_fraction: 0.05", "val_fraction: 1.5")
    plant(conf / "data" / "rings.yaml", "batch_size: 220", "batch_size: null")
    plant(conf / "model" / "quadrants.yaml", "${data.in_features}", "${data.in_featurez}")
    plant(conf / "trainer" / "default.yaml", "detect_anomaly: false", 'detect_anomaly: "no"')
    plant(conf / "trainer" / "mps.yaml", "- default", "- defalt")
    plant(conf / "debug" / "overfit.yaml", "max_epochs:", "max_epoch:")
    plant(conf / "optimizer" / "rmsprop.yaml", "lr: 0.001", "lr: fast")
    plant(
        conf / "scheduler" / "step.yaml",
        "src.kindling.schedulers.step",
        "src.kindling.schedulers.steps",
    )
    (conf / "tuned" / "optimizer" / "quadrants_adm.yaml").write_text("# Typed wrong.\nlr: 0.1\n")
    (conf / "other").mkdir()
    (conf / "other" / "x.yaml").write_text("# In no defaults list.\nlr: 0.1\n")
    done = checked(scratch)
    assert done.returncode == 2
    lines = sorted(done.stderr.replace("error: conf/", "").splitlines())
    assert [line.split(": there is no such")[0] for line in lines] == [
        "data/rings.yaml: data.batch_size=null: must be a valid integer",
        "data/rings.yaml: data.val_fraction=1.5: must be less than 1",
        "debug/overfit.yaml: trainer.max_epoch",
        "model/quadrants.yaml: model.in_features: Interpolation key 'data.in_featurez' not found",
        "optimizer/rmsprop.yaml: optimizer.lr=fast: must be a valid number",
        "other/x.yaml: Could not override 'other'. No match in the defaults list.",
        "scheduler/step.yaml: scheduler._target_=src.kindling.schedulers.steps: module "
        "'src.kindling.schedulers' has no attribute 'steps'",
        "trainer/default.yaml: trainer.detect_anomaly='no': must be true or false",
        "trainer/mps.yaml: In 'trainer/mps': Could not load 'trainer/defalt'.",
        "tuned/optimizer/quadrants_adm.yaml: unused: its name is not MODEL_OPTION",
    ]


@pytest.mark.parametrize("text", ["# No YAML.\nlr: [1\n", "# A list.\n- 1\n", "# Nothing.\n3\n"])
def test_an_unreadable_yaml_is_named(
    text: str, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "CONF", scratch / "conf")
    (scratch / "conf" / "trainer" / "default.yaml").write_text(text)
    count, [problem] = check.check()
    assert count == 0
    assert re.match("conf/trainer/default.yaml(, line 3)?: ", problem)
    assert str(scratch) not in problem


def test_finding_no_yaml_is_an_error(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "CONF", scratch / "conf")
    shutil.rmtree(scratch / "conf")
    with pytest.raises(InputError, match="there is no YAML in "):
        check.check()


def test_without_optuna_the_yamls_of_studies_are_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "lacks_optuna", lambda: True)
    monkeypatch.setattr(check, "check", lambda: (0, []))
    monkeypatch.setattr("sys.argv", ["check"])
    with pytest.raises(SystemExit) as end:
        check.main()
    assert end.value.code == 0
    studies = (check.CONF / "study").is_dir()
    assert ("conf/study was not checked" in capsys.readouterr().out) == studies
