"""What the next Hydra would break, tried in an environment that has it; make test-services.

Of Hydra 1.4 there are release candidates, which pyproject.toml excludes. These tests install the
newest of them, or the release, with the OmegaConf that it needs, and run the commands. They fail if
anything else than what is listed breaks, or if something listed works again.
"""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment
from tests.kindling.conftest import Command
from tests.warm import ADDRESS

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("own_models")]
NEWER = "hydra-core>=1.4.0rc1,<1.5"
QUICK = ("model=line", "trainer.accelerator=cpu", "trainer.max_epochs=1", "logger=csv")
SWEEP = ("--multirun", *QUICK, "optimizer.lr=0.1,0.2")
DELETED = "callbacks.progress.seconds_per_line"
COMMANDS = {
    "help": ("train", "--help"),
    "a run": ("train", *QUICK),
    "a profiled run": ("train", *QUICK, "debug=profile"),
    "a sweep": ("train", *SWEEP),
    "a sweep without a setting": ("train", *SWEEP, f"~{DELETED}"),
    "a resumed run": ("train", "resume=latest", "trainer.max_epochs=2"),
    "a test": ("evaluate", "run=latest"),
    "a comparison": ("compare", "last=4"),
}
# Hydra's own sweeper passes each job `~KEY=null`, with which 1.4.0rc3 deletes only what is null.
BROKEN = {
    "a sweep without a setting": "error: Could not delete from config. The value of"
    f" '{DELETED}' is 5.0 and not None."
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment that has the newer Hydra, and all else from the tests'."""
    folder = tmp_path_factory.mktemp("newer")
    venv.create(folder, with_pip=True)
    interpreter = str(folder / "bin" / "python")
    install = ("-m", "pip", "--disable-pip-version-check", "--quiet", "install", NEWER)
    done = run(interpreter, *install)
    if done.returncode:
        pytest.skip(f"{NEWER} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    [site] = (folder / "lib").glob("*/site-packages")
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (site / "shared.pth").write_text("\n".join(shared) + "\n")
    return interpreter


def run(python: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the interpreter from the root of the project."""
    excluded = {ADDRESS, "PYTHONPATH", "PYTHONHOME"}  # the server of the tests has the older Hydra
    clean = {key: value for key, value in environment().items() if key not in excluded}
    return subprocess.run(
        [python, *words], cwd=ROOT, env=clean, capture_output=True, text=True, timeout=300
    )


def versions(python: str) -> str:
    """Return the versions of Hydra and OmegaConf that the commands ran on."""
    code = "import hydra, omegaconf; print(hydra.__version__, omegaconf.__version__)"
    return run(python, "-c", code).stdout.strip()


def problem(done: subprocess.CompletedProcess[str]) -> str | None:
    """Return what a command says that is wrong, or that will be: an error or a warning."""
    said = done.stderr.splitlines()
    found = [line for line in said if "warning" in line.lower() or line.startswith("error:")]
    return next(iter(found), f"exit status {done.returncode}" if done.returncode else None)


def test_the_commands_break_as_listed(python: str, tmp_path: Path) -> None:
    command = Command(tmp_path / "logs")
    problems = {}
    for name, (script, *arguments) in COMMANDS.items():
        done = run(python, "-m", f"src.{script}", *command.words(script, *arguments))
        if said := problem(done):
            problems[name] = said
    tried = versions(python)
    assert tried.startswith("1.4.")
    assert problems == BROKEN, tried
    records = [json.loads(p.read_text()) for p in command.log_dir.glob("train/line/*/run.json")]
    assert [record["status"] for record in records] == ["finished"] * 4
    assert all(record["versions"]["hydra-core"] == tried.split()[0] for record in records)


def test_what_hydra_builds_is_the_same(python: str) -> None:
    file = os.path.join("tests", "kindling", "config", "test_hydra_calls.py")
    done = run(python, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", file)
    assert done.returncode == 0, f"{versions(python)}\n{done.stdout}\n{done.stderr}"
