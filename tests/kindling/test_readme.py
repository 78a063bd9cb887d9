"""The READMEs keep their word: their commands run, and the model that the first one adds trains."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment, has_command
from tests.kindling.test_optional_rooms import DELETED, IMPORTED
from tests.warm import PYTHON

FRONT = ROOT / "README.md"
READMES = [FRONT, *sorted(ROOT.glob("conf/**/README.md")), *sorted(ROOT.glob("src/**/README.md"))]
PAGES = sorted({*READMES, *ROOT.glob("src/**/*.md")})
ALTERNATIVES = ROOT / "src" / "kindling" / "ALTERNATIVES.md"
SCRATCH = ("src", "conf", "tests", "pyproject.toml", "Makefile", "README.md")


def text_of(readme: Path) -> str:
    return readme.read_text(encoding="utf-8")


def blocks(readme: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(readme), re.MULTILINE | re.DOTALL)


def shown(readme: Path) -> str:
    return readme.relative_to(ROOT).as_posix()


COMMANDS = [
    pytest.param(block, id=f"{shown(readme)}: {block.splitlines()[0]}")
    for readme in READMES
    for block in blocks(readme, "bash")
    if all(has_command(name) for name in re.findall(r"python -m src\.(\w+)(?=\s)", block))
]
# `make mine` gives a project a front page of its own.
pytestmark = pytest.mark.skipif(
    not FRONT.read_text(encoding="utf-8").startswith("# Kindling\n"),
    reason="the READMEs tell of the examples",
)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Return a copy of the project to work in, as a clone would be."""
    for name in SCRATCH:
        source = ROOT / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, tmp_path / name, ignore=ignore)
        else:
            shutil.copy2(source, tmp_path / name)
    return tmp_path


def run(
    line: str, folder: Path, status: int = 0, python: Sequence[str] = PYTHON
) -> subprocess.CompletedProcess[str]:
    """Run a line of a README in a folder."""
    words = shlex.split(line, comments=True)
    assert words[0] == "python", line
    done = subprocess.run(
        [*python, *words[1:]],
        cwd=folder,
        env=environment(PYTHONPATH=str(folder)),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == status, f"{line}\n{done.stdout}\n{done.stderr}"
    return done


def needs_a_run(block: str) -> bool:
    """Return whether a block begins with a command about a run that is there, and none is named."""
    first = block.splitlines()[0]
    return "resume=" in first or not re.search(r"src\.(train|study|tour)\b", first)


def test_the_front_page_has_commands() -> None:
    assert blocks(FRONT, "bash")


@pytest.mark.parametrize("block", COMMANDS)
def test_the_commands_run_one_after_the_other(block: str, scratch: Path) -> None:
    if needs_a_run(block):  # as the text around it says: one that was stopped
        run("python -m src.train trainer.max_epochs=100", scratch)
    for line in block.splitlines():
        if "src.train" in line and "resume" not in line:
            line += " ~callbacks.figures" + " trainer.max_epochs=2" * ("max_epochs" not in line)
        assert run(line, scratch).stderr == ""


def test_a_model_is_added_with_the_four_files_of_the_text(scratch: Path) -> None:
    section = text_of(FRONT).partition("## Adding a model")[2].partition("\n## ")[0]
    files = re.findall(r"^`(\S+)`:\n+```\w+\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert [Path(name).stem for name, _ in files] == ["xor"] * 4
    for name, content in files:
        (scratch / name).write_text(content, encoding="utf-8")
    printed = run("python -m src.train model=xor", scratch).stdout
    assert float(printed.partition("test/accuracy")[2].split()[0]) > 0.9
    words = shlex.join(["-m", "pytest", *IMPORTED, "-n", "0", "-q", "-k", "xor or architecture"])
    run(f"python {words} tests/test_every_model.py tests/kindling/test_architecture.py", scratch)


@pytest.mark.parametrize("readme", READMES, ids=shown)
def test_an_error_reads_as_the_text_says(readme: Path, tmp_path: Path) -> None:
    for block in blocks(readme, "console"):
        command, *printed = block.strip().split("\n")
        if printed and printed[0].startswith("error:"):
            words = [*shlex.split(command.removeprefix("$ ")), f"log_dir={tmp_path}"]
            assert run(shlex.join(words), ROOT, status=2).stderr.splitlines() == printed


@pytest.mark.parametrize("readme", PAGES, ids=shown)
def test_links_and_pictures_are_there(readme: Path) -> None:
    link = r"(?:\]\(|^\[[^\]]+\]: )(?!https?://|#)([^)#\s]+)"
    targets = re.findall(link, text_of(readme), re.MULTILINE)
    places = [(readme.parent / target).resolve() for target in targets]
    rooms = [ROOT / path for path in DELETED]  # by the owner, who may have left a link to them
    kept = [place for place in places if not any(place.is_relative_to(room) for room in rooms)]
    assert [place for place in kept if not place.exists()] == []


def test_each_cell_about_alternatives_has_a_source() -> None:
    sources = re.findall(r"^\[([^\]]+)\]: (\S+)$", text_of(ALTERNATIVES), re.MULTILINE)
    lines = [line for line in text_of(ALTERNATIVES).splitlines() if line.startswith("| ")]
    header, *rows = [line.removesuffix("|").split("|")[2:] for line in lines]
    assert {len(row) for row in rows} == {len(header)}
    cells = [re.findall(r"\]\[([^\]]+)\]", cell) for row in rows for cell in row if cell.strip()]
    assert all(cells)
    assert sorted({name for cell in cells for name in cell}) == sorted(name for name, _ in sources)
    own = set(re.findall(r"\]\[([^\]]+)\]", lines[1]))
    assert all((Path(to).name.startswith("test_")) == (name in own) for name, to in sources)


def test_pictures_are_small() -> None:
    pictures = [ROOT / path for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text_of(FRONT))]
    assert pictures
    assert all(0 < picture.stat().st_size < 300 * 2**10 for picture in pictures)


@pytest.mark.parametrize("readme", READMES, ids=shown)
def test_every_make_target_of_the_text_exists(readme: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:`|^|\$ |&& )make ([a-z-]+)", text_of(readme), re.MULTILINE)
    assert {name for name in named if not name.endswith("-")} <= targets


def test_the_front_page_names_make_targets_and_links() -> None:
    assert "make train" in text_of(FRONT)
    assert re.search(r"\]\((?!https?://|#)", text_of(FRONT))
