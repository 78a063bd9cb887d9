"""Each optional room deleted in a copy of the project: the whole remaining suite passes there.

`make test-all` imports, collects and trains in such copies; this takes minutes per room.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.kindling.test_optional_rooms import ROOMS, copy_without, run


@pytest.mark.parametrize("room", ROOMS)
def soak_the_rest_of_the_suite_passes(room: str) -> None:
    words = ["-m", "pytest", "--deselect", "tests/kindling/test_optional_rooms.py"]
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # some tests read the project as another user
        run([sys.executable, *words], copy_without(room, Path(folder)), seconds=3600)
