"""Kindling: three small systems that train, and the place where yours goes."""

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - said here because pip is not the only way in
    sys.exit("error: Kindling needs Python 3.11 or newer, this is " + sys.version.split()[0])

# A command, found by `python -m` or started as a script, takes signals from here on: what follows
# are seconds of imports. Whoever imports src elsewhere keeps the signals.
if sys.argv[:1] == ["-m"] or Path(sys.argv[0]).name.startswith("kindling-"):
    from src import stopping

    stopping.listen()
