"""Each kind of `make new` is a model that trains, passes the contract, and is well written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from src.kindling.cli import new
from src.kindling.errors import InputError
from tests.conftest import ROOT, environment
from tests.warm import PYTHON

LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*_cache")


def copied(clone: Path) -> Path:
    """Copy the project."""
    for folder in ("src", "conf", "tests"):
        shutil.copytree(ROOT / folder, clone / folder, ignore=LEFT_OUT)
    for file in ("pyproject.toml", "README.md"):
        shutil.copy2(ROOT / file, clone / file)
    return clone


def run(clone: Path, *words: str, status: int = 0) -> str:
    trains = words[1] in ("src.train", "src.evaluate", "src.predict")
    python = PYTHON if trains else [sys.executable]  # most others import no torch
    done = subprocess.run(
        [*python, *words],
        cwd=clone,
        env=environment(PYTHONPATH=str(clone)),
        capture_output=True,
        text=True,
        timeout=900,  # the contract of all kinds: two minutes, more on a busy machine
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_kind_has_all_templates() -> None:
    assert {path.name for path in new.TEMPLATES.iterdir()} == set(new.KINDS)
    for kind in new.KINDS:
        assert {path.name for path in (new.TEMPLATES / kind).iterdir()} == set(new.FILES)


def test_a_recipe_sets_only_what_every_optimizer_has() -> None:
    # `make check` composes each model with each optimizer, and `make update` runs it.
    options = [yaml.safe_load(path.read_text()) for path in ROOT.glob("conf/optimizer/*.yaml")]
    common = set.intersection(*map(set, options))
    for kind in new.KINDS:
        recipe = yaml.safe_load((new.TEMPLATES / kind / "model.yaml").read_text())
        assert set(recipe.get("optimizer", {})) <= common, kind


@pytest.fixture(scope="module")
def clone_with_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with a new model of each kind, called my_KIND."""
    clone = copied(tmp_path_factory.mktemp("clone"))
    for kind in new.KINDS:
        new.write(clone, f"my_{kind}", kind)
    return clone


@pytest.mark.parametrize("kind", new.KINDS)
def test_a_name_replaces_the_examples_alone(kind: str, tmp_path: Path) -> None:
    paths = new.write(tmp_path, "zebra", kind)
    words = {w for path in paths for w in re.findall(r"\w+", (tmp_path / path).read_text())}
    assert {"zebra", "Zebra"} <= words
    assert not {word for word in words if "zebra_" in word}
    assert {w for w in words if "xample" in w} <= {"example_input_array"}


def test_the_command_says_what_it_wrote_and_what_is_next(tmp_path: Path) -> None:
    said = run(copied(tmp_path), "-m", "src.kindling.cli.new", "my_own", "classifier")
    for place in new.FILES.values():
        path = place.format(name="my_own")
        assert f"wrote {path}\n" in said
        assert (tmp_path / path).is_file()
    assert "python -m src.train model=my_own" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", new.KINDS)
def test_a_new_model_trains_and_is_read_back(kind: str, clone_with_all: Path) -> None:
    own = (f"log_dir=logs/{kind}", "trainer.accelerator=cpu")
    assert "test/" in run(clone_with_all, "-m", "src.train", f"model=my_{kind}", *own)
    assert "test/" in run(clone_with_all, "-m", "src.evaluate", own[0], "accelerator=cpu")
    assert run(clone_with_all, "-m", "src.predict", own[0])


@pytest.mark.slow
def test_new_models_keep_what_every_model_promises(clone_with_all: Path) -> None:
    tests = [f"tests/models/test_my_{kind}.py" for kind in new.KINDS]
    run(clone_with_all, "-m", "pytest", "-n", "0", "-q", *tests)
    run(clone_with_all, "-m", "pytest", "-n", "0", "-q", "tests/test_every_model.py", "-k", "my_")


@pytest.mark.slow
def test_new_models_are_well_written(clone_with_all: Path) -> None:
    places = [place.format(name=f"my_{kind}") for kind in new.KINDS for place in new.FILES.values()]
    code = [place for place in places if place.endswith(".py")]
    run(clone_with_all, "-m", "ruff", "check", *code)
    run(clone_with_all, "-m", "ruff", "format", "--check", *code)
    cache = f"--cache-dir={ROOT / '.mypy_cache'}"  # of the whole project: minutes without it
    run(clone_with_all, "-m", "mypy", cache, *(place for place in code if place.startswith("src/")))


BAD = {
    "": "use lowercase letters",
    "my-model": "use lowercase letters",
    "../x": "use lowercase letters",
    "2x": "use lowercase letters",
    "class": "reserved in Python or YAML",
    "null": "reserved in Python or YAML",
    "loader": "the engine uses this name",
    "files": "the engine uses this name",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_name_gets_one_line(name: str) -> None:
    with pytest.raises(InputError, match=BAD[name]):
        new.check_name(name, ROOT)


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'classifier'"):
        new.check_kind("clasifier")


def test_without_a_name_the_kinds_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["new", "", ""])
    new.main()
    said = capsys.readouterr().out
    assert all(f"  {kind} " in said for kind in new.KINDS)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    new.write(tmp_path, "mine", "classifier")
    with pytest.raises(InputError, match=r"mine\.py already exists; try mine_2"):
        new.check_name("mine", tmp_path)
    with pytest.raises(FileExistsError):
        new.write(tmp_path, "mine", "regressor")
    assert "cross_entropy" in (tmp_path / "src" / "models" / "mine.py").read_text()
