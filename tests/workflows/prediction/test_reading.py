"""Inputs that are read, and those that are refused by name."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vismae.core.errors import UnreadableFileError
from vismae.workflows.prediction.inputs import find_inputs
from vismae.workflows.prediction.reading import read_input


def test_numbers_too_large_for_any_store_are_refused_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "ids.nii.gz"
    nib.save(nib.Nifti1Image(np.full((4, 4, 2), 4e9, np.uint32), np.eye(4)), path)
    [item], _ = find_inputs([path])
    with pytest.raises(UnreadableFileError, match=r"ids\.nii\.gz: Pixels of type uint32") as found:
        read_input(item, (), None, frozenset())
    assert found.value.reason == "unsupported-pixels"
