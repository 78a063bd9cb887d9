"""Check that a file is a checkpoint as torch writes it, before torch reads it."""

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import torch

# The end of a zip archive as torch writes it: a 64-bit record (signature, size and place of the
# directory), its locator (signature, place of the record), a 32-bit record (signature, comment).
TAIL = struct.Struct("<4s36xQQ4s4xQ4x4s16xH")
FOLDER = 0x10  # MS-DOS's attribute of a folder
MOST = 10**6  # dicts, lists, numbers and strings in a checkpoint


def check_archive(path: Path) -> None:
    """Refuse an archive that torch has not written, or that has changed since.

    That excludes archives that expand when read, and bytes that a disk has damaged.

    Raises:
        ValueError: naming the first thing that torch would not write.
    """
    whole = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(whole - TAIL.size, 0))
        tail = file.read()
    if not _is_plain_end(tail, whole):
        raise ValueError("it does not end as torch ends a file")
    with zipfile.ZipFile(path) as archive:
        _check_members(archive.infolist(), whole)
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
            raise ValueError(f"its member {member.filename!r} lies outside it")
    if sum(member.file_size for member in members) > whole:
        raise ValueError("its members overlap")


def _is_plain_end(tail: bytes, whole: int) -> bool:
    """Return whether every zip reader finds the same directory, the one that was checked.

    A zip can name several places for it, and readers trust different ones.
    """
    if len(tail) < TAIL.size:
        return False
    record, size, place, locator, located, end, comment = TAIL.unpack(tail)
    signed = (record, locator, end) == (b"PK\x06\x06", b"PK\x06\x07", b"PK\x05\x06")
    return signed and comment == 0 and place + size == located == whole - TAIL.size


def check_tensors(content: Any, path: Path) -> None:
    """Refuse a tensor larger than its file: expanded, sparse, or without storage.

    Raises:
        ValueError: naming its shape.
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
        if count > MOST:  # a short file can hold nested lists that all refer to one list
            raise ValueError("it contains itself")
        if isinstance(node, torch.Tensor):
            yield node
        elif isinstance(node, dict):
            left += [*node.keys(), *node.values()]
        elif isinstance(node, list | tuple | set):
            left += node
