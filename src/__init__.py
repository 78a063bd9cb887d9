"""Kindling: three small systems that train, and the place where yours goes."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - said here because pip is not the only way in
    sys.exit("error: Kindling needs Python 3.11 or newer, this is " + sys.version.split()[0])
