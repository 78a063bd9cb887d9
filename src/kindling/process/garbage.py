"""What is imported stays until the process ends: Python need not look for garbage in it.

Importing torch and Lightning makes half a million objects. Python's garbage collector looks through
them again and again while they come, which takes a quarter of the time of `import
lightning.pytorch` (0.6 of 2.6 s), and at the process's end once more, which takes another second.
"""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Look for no garbage until `settled` is called, and for none when the process ends."""
    gc.disable()
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        gc.enable()


def resume_gc() -> None:
    """Say that the imports are done: look for garbage again, in what is made from now on."""
    if not gc.get_freeze_count():  # once: what a second build finds may be garbage
        gc.freeze()
    gc.enable()
