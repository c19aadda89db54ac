"""Structured reports read back by highdicom and by dcmtk."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from factories import write_dicom_series, write_dicom_slice
from vismae.core.errors import DataError
from vismae.core.types import Modality
from vismae.files.discover import SourceFile, source_file
from vismae.inference.dicom_sr_writer import Finding, ReportFacts, write_dicom_sr

sr = pytest.importorskip("highdicom.sr")

FACTS = ReportFacts(("benign", "malignant"), "request", "0123456789abcdef", Modality.CT)


def series(folder: Path) -> tuple[SourceFile, ...]:
    paths = write_dicom_series(folder, np.ones((3, 8, 8), np.uint16), PatientName="Doe^Jane")
    return tuple(source_file(path) for path in paths)


def test_probabilities_and_references_come_back(tmp_path: Path) -> None:
    files = series(tmp_path / "ct")
    findings = [
        Finding(files[:2], np.array([0.25, 0.75]), ("malignant",)),
        Finding(files[2:], np.array([0.9, 0.1]), ()),
    ]
    write_dicom_sr(tmp_path / "sr.dcm", findings, FACTS)
    report = sr.srread(tmp_path / "sr.dcm")
    groups = report.content.get_image_measurement_groups()
    values = [[item.value for item in group.get_measurements()] for group in groups]
    assert values == [[0.25, 0.75], [0.9, 0.1]]
    names = [item.name.meaning for item in groups[0].get_measurements()]
    assert names == ["Probability of benign", "Probability of malignant"]
    found = [
        [item.value.meaning for item in group.get_qualitative_evaluations()] for group in groups
    ]
    assert found == [["malignant"], []]
    uids = [str(pydicom.dcmread(file.path).SOPInstanceUID) for file in files]
    referenced = [
        [str(image.referenced_sop_instance_uid) for image in group.source_images]
        for group in groups
    ]
    assert referenced == [uids[:2], uids[2:]]
    source = pydicom.dcmread(files[0].path)
    assert report.StudyInstanceUID == source.StudyInstanceUID
    assert report.PatientName == source.PatientName
    assert report.VerificationFlag == "UNVERIFIED"


def test_stacks_of_one_multi_frame_file_are_told_apart(tmp_path: Path) -> None:
    pixels = np.ones((4, 8, 8), np.uint16)
    path = write_dicom_slice(tmp_path / "stacks.dcm", pixels, NumberOfFrames=4)
    file = source_file(path)
    findings = [
        Finding((file,), np.array([0.25, 0.75]), ("malignant",), ((1, 3),)),
        Finding((file,), np.array([0.9, 0.1]), ("benign",), ((2, 4),)),
    ]
    write_dicom_sr(tmp_path / "sr.dcm", findings, FACTS)
    groups = sr.srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    frames = [list(group.source_images[0].referenced_frame_numbers) for group in groups]
    assert frames == [[1, 3], [2, 4]]
    assert len({str(group.tracking_uid) for group in groups}) == 2


def test_dcmtk_takes_it_for_a_valid_report(tmp_path: Path) -> None:
    if shutil.which("dsrdump") is None:
        pytest.skip("needs dcmtk")
    finding = Finding(series(tmp_path / "ct"), np.array([0.25, 0.75]), ("malignant",))
    write_dicom_sr(tmp_path / "sr.dcm", [finding], FACTS)
    done = subprocess.run(
        ["dsrdump", tmp_path / "sr.dcm"], capture_output=True, text=True, check=True, timeout=60
    )
    assert 'NUM:(,,"Probability of malignant")="0.75" (1,UCUM,"no units")' in done.stdout
    assert done.stderr == ""


def test_the_same_request_gives_the_same_report(tmp_path: Path) -> None:
    finding = Finding(series(tmp_path / "ct"), np.array([0.25, 0.75]), ("malignant",))
    uids = []
    for name in ("a", "b"):
        write_dicom_sr(tmp_path / f"{name}.dcm", [finding], FACTS)
        uids.append(pydicom.dcmread(tmp_path / f"{name}.dcm").SOPInstanceUID)
    assert uids[0] == uids[1]


def test_a_header_without_a_study_is_refused(tmp_path: Path) -> None:
    path = write_dicom_slice(tmp_path / "x.dcm", np.ones((4, 4), np.uint8), StudyInstanceUID=None)
    finding = Finding((source_file(path),), np.array([0.5, 0.5]), ())
    with pytest.raises(DataError, match=r"StudyInstanceUID.*for classes leave --format out"):
        write_dicom_sr(tmp_path / "sr.dcm", [finding], FACTS)
    assert not (tmp_path / "sr.dcm").exists()


def test_classes_in_every_script_are_carried(tmp_path: Path) -> None:
    facts = ReportFacts(("肝臓", "a\\b"), "request", "0123456789abcdef", Modality.CT)
    finding = Finding(series(tmp_path / "ct"), np.array([0.25, 0.75]), ("a\\b",))
    write_dicom_sr(tmp_path / "sr.dcm", [finding], facts)
    [group] = sr.srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    names = [item.name.meaning for item in group.get_measurements()]
    assert names == ["Probability of 肝臓", "Probability of a/b"]
    assert [item.value.meaning for item in group.get_qualitative_evaluations()] == ["a/b"]
