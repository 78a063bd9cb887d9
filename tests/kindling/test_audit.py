"""The audit of CI fails for a known vulnerability, and for no network."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

KNOWN = {"name": "torch", "version": "1.0", "vulns": [{"id": "X-1", "fix_versions": ["1.1"]}]}
FINE = {"name": "numpy", "version": "2.0", "vulns": []}
UNKNOWN = {"name": "tqdm", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ([FINE, KNOWN], 1, "torch 1.0: X-1, fixed in 1.1\naudited 2 of 2 locked packages\n"),
        ([FINE, UNKNOWN], 0, "audited 1 of 2 locked packages\n"),
        ([UNKNOWN], 0, "known vulnerabilities: not audited (the service knows none of the 1"),
        (None, 0, "known vulnerabilities: not audited (no route to host)\n"),
    ],
)
def test_it_ends_as_what_is_known_says(
    answer: list[object] | None, status: int, said: str, tmp_path: Path
) -> None:
    tool = tmp_path / "pip-audit"
    text = "" if answer is None else json.dumps({"dependencies": answer})
    tool.write_text(f"#!/bin/sh\necho no route to host >&2\necho '{text}'\nexit 1\n")
    tool.chmod(0o755)
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (status, "")
    assert done.stdout.startswith(said)


def test_without_the_tool_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit"], env={"PATH": str(tmp_path)}, capture_output=True
    )
    assert done.returncode == 0
    assert b"not audited (neither pip-audit nor pipx is installed)" in done.stdout
