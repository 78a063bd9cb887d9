"""An archive that torch has not written is refused before torch reads it."""

import zipfile

import pytest
import torch

from src.kindling.files.checkpoint import load_checkpoint, read_with_hparams
from src.kindling.files.checkpoint_archive import FOLDER, check_archive


@pytest.fixture
def checkpoint(tmp_path):
    """A small checkpoint as torch writes it."""
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"weight": torch.ones(3)}}, path)
    return path


def test_what_torch_has_written_is_accepted(checkpoint):
    check_archive(checkpoint)
    assert load_checkpoint(checkpoint)["state_dict"]["weight"].tolist() == [1, 1, 1]


def test_a_member_marked_as_a_folder_is_refused(checkpoint):
    with zipfile.ZipFile(checkpoint) as archive:
        [name] = [n for n in archive.namelist() if n.endswith("data/0")]
    whole = bytearray(checkpoint.read_bytes())
    entry = whole.rindex(name.encode()) - 46  # of the directory at the archive's end
    assert whole[entry : entry + 4] == b"PK\x01\x02"
    whole[entry + 38] |= FOLDER
    checkpoint.write_bytes(whole)
    with pytest.raises(ValueError, match="is a folder"):
        check_archive(checkpoint)


def test_an_archive_with_a_comment_is_refused(checkpoint):
    whole = bytearray(checkpoint.read_bytes())
    whole[-2:] = (4).to_bytes(2, "little")
    checkpoint.write_bytes(bytes(whole) + b"text")
    with pytest.raises(ValueError):  # noqa: PT011 - whichever check comes first
        check_archive(checkpoint)
    checkpoint.write_bytes(whole)  # announced, and not there
    with pytest.raises(ValueError, match="as torch ends a file"):
        check_archive(checkpoint)
    whole[-2:] = (0).to_bytes(2, "little")
    checkpoint.write_bytes(whole)
    check_archive(checkpoint)


def test_an_address_is_refused_as_one(tmp_path):
    with pytest.raises(ValueError, match="only checkpoints on this machine are read"):
        read_with_hparams(torch.nn.Linear, "s3://bucket/last.ckpt")
