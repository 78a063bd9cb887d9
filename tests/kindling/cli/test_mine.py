"""`make mine`: what is left of a copy trains, its tests pass, and nothing uncommitted is lost."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from src.kindling.cli import mine
from src.kindling.errors import InputError
from tests.conftest import ROOT, environment

LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "logs", "*.egg-info"
)
# The folders of `make test`, without the guests: they are whole projects of others.
OWN_TESTS = ("tests/models", "tests/data", "tests/figures", "tests/test_every_model.py")
OWN_TESTS += ("tests/test_nets.py",)
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *words: str) -> str:
    own = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", *own, *words], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the project, all of it committed."""
    shutil.copytree(ROOT, tmp_path / "clone", ignore=LEFT_OUT, symlinks=True)
    git(tmp_path / "clone", "init", "-q")
    git(tmp_path / "clone", "add", "-A")
    git(tmp_path / "clone", "commit", "-qm", "all")
    return tmp_path / "clone"


def run(clone: Path, *words: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=clone,
        env=environment(PYTHONPATH=str(clone)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def own_tests_pass(clone: Path) -> None:
    run(clone, "pytest", "-n", "0", "-q", "-m", "not slow and not services", *OWN_TESTS)


def names(clone: Path, pattern: str) -> set[str]:
    return {path.stem for path in clone.glob(pattern) if path.stem != "__init__"}


def untouched(clone: Path) -> bool:
    return git(clone, "status", "--porcelain", "src/kindling", "tests/kindling") == ""


@pytest.mark.slow
def test_one_example_is_kept_and_trains_by_default(clone: Path) -> None:
    said = run(clone, "src.kindling.cli.mine", "my-project", "fizzbuzz")
    assert "python -m src.train" in said
    assert untouched(clone)
    for room in ("src/models", "src/data", "src/figures"):
        assert names(clone, f"{room}/*.py") == {"fizzbuzz"}
    assert names(clone, "conf/model/*.yaml") == names(clone, "conf/data/*.yaml") == {"fizzbuzz"}
    assert names(clone, "conf/experiment/*") == names(clone, "src/tour/*") == set()
    pyproject = (clone / "pyproject.toml").read_text()
    assert 'name = "my-project"' in pyproject
    assert 'my-project-train = "src.train:main"' in pyproject
    assert (clone / "README.md").read_text().startswith("# my-project\n")
    own_tests_pass(clone)
    trained = run(clone, "src.train", "trainer.max_epochs=2", "trainer.accelerator=cpu")
    assert trained.startswith("fizzbuzz: run directory")


@pytest.mark.slow
def test_with_no_example_left_the_first_new_model_trains_by_default(clone: Path) -> None:
    said = run(clone, "src.kindling.cli.mine", "my-project")
    assert "make new NAME=my_model KIND=classifier" in said
    assert untouched(clone)
    assert not names(clone, "src/models/*.py") | names(clone, "src/data/*.py")
    own_tests_pass(clone)
    refused = run(clone, "src.train", status=2)
    assert refused.startswith("error: model is missing, and this project has none yet: make new")
    run(clone, "src.kindling.cli.new", "my_model", "classifier")
    own_tests_pass(clone)
    run(clone, "ruff", "check", "src", "tests/models")
    trained = run(clone, "src.train", "trainer.max_epochs=2", "trainer.accelerator=cpu")
    assert trained.startswith("my_model: run directory")


@pytest.mark.slow
def test_models_and_readmes_of_the_owner_are_left_alone(clone: Path) -> None:
    run(clone, "src.kindling.cli.new", "my_model", "regressor")
    (clone / "README.md").write_text("# Mine\n")
    git(clone, "add", "-A")
    git(clone, "commit", "-qm", "own")
    run(clone, "src.kindling.cli.mine", "my-project")
    changed = git(clone, "status", "--porcelain")
    assert "my_model" not in changed
    assert " M README.md" not in changed
    assert "  - model: my_model" in (clone / "conf" / "train.yaml").read_text()


def test_what_is_not_committed_is_not_lost(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="git has no copy of these files"):
        mine.check_committed(tmp_path)
    git(tmp_path, "init", "-q")
    mine.check_committed(tmp_path)
    (tmp_path / "new.py").touch()
    with pytest.raises(InputError, match=r"new\.py is not committed \(1 in all\): commit first"):
        mine.check_committed(tmp_path)


BAD = {
    "": "use lowercase letters, digits and -: my-project",
    "My Project": "use lowercase letters, digits and -: my-project",
    "2nd_try": "use lowercase letters, digits and -: nd-try",
    "torch": "a package that this project needs; try torch-project",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_name_gets_one_line_with_a_good_one(name: str) -> None:
    with pytest.raises(InputError, match=BAD[name]):
        mine.check_name(name, ROOT)


def test_an_unknown_model_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "rings.yaml").touch()
    mine.check_kept(["rings"], tmp_path)
    with pytest.raises(InputError, match="KEEP=ring: there is no such model: did you mean 'rings'"):
        mine.check_kept(["ring"], tmp_path)
