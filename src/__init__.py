"""Kindling: three small systems that train, and the place where yours goes."""

import os
import sys
from itertools import pairwise
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - said here because pip is not the only way in
    sys.exit("error: Kindling needs Python 3.11 or newer, this is " + sys.version.split()[0])

# torch then asks Linux for pages of 2 MB, not of 4 kB, for large tensors on the CPU: a million rows
# are gathered in a quarter less time, and steps on large batches take less. It looks when it makes
# its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

# `python -m src.train` and `kindling-train` take signals from here on: seconds of imports follow.
# Importing src elsewhere, in a notebook for example, changes neither signals nor streams.
if Path(sys.argv[0]).name.startswith("kindling-") or any(
    option == "-m" and name.startswith("src.") for option, name in pairwise(sys.orig_argv)
):
    from src.kindling.process import requeue, signals, streams

    streams.reopen_closed()
    streams.escape_unencodable()
    signals.install_handlers(last=requeue.requeue)
