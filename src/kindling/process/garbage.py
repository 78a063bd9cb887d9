"""Exclude imported modules from garbage collection: they live until the process ends.

Importing torch and Lightning creates half a million objects. Python's garbage collector scans them
repeatedly during the import (0.6 of the 2.6 s of `import lightning.pytorch`), and once more when
the process ends, which takes another second.
"""

import atexit
import functools
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause garbage collection until `resume_gc`, and disable it for the end of the process."""
    gc.disable()
    atexit.register(_at_exit)
    try:
        yield
    finally:
        resume_gc()


def resume_gc() -> None:
    """Resume garbage collection after the imports, for objects created from now on."""
    _freeze_once()
    gc.enable()


def _at_exit() -> None:
    """Skip the last collection; triton's bindings (of CUDA builds) would report it as leaks."""
    if "triton._C.libtriton" in sys.modules:
        gc.unfreeze()
    else:
        gc.freeze()


@functools.cache
def _freeze_once() -> None:
    """Exempt existing objects from collection; those that a second build finds may be garbage."""
    gc.freeze()
