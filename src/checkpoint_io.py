"""Checkpoints on disk: written whole or not at all, read as plain data and nothing else."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from src.atomic_write import write_atomically


class AtomicCheckpointIO(CheckpointIO):
    """Write a checkpoint beside its target, force it to disk, and rename it into place.

    Lightning's own writer stages in the temporary directory: killed in the middle, or on a full
    disk, it can leave half a file where the last good one was.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Serialise in memory first: what cannot be serialised then costs no file.

        Raises:
            OSError: the directory cannot be written to, or the disk is full; the old file stays.
        """
        target = Path(path)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content.getbuffer())

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Load plain data; the caller has no say in `weights_only`. See `load`."""
        return load(Path(path), map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint; one that is gone already is no error."""
        Path(path).unlink(missing_ok=True)


def load(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return a checkpoint's content: dicts, lists, numbers, strings and tensors.

    Raises:
        FileNotFoundError: there is no such local file (an address is none).
        ValueError: the file is no checkpoint, is damaged, or holds more than plain data.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        # Said outright, so that TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD has nothing to change.
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that it cannot read
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path} is no checkpoint of plain data: {reason}") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise ValueError(f"{path} is no checkpoint: it has no state_dict")
    return content
