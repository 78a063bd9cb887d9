"""Give a ModelCheckpoint of the user's own a folder in the run directory."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, ModelCheckpoint


class OwnCheckpoints(Callback):
    """Let a ModelCheckpoint without a `dirpath` write to `checkpoints/ModelCheckpoint/`.

    Lightning would choose the first logger's folder, or the one in which last.ckpt and best.ckpt
    are those of `Checkpointing`. Installed in every run.
    """

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Set the folder before a ModelCheckpoint does: Lightning calls those last."""
        folder = Path(trainer.default_root_dir, "checkpoints", "ModelCheckpoint").resolve()
        for callback in trainer.callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(folder)
