"""Headers as archives hold them, which highdicom would not repeat as they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from factories import write_dicom_series
from vismae.core.types import Modality
from vismae.files.discover import source_file
from vismae.inference.dicom_seg_writer import SegmentationFacts, write_dicom_seg
from vismae.inference.dicom_sr_writer import Finding, ReportFacts, write_dicom_sr

pytest.importorskip("highdicom")


@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")
@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ({"PatientSex": "N/A"}, {"PatientSex": ""}),
        ({"PatientSex": "f"}, {"PatientSex": "F"}),
        ({"PatientSex": "O"}, {"PatientSex": "O"}),
        ({"PatientBirthDate": "1990/01/"}, {"PatientBirthDate": ""}),
        ({"PatientBirthDate": "00000000"}, {"PatientBirthDate": ""}),
        ({"PatientBirthDate": "1990.02.01"}, {"PatientBirthDate": "19900201"}),
        ({"StudyDate": "20240230"}, {"StudyDate": ""}),
        ({"StudyTime": "noon"}, {"StudyTime": ""}),
        ({"StudyTime": "140438.25"}, {"StudyTime": "140438.25"}),
        ({"Modality": None}, {}),
        ({"Modality": "Ct scan"}, {}),
        ({"SeriesNumber": -5000}, {"SeriesNumber": 1}),
    ],
)
def test_odd_headers_have_segmentation_and_report(
    header: dict[str, Any], kept: dict[str, str], tmp_path: Path
) -> None:
    pixels = np.ones((3, 8, 8), np.uint16)
    options: dict[str, Any] = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", **header}
    with pydicom.config.disable_value_validation():
        paths = write_dicom_series(
            tmp_path / "ct", pixels, FrameOfReferenceUID="1.2.3", SliceThickness=5.0, **options
        )
    files = tuple(source_file(path) for path in paths)
    labels = np.zeros((3, 8, 8), np.uint8)
    labels[1, 2:5, 2:5] = 1
    write_dicom_seg(
        tmp_path / "seg.dcm", files, labels, SegmentationFacts(("background", "a"), "b", "c")
    )
    finding = Finding(files, np.array([0.25, 0.75]), ("b",))
    facts = ReportFacts(("a", "b"), "request", "0123456789abcdef", Modality.CT)
    write_dicom_sr(tmp_path / "sr.dcm", [finding], facts)
    for name in ("seg", "sr"):
        made = pydicom.dcmread(tmp_path / f"{name}.dcm")
        assert {keyword: made.get(keyword) for keyword in kept} == kept
        assert made.StudyInstanceUID == pydicom.dcmread(paths[0]).StudyInstanceUID
