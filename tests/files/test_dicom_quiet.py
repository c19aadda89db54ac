"""Header values must not reach the terminal."""

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from factories import write_dicom_slice
from vismae.core.errors import UnreadableFileError
from vismae.files.dicom import read_dicom
from vismae.files.dicom_quiet import quiet_pydicom
from vismae.files.discover import SourceFile


def file_with_odd_values(path: Path) -> Path:
    """Write values that pydicom warns of, and quotes."""
    write_dicom_slice(path, np.zeros((4, 4), np.int16), NumberOfFrames=7)
    raw = path.read_bytes()
    # Explicit VR little endian: NumberOfFrames, IS, 2 bytes.
    path.write_bytes(raw.replace(b"\x28\x00\x08\x00IS\x02\x007 ", b"\x28\x00\x08\x00IS\x02\x00JD"))
    return path


def test_odd_values_are_neither_warned_of_nor_quoted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = file_with_odd_values(tmp_path / "odd.dcm")
    with pytest.warns(UserWarning, match="JD"):
        _ = dcmread(path).NumberOfFrames  # what pydicom does by itself
    caplog.clear()

    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        with pytest.raises(UnreadableFileError) as caught:
            read_dicom([SourceFile(path, None, "dicom")])

    assert warned == []
    assert "JD" not in caplog.text
    assert "JD" not in str(caught.value)


def test_the_logger_is_left_as_it_was() -> None:
    logger = logging.getLogger("pydicom")
    before = logger.level

    def fail() -> None:
        with quiet_pydicom():
            assert not logger.isEnabledFor(logging.ERROR)
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert logger.level == before
