"""The console scripts start the commands, and TAB completes in each shell what is typed to them."""

import os
import re
import select
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment, has_command
from tests.kindling.conftest import copy_project

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME, SCRIPTS = PROJECT["name"], PROJECT["scripts"]  # NAME-train, NAME-evaluate, ...
PATIENCE = 60  # seconds; a completion takes half a one


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the console scripts of pyproject.toml in bin/, written as pip writes them."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    (folder / "bin").mkdir()
    for name, target in SCRIPTS.items():
        module, function = target.split(":")
        script = folder / "bin" / name
        script.write_text(
            f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\n"
            f"if __name__ == '__main__':\n    sys.exit({function}())\n"
        )
        script.chmod(0o755)
    return folder


def surroundings(project: Path, **more: str) -> dict[str, str]:
    path = f"{project / 'bin'}:{os.environ['PATH']}"
    return environment(PATH=path, PYTHONPATH=str(project), **more)


def started(project: Path, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=folder,
        env=surroundings(project),
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_there_is_a_script_for_each_command_that_has_a_configuration() -> None:
    commands = {path.stem for path in (ROOT / "conf").glob("*.yaml")} - {"command"}
    assert commands >= {"train", "evaluate", "predict"}
    assert SCRIPTS.items() >= {f"{NAME}-{name}": f"src.{name}:main" for name in commands}.items()


@pytest.mark.parametrize(
    "name", [name for name in SCRIPTS if has_command(name.removeprefix(f"{NAME}-"))]
)
def test_a_script_composes_its_configuration_in_any_folder(
    name: str, project: Path, tmp_path: Path
) -> None:
    done = started(project, name, "--cfg", "job", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "log_dir: logs\n" in done.stdout


def test_a_script_says_what_is_wrong_in_one_line(project: Path, tmp_path: Path) -> None:
    done = started(project, f"{NAME}-train", "model=quadrant", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "error: model=quadrant: there is no such option: did you mean 'quadrants'?\n"
    )


def test_a_script_trains(project: Path, tmp_path: Path) -> None:
    done = started(project, f"{NAME}-train", "model=line", "debug=fast", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


class Terminal:
    """An interactive shell in a terminal of its own, in which keys are pressed."""

    def __init__(self, words: list[str], project: Path, folder: Path) -> None:
        self.keys, other = os.openpty()
        self.said = ""
        self.shell = subprocess.Popen(
            words,
            stdin=other,
            stdout=other,
            stderr=other,
            cwd=folder,
            env=surroundings(project, TERM="dumb", PS1="> "),
            start_new_session=True,
        )
        os.close(other)

    def press(self, keys: str, until: str) -> None:
        """Press keys, and wait until something new is to be read."""
        seen, end = len(self.said), time.monotonic() + PATIENCE
        os.write(self.keys, keys.encode())
        while until not in self.said[seen:]:
            ready, _, _ = select.select([self.keys], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{until!r} did not come after {keys!r}:\n{self.said}"
            self.said += re.sub("[\r\a]", "", os.read(self.keys, 4096).decode())

    def close(self) -> None:
        self.shell.kill()
        self.shell.wait()
        os.close(self.keys)


@pytest.fixture
def terminal(project: Path, tmp_path: Path):
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    opened = Terminal(["bash", "--norc", "--noprofile", "-i"], project, tmp_path)
    yield opened
    opened.close()


COMPLETIONS = [
    ("train model=te", "model=teacher"),
    ("train trainer.max_ep", "trainer.max_epochs="),
    ("train optimizer=muon optimizer.mom", "optimizer.momentum="),
    ("train model=quadrant trainer.max_epo", "> "),  # what is wrong is left as it is
    ("predict outp", "output="),
    ("report outp", "output="),
    ("compare logs/train metr", "metric="),
]


@pytest.mark.parametrize(
    ("typed", "completed"),
    [case for case in COMPLETIONS if has_command(case[0].split()[0])],
)
def test_tab_completes_what_is_typed(typed: str, completed: str, terminal: Terminal) -> None:
    typed = f"{NAME}-{typed}"
    terminal.press(
        f'eval "$({typed.split()[0]} -sc install=bash)"; echo installed $?\n', "installed 0"
    )
    if completed == "> ":
        terminal.press(f"{typed}\t", typed)
        terminal.press("\x15echo unharmed $?\n", "unharmed 0")  # Ctrl-U clears the line
        assert "rror" not in terminal.said
    else:
        terminal.press(f"{typed}\t", completed)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_as_bash_does(project: Path, tmp_path: Path) -> None:
    opened = Terminal(["zsh", "-f", "-i"], project, tmp_path)
    try:
        opened.press("autoload -Uz compinit bashcompinit && compinit -u && bashcompinit\n", "> ")
        opened.press(f'eval "$({NAME}-train -sc install=bash)"; echo installed $?\n', "installed 0")
        opened.press(f"{NAME}-train optimizer=muon optimizer.mom\t", "optimizer.momentum=")
    finally:
        opened.close()


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(project: Path, tmp_path: Path) -> None:
    line = f"{NAME}-train optimizer=muon optimizer.mom"
    asked = f"{NAME}-train -sc install=fish | source; complete -C '{line}'"
    done = started(project, "fish", "--no-config", "-c", asked, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "optimizer.momentum=\n", "")
