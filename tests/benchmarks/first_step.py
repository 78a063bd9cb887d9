"""A callback for the time from a process's start to its first optimizer step."""

import os
from typing import Any

from lightning.pytorch.callbacks import Callback


class LeaveAfterIt(Callback):
    """Exit after the first call that takes optimizer steps."""

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Exit at once, without cleaning up."""
        os._exit(0)
