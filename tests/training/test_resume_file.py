"""Resume points are plain files that run nothing when they are read."""

import pickle
from pathlib import Path

import pytest
import torch

from vismae.training.resume_file import ResumeFile


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "made" / "last.ckpt"
    ResumeFile().save_checkpoint({"step": 3, "state": {"weight": torch.arange(4)}}, path)
    assert [each.name for each in path.parent.iterdir()] == ["last.ckpt"]
    found = ResumeFile().load_checkpoint(path)
    assert found["step"] == 3
    assert torch.equal(found["state"]["weight"], torch.arange(4))
    ResumeFile().remove_checkpoint(path)
    ResumeFile().remove_checkpoint(path)
    assert not path.exists()


def test_objects_are_not_made_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"step": Path("anything")}, path)
    with pytest.raises(pickle.UnpicklingError):
        ResumeFile().load_checkpoint(path)
