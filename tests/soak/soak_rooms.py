"""Each optional room deleted in a copy of the project: the whole remaining suite passes there.

`make test-all` imports, collects and trains in such copies; this takes minutes per room.
"""

import sys
from pathlib import Path

import pytest

from tests.kindling.test_optional_rooms import ROOMS, copy_without, run


@pytest.mark.parametrize("room", ROOMS)
def soak_the_rest_of_the_suite_passes(room: str, tmp_path: Path) -> None:
    copy = copy_without(room, tmp_path)
    words = ["-m", "pytest", "--deselect", "tests/kindling/test_optional_rooms.py"]
    run([sys.executable, *words], copy, seconds=3600)
