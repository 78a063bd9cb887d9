"""The Dockerfile and the devcontainer agree with the project; stubs run what installs."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.conftest import ROOT

if not (ROOT / "Dockerfile").exists():
    pytest.skip("this project has no Dockerfile", allow_module_level=True)
LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
STEPS = [(line.split()[0], line.split()[1:]) for line in LINES if line[:1].isupper()]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def values(word: str) -> list[list[str]]:
    """Return the words after each of the instructions of one name, `COPY` for example."""
    return [words for name, words in STEPS if name == word]


def test_the_default_python_is_one_that_the_project_supports() -> None:
    [[base]] = [words for words in values("ARG") if words[0].startswith("BASE=")]
    [version] = re.findall(r"^BASE=python:([\d.]+)-slim$", base)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert version in SpecifierSet(project["requires-python"])


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    copied = {name for _, *sources, _ in values("COPY") for name in sources} - {"."}
    assert ignore[1] == "*"
    assert {name.split("/")[0] for name in copied} <= allowed
    assert all((ROOT / name).is_file() for name in copied)
    assert all((ROOT / name).exists() for name in allowed)
    assert {"src", "conf", "tests", "pyproject.toml", "requirements.lock"} <= allowed
    assert not {".git", ".venv", "logs"} & allowed


def test_each_stage_ends_as_the_user_and_its_folder_is_the_users() -> None:
    stages = " ".join(name + ":" + words[0] for name, words in STEPS).split("FROM:")[1:]
    users = [re.findall(r"USER:(\w+)", stage) for stage in stages]
    assert [names[-1] for names in users if names] == ["user", "user"]
    assert values("FROM")[-1] == ["run"]  # a build without a target has no more than that stage
    [[folder]] = values("WORKDIR")
    assert folder.startswith("/home/user/")
    assert values("ENV") == [[f"PATH={folder}/.venv/bin:$PATH"]]


@pytest.mark.parametrize(
    ("device", "status", "calls"),
    [
        (
            "cpu",
            0,
            [
                "pip install --quiet --no-deps -c requirements.lock"
                " --index-url https://download.pytorch.org/whl/cpu torch",
                "make .venv/.base",
            ],
        ),
        ("cuda", 0, ["make .venv/.base"]),
        ("tpu", 2, []),
    ],
)
def test_the_device_chooses_the_build_of_torch(
    tmp_path: Path, device: str, status: int, calls: list[str]
) -> None:
    [install] = [" ".join(words) for words in values("RUN") if "$DEVICE" in str(words)]
    for name in ("pip", "python3", "make"):
        stub = tmp_path / name
        stub.write_text(f'#!/bin/sh\necho {name} "$@" >> "$CALLS"\n')
        stub.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", install],
        cwd=tmp_path,
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
            "DEVICE": device,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == status
    assert (tmp_path / "calls").read_text().splitlines() == ["python3 -m venv .venv", *calls]
    assert ("error: DEVICE=tpu: cpu or cuda" in done.stderr) == (status == 2)


def test_what_make_installs_in_an_image_has_the_versions_of_the_lock() -> None:
    targets = re.findall(r"make (\.venv/\S+)", " ".join(LINES))
    assert targets == [".venv/.base", ".venv/.dev"]
    assert all(f"\n{name.replace('.venv', '$(VENV)', 1)}:" in MAKEFILE for name in targets)
    [pip] = re.findall(r"^PIP = .*\n.*", MAKEFILE, re.MULTILINE)
    assert pip.endswith("-c requirements.lock")


def test_the_devcontainer_opens_what_the_dockerfile_builds() -> None:
    path = ROOT / ".devcontainer" / "devcontainer.json"
    container = json.loads(path.read_text(encoding="utf-8"))
    build, [[folder]] = container["build"], values("WORKDIR")
    assert (path.parent / build["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (path.parent / build["context"]).resolve() == ROOT
    assert [words[-1] for words in values("FROM") if "AS" in words] == ["run", build["target"]]
    assert build["args"].items() <= {tuple(words[0].split("=")) for words in values("ARG")}
    assert [container["remoteUser"]] in values("USER")
    assert container["workspaceFolder"] == folder
    assert f"target={folder}," in container["workspaceMount"]
    assert [f"target={folder}/.venv," in mount for mount in container["mounts"]] == [True]
    assert container["postCreateCommand"] == "make setup"
    assert "\nsetup:" in MAKEFILE
