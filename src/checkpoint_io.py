"""Checkpoints on disk: written whole or not at all, read as plain data and nothing else."""

import contextlib
import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import nn

from src import trust
from src.atomic_write import name_atomically, write_atomically

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
Act = Callable[[], None]


class AtomicCheckpointIO(CheckpointIO):
    """Write a checkpoint beside its target, force it to disk, and rename it into place.

    Lightning's own writer stages in the temporary directory: killed in the middle, or on a full
    disk, it can leave half a file where the last good one was. The last.ckpt before the newest
    stays as previous.ckpt, for a disk that damages what it was given.

    To force a file to disk takes a millisecond, or a hundred: a run need not wait for it (`aside`).
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._aside: list[Act] | None = None  # what it will be given
        self._under_way: Future[None] | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Serialise in memory first: what cannot be serialised then costs no file.

        Raises:
            OSError: the directory cannot be written to, or the disk is full; the old file stays.
        """
        target, content = Path(path), io.BytesIO()
        torch.save(checkpoint, content)

        def write() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content.getbuffer(), _previous(target))

        self._do(write)

    def name_checkpoint(self, path: Any, source: Any) -> None:
        """Save as `path` what was saved as `source`, without writing it a second time.

        Raises:
            OSError: as `save_checkpoint`.
        """
        target = Path(path)
        self._do(lambda: name_atomically(target, Path(source), _previous(target)))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint; one that is gone already is no error."""
        self._do(lambda: Path(path).unlink(missing_ok=True))

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Let a thread do what is asked for in this block, in its order, while training goes on.

        One that fails leaves out those after it. The next call here raises what it has raised.
        """
        self.finish()
        acts: list[Act] = []
        self._aside = acts
        try:
            yield
        finally:
            self._aside = None
        if acts:  # ranks other than 0 have none
            self._thread = self._thread or ThreadPoolExecutor(1, "checkpoints")
            self._under_way = self._thread.submit(_in_order, acts)

    def finish(self) -> None:
        """Wait until what was asked for is done.

        Raises:
            OSError: it could not be.
        """
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def look(self) -> None:
        """Raise what has failed meanwhile, waiting for nothing.

        Raises:
            OSError: what was asked for could not be done.
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
        if self._aside is not None:
            self._aside.append(act)
        else:
            self.finish()
            act()

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Load plain data; the caller has no say in `weights_only`. See `load`."""
        return load(Path(path), map_location or "cpu")


def _previous(target: Path) -> Path | None:
    return target.with_name(PREVIOUS) if target.name == LAST else None


def _in_order(acts: list[Act]) -> None:
    for act in acts:
        act()


def load(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return a checkpoint's content: dicts, lists, numbers, strings and tensors.

    Raises:
        FileNotFoundError: there is no such local file (an address is none).
        ValueError: the file is no checkpoint, is damaged, holds more than plain data, or would
            take more memory than it has bytes.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        _check_archive(path)
        # First what it says of its tensors, on a device that allocates none; then the tensors.
        # weights_only is said outright: TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD has nothing to change.
        _check_tensors(torch.load(path, map_location="meta", weights_only=True), path)
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that it cannot read
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path} is no checkpoint of plain data: {reason}") from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError(f"{path} is no checkpoint: it has no state_dict")
    whole: dict[str, Any] = content
    return whole


def described(kind: Any, path: str | Path, map_location: Any = "cpu") -> tuple[Any, Any]:
    """Return a local checkpoint's content, and its arguments for a module's or data's constructor.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, holds arguments that do not fit, or is an address.
    """
    if "://" in str(path):
        raise ValueError(f"{path}: only checkpoints on this machine are read")
    content = load(Path(path), map_location)
    held = content.get(kind.CHECKPOINT_HYPER_PARAMS_KEY)
    return content, trust.arguments(kind, held, Path(path))


def outline(build: Callable[[], nn.Module]) -> nn.Module | None:
    """Return a model without the numbers in it, which takes no memory.

    None where its constructor computes with numbers (`.item()`) and cannot do without them.
    """
    try:
        with torch.device("meta"):
            return build()
    except Exception:  # a user's constructor can fail in any way
        return None


def check_weights(build: Callable[[], nn.Module], path: Path) -> None:
    """Refuse a model with more weights than its checkpoint has bytes, before it is allocated.

    A model that has no outline is let through; what is wrong with it is said when it is built.

    Raises:
        ValueError: saying both.
    """
    if (model := outline(build)) is None:
        return
    count, size = sum(p.numel() for p in model.parameters()), path.stat().st_size
    if count > size:
        raise ValueError(f"{path} describes a model of {count:,} weights, and has {size:,} bytes")


# The end of a zip archive as torch writes it: a 64-bit record (signature, size and place of the
# directory), its locator (signature, place of the record), a 32-bit record (signature, comment).
TAIL = struct.Struct("<4s36xQQ4s4xQ4x4s16xH")
FOLDER = 0x10  # the attribute of a folder, as MS-DOS had it
MOST = 10**6  # dicts, lists, numbers and strings in a checkpoint


def _check_archive(path: Path) -> None:
    """Refuse an archive that torch has not written, or that is not as torch has written it.

    Such is one that grows when it is read, and one whose bytes a disk has changed.

    Raises:
        ValueError: saying what torch would not have done.
    """
    whole = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(whole - TAIL.size, 0))
        tail = file.read()
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check_members(members, whole)
        if not _is_plain_end(tail, whole):
            raise ValueError("it does not end as torch ends a file")
        # torch writes the CRC-32 of each member, and never looks at it.
        if damaged := archive.testzip():
            raise ValueError(f"its member {damaged!r} is damaged (CRC-32)")


def _check_members(members: list[zipfile.ZipInfo], whole: int) -> None:
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise ValueError(f"its member {member.filename!r} is compressed")
        if member.external_attr & FOLDER:  # torch would read zeros
            raise ValueError(f"its member {member.filename!r} is a folder")
        name = PurePosixPath(member.filename)
        if name.is_absolute() or ".." in name.parts:
            raise ValueError(f"its member {member.filename!r} lies outside of it")
    if sum(member.file_size for member in members) > whole:
        raise ValueError("its members overlap")


def _is_plain_end(tail: bytes, whole: int) -> bool:
    """Say whether a zip's directory is where every reader looks, so that torch reads what we did.

    Zip has several ways to say where it is, and readers that trust different ones.
    """
    if len(tail) < TAIL.size:
        return False
    record, size, place, locator, located, end, comment = TAIL.unpack(tail)
    signed = (record, locator, end) == (b"PK\x06\x06", b"PK\x06\x07", b"PK\x05\x06")
    return signed and comment == 0 and place + size == located == whole - TAIL.size


def _check_tensors(content: Any, path: Path) -> None:
    """Refuse a tensor larger than the file: one that repeats its numbers, is sparse, or has none.

    Raises:
        ValueError: saying its shape.
    """
    size = path.stat().st_size
    for tensor in _tensors(content):
        stored = tensor.layout is torch.strided and tensor.untyped_storage().nbytes() <= size
        if not stored or tensor.numel() * tensor.element_size() > size:
            raise ValueError(f"a tensor of {list(tensor.shape)} is more than its {size:,} bytes")


def _tensors(content: Any) -> Iterator[torch.Tensor]:
    left, count = [content], 0
    while left:
        node, count = left.pop(), count + 1
        if count > MOST:  # a short file can hold a list of lists of the same list, and so on
            raise ValueError("it contains itself")
        if isinstance(node, torch.Tensor):
            yield node
        elif isinstance(node, dict):
            left += [*node.keys(), *node.values()]
        elif isinstance(node, list | tuple | set):
            left += node
