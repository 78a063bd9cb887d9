"""Checkpoints on disk: written whole or not at all, read as plain data and nothing else."""

import contextlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import nn

from src.kindling.config import untrusted
from src.kindling.files.atomic_write import name_atomically, write_atomically
from src.kindling.files.checkpoint_archive import check_archive, check_tensors
from src.kindling.layout import LAST, PREVIOUS, with_new_targets

Act = Callable[[], None]


class AtomicCheckpointIO(CheckpointIO):
    """Write a checkpoint to a temporary file next to its target, fsync, and rename it into place.

    Lightning's own writer stages files in the temporary directory: if it is killed, or the disk is
    full, it can leave half a file in place of the last good one. The previous last.ckpt is kept as
    previous.ckpt, in case the disk damages the new one.

    An fsync takes between 1 and 100 ms; `in_background` lets training continue meanwhile.
    """

    def __init__(self) -> None:
        self._provided: tuple[Path, dict[str, Any]] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._queued: list[Act] | None = None  # operations of the current block
        self._under_way: Future[None] | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Serialize in memory first, so that a failure leaves the old file untouched.

        Raises:
            OSError: the directory cannot be written to, or the disk is full; the old file stays.
        """
        target, content = Path(path), io.BytesIO()
        torch.save(checkpoint, content)

        def write() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content.getvalue(), _previous(target))

        self._do(write)

    def name_checkpoint(self, path: Any, source: Any) -> None:
        """Save as `path` what was saved as `source`, without writing it a second time.

        Raises:
            OSError: as `save_checkpoint`.
        """
        target = Path(path)
        self._do(lambda: name_atomically(target, Path(source), _previous(target)))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint, if it exists."""
        self._do(lambda: Path(path).unlink(missing_ok=True))

    @contextlib.contextmanager
    def in_background(self) -> Iterator[None]:
        """Queue the operations of this block on a background thread, in order.

        If one fails, the ones after it are skipped, and the next call raises its error.
        """
        self.finish()
        acts: list[Act] = []
        self._queued = acts
        try:
            yield
        finally:
            self._queued = None
        if acts:  # ranks other than 0 have none
            self._thread = self._thread or ThreadPoolExecutor(1, "checkpoints")
            self._under_way = self._thread.submit(_in_order, acts)

    def finish(self) -> None:
        """Wait until all operations are done.

        Raises:
            OSError: one of them failed.
        """
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def raise_failures(self) -> None:
        """Raise the failure of an operation, without waiting for those that still run.

        Raises:
            OSError: one of them failed.
        """
        if self._under_way is not None and self._under_way.done():
            self.finish()

    def teardown(self) -> None:
        """Wait, and end the thread; Lightning calls this at the end of a fit."""
        self.finish()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _do(self, act: Act) -> None:
        if self._queued is not None:
            self._queued.append(act)
        else:
            self.finish()
            act()

    def provide(self, path: Path, content: dict[str, Any]) -> None:
        """Provide the content of a checkpoint, already read, to the next `load_checkpoint`."""
        self._provided = path, content

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Load plain data, whatever `weights_only` says; see the function `load_checkpoint`."""
        provided, self._provided = self._provided, None
        if provided is not None and provided[0] == Path(path):
            return provided[1]
        return load_checkpoint(Path(path), map_location or "cpu")


def _previous(target: Path) -> Path | None:
    return target.with_name(PREVIOUS) if target.name == LAST else None


def _in_order(acts: list[Act]) -> None:
    for act in acts:
        act()


def check_whole(path: Path) -> None:
    """Refuse a checkpoint that is missing or damaged, by its checksums.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or not a checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    with _read_errors(path):
        check_archive(path)


@contextlib.contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch raises many exception types for an unreadable file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path} is not a checkpoint of plain data: {reason}") from error


def load_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return a checkpoint's content: dicts, lists, numbers, strings and tensors.

    Raises:
        FileNotFoundError: there is no such local file (URLs are not read).
        ValueError: the file is not a checkpoint, is damaged, holds more than plain data, or would
            take more memory than it has bytes.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    with _read_errors(path):
        check_archive(path)
        # First only the metadata, on the meta device, which allocates nothing; then the tensors.
        # weights_only is explicit: TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD then changes nothing.
        check_tensors(torch.load(path, map_location="meta", weights_only=True), path)
        content = torch.load(path, map_location=map_location, weights_only=True)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError(f"{path} is not a checkpoint: it has no state_dict")
    if "config" in content:
        content["config"] = with_new_targets(content["config"])
    whole: dict[str, Any] = content
    return whole


def read_with_hparams(kind: Any, path: str | Path, map_location: Any = "cpu") -> tuple[Any, Any]:
    """Return a local checkpoint's content, and its arguments for a module's or data's constructor.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a checkpoint, holds arguments that do not fit, or is an address.
    """
    if "://" in str(path):
        raise ValueError(f"{path}: only checkpoints on this machine are read")
    content = load_checkpoint(Path(path), map_location)
    held = content.get(kind.CHECKPOINT_HYPER_PARAMS_KEY)
    return content, untrusted.arguments(kind, held, Path(path))


def on_meta_device(build: Callable[[], nn.Module]) -> nn.Module | None:
    """Return a model on the meta device, which takes no memory.

    None if its constructor reads values (`.item()`), which the meta device does not have.
    """
    try:
        with torch.device("meta"):
            return build()
    except Exception:  # a user's constructor can fail in any way
        return None


def check_size(build: Callable[[], nn.Module], path: Path) -> None:
    """Refuse a model with more weights than its checkpoint has bytes, before it is allocated.

    A model that cannot be built on the meta device passes; building it reports its own errors.

    Raises:
        ValueError: naming both sizes.
    """
    if (model := on_meta_device(build)) is None:
        return
    count, size = sum(p.numel() for p in model.parameters()), path.stat().st_size
    if count > size:
        raise ValueError(f"{path} describes a model of {count:,} weights, and has {size:,} bytes")
