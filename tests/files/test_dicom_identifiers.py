from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian

from factories import write_dicom_series, write_dicom_slice
from factories_labels import write_labelled_series, write_rtstruct
from vismae.files.dicom import read_dicom
from vismae.files.dicom_identifiers import group_series, read_identifiers
from vismae.files.discover import SourceFile


def deflate(path: Path, at_least_bytes: int) -> SourceFile:
    """Write a DICOM file anew in the deflated transfer syntax."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    assert path.stat().st_size > at_least_bytes
    return SourceFile(path, None, "dicom")


def test_deflated_files_of_any_size_keep_their_series(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 2000, (3, 128, 128)).astype(np.uint16)
    files = [deflate(path, 2**14) for path in write_dicom_series(tmp_path, volume)]

    assert [len(group.files) for group in group_series(files)] == [3]
    assert read_identifiers(files[0]).pixel_bytes == 128 * 128 * 2


def test_a_large_deflated_structure_set_is_known_as_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    series = write_labelled_series(tmp_path / "ct", np.ones((3, 12, 10), np.int16))
    places = rng.uniform(1, 8, (4, 900, 2))
    contours = [np.column_stack([place, np.full(900, 5.0)]) for place in places]
    path = tmp_path / "structures.dcm"
    write_rtstruct(path, series, {"Gland": contours})

    labels = read_identifiers(deflate(path, 2**14)).labels

    assert labels is not None
    assert labels.structures == ("Gland",)


def test_an_identifier_with_a_backslash_stays_one_text(tmp_path: Path) -> None:
    identifier = '=cmd|calc,"x"\\y'
    path = write_dicom_slice(
        tmp_path / "a.dcm", np.ones((4, 5), np.uint16), PatientID=identifier.split("\\")
    )
    file = SourceFile(path, None, "dicom")

    assert read_identifiers(file).patient == identifier
    assert read_dicom([file])[0].patient_id == identifier
