import copy
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from factories import write_dicom_series
from vismae.files.discover import source_file
from vismae.inference import dicom_seg_writer
from vismae.inference.dicom_frame_groups import encode_frame_groups
from vismae.inference.dicom_seg_writer import SegmentationFacts, write_dicom_seg

pytest.importorskip("highdicom.seg")

PLACED = {"FrameOfReferenceUID": "1.2.3.4"}


@pytest.mark.parametrize("characters", [None, "ISO_IR 192", ["", "ISO 2022 IR 87"]])
@pytest.mark.parametrize("facts", [PLACED, {}])
def test_the_file_is_to_the_byte_what_pydicom_writes_element_by_element(
    characters: Any, facts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Dataset] = []

    def first_as_it_is(made: Dataset) -> None:
        copy.deepcopy(made).save_as(tmp_path / "plain.dcm", enforce_file_format=True)
        encode_frame_groups(made)
        written.append(made)

    monkeypatch.setattr(dicom_seg_writer, "encode_frame_groups", first_as_it_is)
    volume = np.arange(4 * 12 * 10, dtype=np.int16).reshape(4, 12, 10)
    paths = write_dicom_series(
        tmp_path / "ct", volume, SpecificCharacterSet=characters, PatientName="Doe^Jane", **facts
    )
    labels = np.zeros((4, 12, 10), np.uint8)
    labels[:, 2:5, 2:5], labels[1:, 6:9, 6:9] = 1, 2
    words = SegmentationFacts(("background", "left", "肝臓" if characters else "right"), "a", "b")
    write_dicom_seg(tmp_path / "seg.dcm", [source_file(path) for path in paths], labels, words)
    assert len(written) == 1
    assert (tmp_path / "seg.dcm").read_bytes() == (tmp_path / "plain.dcm").read_bytes()
    frames = pydicom.dcmread(tmp_path / "seg.dcm").PerFrameFunctionalGroupsSequence
    assert len(frames) == 7
