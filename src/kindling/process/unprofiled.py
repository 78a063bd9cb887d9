"""The profiler of a run that is not profiled."""

from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch.profilers import PassThroughProfiler


class Unprofiled(PassThroughProfiler):
    """A PassThroughProfiler that costs nothing.

    Lightning enters a profiler's context for each hook of each callback, about 90 times per step,
    and its own context is a generator even when nothing is profiled.
    """

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Return a context that does nothing."""
        return self._nothing
