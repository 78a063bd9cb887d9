"""Give a ModelCheckpoint of the user's own a folder in the run directory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, ModelCheckpoint


class OwnCheckpoints(Callback):
    """Let a ModelCheckpoint without a `dirpath` write to `checkpoints/ModelCheckpoint/`.

    Lightning would choose the first logger's folder, or the one in which last.ckpt and best.ckpt
    are those of `Checkpointing`. Installed in every run.
    """

    folder = ""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Set the folder before a ModelCheckpoint does: Lightning calls those last."""
        path = Path(trainer.default_root_dir, "checkpoints", "ModelCheckpoint")
        self.folder = str(path.resolve())
        for callback in _of(trainer):
            if callback.dirpath is None:
                callback.dirpath = self.folder

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Find the best files so far in the folder of this run, which may be moved or a copy.

        A ModelCheckpoint remembers them by their paths, and forgets them in another folder.
        """
        states = checkpoint.get("callbacks", {})
        for callback in _of(trainer):
            state = states.get(callback.state_key)
            if state and callback.dirpath == self.folder:
                states[callback.state_key] = _moved(state, state["dirpath"], self.folder)


def _of(trainer: Any) -> Iterator[Any]:
    return (c for c in trainer.callbacks if isinstance(c, ModelCheckpoint))


def _moved(value: Any, old: str, new: str) -> Any:
    """Return nested values with the paths in one folder replaced by those in another."""
    if isinstance(value, dict):
        return {_moved(key, old, new): _moved(part, old, new) for key, part in value.items()}
    is_inside = isinstance(value, str) and Path(value).is_relative_to(old)
    return str(Path(new, Path(value).relative_to(old))) if is_inside else value
