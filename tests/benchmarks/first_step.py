"""For the time from a process's start to its first optimizer step."""

import os
from typing import Any

from lightning.pytorch.callbacks import Callback


class LeaveAfterIt(Callback):
    """End the process when the first call that takes steps has come back."""

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Leave at once, without cleaning up."""
        os._exit(0)
