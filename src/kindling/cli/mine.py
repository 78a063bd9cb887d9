"""Make a copy of the template your own project: `make mine NAME=my-project KEEP=fizzbuzz`.

The examples are deleted, except for those to keep, and the project gets its name. Git can restore
them: the command refuses to run while a file has changes that are not committed.
"""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from src.kindling.errors import InputError, nearest
from src.kindling.layout import CONF, command_line

EXAMPLES = ("fizzbuzz", "linear_regression", "two_layer_net")
SHARED = ("src/data/regression.py",)  # by examples: deleted when none that is left imports it
CODE = ("src/models", "src/data", "src/figures")  # a file per example
ROOMS = ("src/tour", "tests/tour", "tests/benchmarks")  # about the tutorials
TARGETS = ("tour", "bench")  # of the Makefile, for those rooms
TESTS = ("tests/models", "tests/data", "tests/figures", "tests/soak", "tests/guests")
README = Path(__file__).with_name("front_page.md.txt")
MODEL = "???"  # Hydra's word for an option that has to be given


def main(root: Path = CONF.parent) -> None:
    """Delete the examples and rename the project, as the command line says."""
    name, keep = [*(word.strip() for word in sys.argv[1:]), "", ""][:2]
    kept = keep.replace(",", " ").split()
    check_name(name, root)
    check_kept(kept, root)
    check_committed(root)
    default = delete_examples(root, kept)
    rename(root, name)
    print(f"{name} is your own project; git diff shows what changed")
    if default == MODEL:
        print("add a model: make new NAME=my_model KIND=classifier  (make new lists the kinds)")
    else:
        print(f"train it:    {command_line('train')}  (model={default})")
    print("check it:    make test")


def check_name(name: str, root: Path) -> None:
    """Refuse a name that pip could not install, or would take for another package."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        fit = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789") or "my-project"
        raise InputError(f"NAME={name}: use lowercase letters, digits and -: {fit}")
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    if name in re.findall(r'"([a-z0-9-]+)[><=!~]', text):
        raise InputError(f"NAME={name}: a package that this project needs; try {name}-project")


def check_kept(kept: list[str], root: Path) -> None:
    """Refuse to keep a model that does not exist."""
    there = models(root)
    for name in kept:
        if name not in there:
            raise InputError(f"KEEP={name}: there is no such model{nearest(name, there)}")


def check_committed(root: Path) -> None:
    """Refuse to change files of which git has no copy."""
    words = ["git", "-C", str(root), "status", "--porcelain"]
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise InputError("git is not installed: nothing could be taken back") from error
    if done.returncode:
        raise InputError(f"git has no copy of these files: {done.stderr.splitlines()[0]}")
    if changed := [line[3:] for line in done.stdout.splitlines()]:
        raise InputError(f"{changed[0]} is not committed ({len(changed)} in all): commit first")


def models(root: Path) -> list[str]:
    """Return the models that `model=` offers."""
    return sorted(path.stem for path in (root / "conf" / "model").glob("*.yaml"))


def delete_examples(root: Path, kept: list[str]) -> str:
    """Delete the examples that are not kept, and return the model that is trained by default."""
    for room in ROOMS:
        shutil.rmtree(root / room, ignore_errors=True)
    deleted = [name for name in EXAMPLES if name not in kept]
    for name in deleted:
        for path in _files_of(root, name):
            path.unlink(missing_ok=True)
    for path in (root / "conf" / "experiment").glob("tutorial_*.yaml"):
        path.unlink()
    for shared in SHARED:
        if not any(_module(shared) in _imports(path) for path in (root / "src").rglob("*.py")):
            (root / shared).unlink(missing_ok=True)
    _delete_tests_of_what_is_gone(root)
    _delete_empty_folders(root / "conf")
    left = models(root)
    default = (kept or left or [MODEL])[0]
    _set_default(root, default, deleted)
    return default


def _files_of(root: Path, name: str) -> Iterator[Path]:
    for room in CODE:
        yield root / room / f"{name}.py"
        yield root / room.replace("src", "tests") / f"test_{name}.py"
    for group in ("model", "data"):
        yield root / "conf" / group / f"{name}.yaml"
    yield from (root / "conf" / "tuned").rglob(f"{name}_*.yaml")


def _module(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


def _imports(path: Path) -> set[str]:
    """Return the modules that a file imports, with each name that it takes from them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _delete_tests_of_what_is_gone(root: Path) -> None:
    """Delete tests that import a deleted file, and tests that import those."""
    everything = [path for folder in TESTS for path in (root / folder).rglob("*.py")]
    while gone := [path for path in everything if path.exists() and _is_orphan(root, path)]:
        for path in gone:
            path.unlink()


def _is_orphan(root: Path, path: Path) -> bool:
    """Return whether a file imports a module of src or tests that is not there."""
    rooms = tuple(f"{room.replace('/', '.')}." for room in (*CODE, *ROOMS, *TESTS))
    ours = [name for name in _imports(path) if f"{name}.".startswith(rooms)]
    paths = [root / name.replace(".", "/") for name in ours]
    # A package, a module, or what a module defines.
    return not all(p.is_dir() or _file(p).exists() or _file(p.parent).exists() for p in paths)


def _file(module: Path) -> Path:
    return module.with_name(f"{module.name}.py")


def _delete_empty_folders(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _set_default(root: Path, default: str, deleted: list[str]) -> None:
    """Train the default model when none is named, and name it where examples of use did."""
    shown = "my_model" if default == MODEL else default
    train = root / "conf" / "train.yaml"
    _edit(train, r"^(  - model:) \S+( #.*)?$", rf"\1 {default} # brings its recipe")
    names = "|".join(deleted)
    for path in [*(root / "conf").glob("*.yaml"), root / "Makefile"]:
        if names:
            _edit(path, rf"\b({names})\b", shown)
    for target in TARGETS:
        _edit(root / "Makefile", rf"^{target}:.*\n(?:\t.*\n)+\n?", "")


def rename(root: Path, name: str) -> None:
    """Give the project's name to its package, its scripts and its README."""
    pyproject = root / "pyproject.toml"
    _edit(pyproject, r'^name = "kindling"$', f'name = "{name}"')
    _edit(pyproject, r'^description = ".*"$', f'description = "{name}"')
    for path in (pyproject, root / "src" / "__init__.py", root / "conf" / "README.md"):
        _edit(path, r"\bkindling-", f"{name}-")
    readme = root / "README.md"
    if readme.read_text(encoding="utf-8").startswith("# Kindling\n"):  # else it is the owner's
        text = README.read_text(encoding="utf-8")
        readme.write_text(text.replace("my-project", name), encoding="utf-8")


def _edit(path: Path, pattern: str, replacement: str) -> None:
    before = path.read_text(encoding="utf-8")
    after = re.sub(pattern, replacement, before, flags=re.MULTILINE)
    if after != before:
        path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    from src.kindling.cli.command import one_line_errors

    with one_line_errors():
        main()
