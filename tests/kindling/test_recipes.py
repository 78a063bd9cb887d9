"""Each recipe does what it says: its code goes into the files named, its commands run."""

import re
import shutil
from pathlib import Path

import pytest

from src.kindling.cli import new
from tests.conftest import ROOT
from tests.kindling.test_readme import run

TEXT = (ROOT / "src" / "kindling" / "RECIPES.md").read_text(encoding="utf-8")
RECIPES = TEXT.split("\n## ")[1:]
FILE = r"`(\S+/\S+)`:\n+```\w+\n(.*?)^```"  # a block after the name of the file that it is for


def follow(recipe: str, project: Path) -> None:
    """Add each block of code to the file that the line above it names."""
    for name, code in re.findall(FILE, recipe, re.MULTILINE | re.DOTALL):
        with (project / name).open("a", encoding="utf-8") as file:
            file.write(f"\n{code}" if file.tell() else code)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=[text.splitlines()[0] for text in RECIPES])
def test_a_recipe_is_followed_and_its_commands_run(recipe: str, tmp_path: Path) -> None:
    for folder in ("src", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    [block] = re.findall(r"^```bash\n(.*?)^```", recipe, re.MULTILINE | re.DOTALL)
    if not block.startswith("make new"):
        block = re.findall("`(make new .*?)`", TEXT)[0] + "\n" + block
    made, *lines = block.splitlines()
    name, kind = re.fullmatch(r"make new NAME=(\w+) KIND=(\w+)", made).groups()
    new.write(tmp_path, name, kind)
    follow(recipe, tmp_path)
    assert f" model={name} " in lines[0]
    for line in lines:
        assert run(line, tmp_path).stdout
