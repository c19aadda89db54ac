"""The quick look at headers against pydicom's thorough one, on every file that pydicom ships."""

import struct
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_files
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from vismae.files import dicom_identifiers
from vismae.files.dicom_head import first_elements
from vismae.files.dicom_identifiers import read_identifiers
from vismae.files.discover import SourceFile

BUNDLED = sorted(path for path in get_testdata_files("**/*.dcm") if Path(path).is_file())


def test_identifiers_are_those_that_pydicom_finds(monkeypatch) -> None:
    files = [SourceFile(Path(path), None, "dicom") for path in BUNDLED]
    quick = [dicom_identifiers._plain_identifiers(file.head(2**14)) for file in files]
    monkeypatch.setattr(dicom_identifiers, "_plain_identifiers", lambda head: None)
    thorough = [read_identifiers(file) for file in files]
    answered = [number for number, found in enumerate(quick) if found is not None]
    assert len(answered) > len(files) / 2
    assert [quick[number] for number in answered] == [thorough[number] for number in answered]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("undefined_length", [False, True])
def test_sequences_before_the_identifiers_are_passed_over(
    tmp_path, syntax, undefined_length
) -> None:
    inner, item, data = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    inner.CodeValue = "1"
    item.PurposeOfReferenceCodeSequence = [inner, inner]
    item.ReferencedSOPInstanceUID = "1.2.9"
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, "1.2.3.4"
    data.ReferencedImageSequence = [item, item]
    data.PatientID, data.Rows, data.Columns, data.BitsAllocated = "P 1 ", 3, 4, 16
    for sequence in (data["ReferencedImageSequence"], item["PurposeOfReferenceCodeSequence"]):
        sequence.is_undefined_length = undefined_length
        for part in sequence.value:
            part.is_undefined_length_sequence_item = undefined_length
    data.PixelData, data["PixelData"].VR = bytes(24), "OW"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    found = dicom_identifiers._plain_identifiers((tmp_path / "a.dcm").read_bytes())
    assert found is not None
    assert (found.patient, found.instance, found.pixel_bytes) == ("P 1", "1.2.3.4", 24)


def test_what_is_unusual_is_left_to_pydicom() -> None:
    def file(
        *elements: tuple[int, bytes, bytes], syntax: bytes = b"1.2.840.10008.1.2.1\0"
    ) -> bytes:
        written = b"".join(
            struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value
            for tag, vr, value in ((0x00020010, b"UI", syntax), *elements)
        )
        return bytes(128) + b"DICM" + written

    end = (0x00300000, b"UL", bytes(4))
    patient = (0x00100020, b"LO", b"P1")
    assert first_elements(file(patient, end), {0x00100020}, 0x00280100) == {0x00100020: b"P1"}
    assert first_elements(file(patient), {0x00100020}, 0x00280100) is None
    assert first_elements(file(patient, end)[132:], {0x00100020}, 0x00280100) is None
    assert first_elements(file((0x00100020, b"??", b"P1"), end), set(), 0x00280100) is None
    assert first_elements(file(patient, (0x00100010, b"PN", b"A"), end), set(), 0x00280100) is None
    big_endian = file(patient, end, syntax=b"1.2.840.10008.1.2.2\0")
    assert first_elements(big_endian, {0x00100020}, 0x00280100) is None
    assert dicom_identifiers._plain_identifiers(file((0x00100020, b"LO", b"\xc4"), end)) is None
    assert dicom_identifiers._plain_identifiers(file((0x00100020, b"LO", b"a\\b"), end)) is None
