"""A folder given by --config-dir or hydra.searchpath counts as the user's own conf/."""

import importlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from src.kindling import layout
from src.kindling.cli import composition
from src.kindling.errors import InputError
from tests.conftest import Command, compose
from tests.kindling import examples
from tests.kindling.cli.test_command import Typed, typed  # noqa: F401 - a fixture

QUICK = ("model=line", "trainer.max_epochs=2", "trainer.accelerator=cpu")
NADAM = "_target_: torch.optim.NAdam\n_partial_: true\nlr: 0.002\n"


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """A runner of commands that adds no folder by itself."""
    return Command(tmp_path / "logs")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with models and an optimizer that conf/ does not have."""
    folder = tmp_path / "own"
    shutil.copytree(examples.CONF, folder)
    (folder / "optimizer").mkdir()
    (folder / "optimizer" / "nesterov.yaml").write_text(NADAM)
    return folder


def test_a_recipe_may_choose_its_data_and_change_its_values(own: Path) -> None:
    text = (own / "model" / "line.yaml").read_text()
    assert text.count("defaults:\n") == 1
    chosen = text.replace("defaults:\n", "defaults:\n  - override /data: line\n")
    (own / "model" / "steep.yaml").write_text(f"{chosen}\ndata:\n  batch_size: 7\n")
    with layout.added_folders([own]):
        data = compose("model=steep")["data"]
        assert data == compose("model=line")["data"] | {"batch_size": 7}
        other = compose("model=steep", "data=quadrants")["data"]
        assert other["_target_"].endswith("QuadrantsData")
        assert compose("model=steep", "data.batch_size=9")["data"]["batch_size"] == 9


@pytest.mark.parametrize("given", ["--config-dir={own}", "hydra.searchpath=[file://{own}]"])
def test_what_was_trained_with_it_is_read_back_with_it(
    given: str, own: Path, command: Command
) -> None:
    folder = given.format(own=own)
    said = command.here("train", folder, "optimizer=nesterov", *QUICK)
    assert json.loads((command.latest / "run.json").read_text())["config_dirs"] == [str(own)]
    assert "test/loss" in command.here("evaluate", folder)
    assert "of 50 rows" in command.here("predict", folder)
    command.here("train", folder, "resume=latest", "trainer.max_epochs=4")
    saved = torch.load(command.latest / "checkpoints" / "last.ckpt", weights_only=True)
    assert (saved["epoch"], saved["config"]["optimizer"]["lr"]) == (3, 0.002)
    [follow] = re.findall(r"python -m src\.(predict .*)", said)
    assert "of 50 rows" in command.here(*shlex.split(follow))


@pytest.mark.parametrize(
    "name",
    [
        "evaluate run",
        "predict run",
        *(["train resume"] if (layout.CONF / "model").is_dir() else []),
    ],
)
def test_without_it_the_line_says_what_to_add(
    name: str, own: Path, command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    command.here("train", f"--config-dir={own}", "optimizer=nesterov", *QUICK)
    capfd.readouterr()
    program, key = name.split()
    with pytest.raises(SystemExit) as stop:
        command.here(program, f"{key}=latest")
    said = capfd.readouterr().err
    assert (stop.value.code, said.count("\n")) == (2, 1)
    assert f"add --config-dir={own}, which the run was trained with" in said


def test_a_strangers_run_does_not_get_its_own_folder_named(
    own: Path, command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    command.here("train", f"--config-dir={own}", "optimizer=nesterov", *QUICK)
    record = command.latest / "run.json"
    inside = command.latest / "conf"
    record.write_text(json.dumps({**json.loads(record.read_text()), "config_dirs": [str(inside)]}))
    capfd.readouterr()
    with pytest.raises(SystemExit):
        command.here("evaluate")
    assert "--config-dir" not in capfd.readouterr().err


def test_every_job_of_a_sweep_finds_it(
    own: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = command.words("train", "optimizer=adam,nesterov", *QUICK)
    monkeypatch.setattr("sys.argv", ["src/train.py", *settings, "-m", f"--config-dir={own}"])
    importlib.import_module("src.train").main()
    runs = (command.log_dir / "train" / "line").iterdir()
    texts = [(run / "config.yaml").read_text() for run in runs]
    assert sorted("NAdam" in text for text in texts) == [False, True]


WRONG = {
    "optimizer=nesterof": "optimizer=nesterof: there is no such option: did you mean 'nes",
    "-m optimizer=adam,nesterof": "optimizer=nesterof: there is no such option: did you mean 'nes",
    "optimizer=nesterov optimizer.lr=-1": "optimizer.lr=-1: must be greater than or equal to 0",
    "optimizer=nesterov optimizer.rate=1": "optimizer.rate: there is no such key",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_its_options_are_checked_as_those_of_conf(wrong: str, own: Path, typed: Typed) -> None:  # noqa: F811
    words = [*wrong.split(), "model=line"]
    assert WRONG[wrong] in typed("train", f"--config-dir={own}", *words)


MISSING = {
    "--config-dir=/nowhere": "--config-dir=/nowhere: there is no such folder",
    "hydra.searchpath=[file:///nowhere]": "hydra.searchpath=file:///nowhere: there is no such",
    "hydra.searchpath=[pkg://no.package]": "hydra.searchpath=pkg://no.package: there is no such",
}


@pytest.mark.parametrize("missing", MISSING)
def test_a_folder_that_is_missing_is_named(missing: str, typed: Typed) -> None:  # noqa: F811
    assert MISSING[missing] in typed("train", missing)


def test_a_package_is_a_folder() -> None:
    found = composition.own_folders("train", ["hydra.searchpath=[pkg://src.kindling]"])
    assert found == [layout.CONF.parent / "src" / "kindling"]


def test_a_yaml_that_is_not_readable_is_named(own: Path, typed: Typed) -> None:  # noqa: F811
    (own / "optimizer" / "broken.yaml").write_text("lr: [")
    assert "broken.yaml" in typed("train", f"--config-dir={own}", "model=line")


def test_two_folders_are_given_again_in_one_command() -> None:
    typed_again = layout.folder_arguments(["/a b", "/c"])
    assert typed_again == ["--config-dir=/a b", 'hydra.searchpath=["/c"]']


TYPED = {
    "optimizer._target_=torch.optim.adamw.AdamW": (
        "optimizer._target_=torch.optim.adamw.AdamW: not in any YAML of conf/optimizer/"
    ),
    "+model.x._target_=os.system": "model.x: there is no such key",
    "+callbacks.x._target_=lightning.pytorch.callbacks.Timer": (
        "callbacks.x._target_=lightning.pytorch.callbacks.Timer: not in any YAML of conf/callbacks/"
    ),
    "+callbacks.x={_target_:os.system,command:ls}": "callbacks.x._target_=os.system: not in any",
    "+trainer._convert_=all": "trainer._convert_=all: not in any YAML of conf/trainer/",
    "-m seed=1,2 +callbacks.x._target_=os.system": "callbacks.x._target_=os.system: not in any",
}


@pytest.mark.parametrize("wrong", TYPED)
def test_a_target_that_could_not_be_read_back_is_refused_before_training(
    wrong: str,
    typed: Typed,  # noqa: F811
) -> None:
    said = typed("train", *wrong.split())
    assert TYPED[wrong] in said
    if "no such key" not in said:
        assert "add it to a YAML in" in said


def test_folders_are_forgotten_after_a_command(own: Path) -> None:
    before = layout.own_folders()
    with layout.added_folders([own]):
        assert "nesterov" in composition.option_names("optimizer")
        assert layout.conf_folders() == [layout.CONF, own]
    assert "nesterov" not in composition.option_names("optimizer")
    with pytest.raises(InputError), layout.added_folders([own]):
        raise InputError("an error ends it as well")
    assert layout.own_folders() == before
