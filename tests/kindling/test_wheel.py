"""The built wheel is whole: its scripts train, ask and report from an empty folder."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment
from tests.kindling.test_optional_rooms import NOT_COPIED

pytestmark = pytest.mark.slow
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
NAME = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
# Files that setuptools leaves out unless it is told of them.
DATA = {".yaml", ".html", ".txt"}


MODELS = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel alone, which finds all other packages where the tests do."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_COPIED))
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    [site] = (folder / "venv" / "lib").glob("*/site-packages")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "wheel"]
    run([*pip, "--no-deps", "-w", str(folder), str(source)], folder)
    [wheel] = folder.glob("*.whl")
    run([*pip[:-1], "install", "--no-deps", "--no-index", str(wheel)], folder)
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (site / "shared.pth").write_text("\n".join(shared) + "\n")
    return folder / "venv" / "bin"


def run(words: list[str], folder: Path, status: int = 0) -> str:
    clean = {k: v for k, v in environment().items() if not k.startswith("PYTHON")}
    done = subprocess.run(words, cwd=folder, env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_all_files_of_the_project_are_in_the_wheel(installed: Path) -> None:
    [site] = (installed.parent / "lib").glob("*/site-packages")
    wanted = {
        path.relative_to(ROOT).as_posix()
        for folder in ("src", "conf")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", *DATA}
    }
    assert {name for name in wanted if not (site / name).is_file()} == set()
    assert {Path(name).suffix for name in wanted} == {".py", *DATA}


def test_each_command_has_a_script(installed: Path) -> None:
    doors = [
        path.stem for path in (ROOT / "src").glob("*.py") if "command.command(" in path.read_text()
    ]
    assert {f"{NAME}-{door}" for door in doors} == SCRIPTS.keys()
    assert all(os.access(installed / script, os.X_OK) for script in SCRIPTS)


@pytest.mark.skipif(not MODELS, reason="this project has no model yet")
def test_the_scripts_run_from_an_empty_folder_and_name_each_other(
    installed: Path, tmp_path: Path
) -> None:
    for script in SCRIPTS:
        shown = run([str(installed / script), "--help"], tmp_path)
        assert f"{script} [" in shown or f"{script} study.name=" in shown
        assert "python -m" not in shown
    train = str(installed / f"{NAME}-train")
    refused = run([str(installed / f"{NAME}-predict")], tmp_path, status=2)
    assert f"`{NAME}-train log_dir=logs` makes one" in refused
    model = f"model={MODELS[0]}"
    printed = run([train, model, "trainer.max_epochs=2", "trainer.accelerator=cpu"], tmp_path)
    assert "python -m" not in printed
    following = re.findall(rf"^(?:next:)? +({NAME}-\w+) (.*)$", printed, re.MULTILINE)
    assert {name for name, _ in following} >= {f"{NAME}-predict", f"{NAME}-train"}
    for name, setting in following:
        run([str(installed / name), *setting.split()], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    assert len(list((tmp_path / "logs" / "train").glob("*/*/checkpoints/best.ckpt"))) == 1


def test_python_m_works_too(installed: Path, tmp_path: Path) -> None:
    python = str(installed / "python")
    assert "-m src.train" in run([python, "-m", "src.train", "--help"], tmp_path)
    assert "python -m src.train" in run([python, "-m", "src.evaluate"], tmp_path, status=2)
    assert sys.prefix != str(installed.parent)
