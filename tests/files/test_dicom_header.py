"""Values that a series shares, against those of pydicom."""

from pathlib import Path

import pydicom
from pydicom.data import get_testdata_files
from pydicom.dataelem import RawDataElement

from vismae.files.dicom_header import Header, Known
from vismae.files.dicom_quiet import quiet_pydicom


def read(path: str) -> pydicom.FileDataset:
    return pydicom.dcmread(path, force=True)


def test_values_are_those_of_pydicom_the_first_time_and_the_second() -> None:
    with quiet_pydicom():
        for path in sorted(get_testdata_files("*.dcm")):
            if not Path(path).is_file():
                continue
            plain, known = read(path), Known()
            for header in (Header.of(read(path), known), Header.of(read(path), known)):
                for element in plain:
                    if element.keyword and element.keyword != "PixelData":
                        assert header.get(element.keyword) == element.value
                        assert getattr(header, element.keyword) == element.value


def test_equal_bytes_are_converted_once_and_other_bytes_again(tmp_path) -> None:
    with quiet_pydicom():
        path = get_testdata_files("CT_small.dcm")[0]
        known: Known = {}
        first, second, other = (Header.of(read(path), known) for _ in range(3))
        other.PatientID, other.SliceThickness = "other", "7.5"
        assert first.PixelSpacing is second.PixelSpacing
        assert isinstance(second.get_item("PixelSpacing"), RawDataElement)
        assert (float(first.SliceThickness), float(other.SliceThickness)) == (5.0, 7.5)
        assert (second.PatientID, other.PatientID) == ("1CT1", "other")


def test_what_is_not_there_is_the_default_and_no_attribute() -> None:
    header = Header.of(read(get_testdata_files("CT_small.dcm")[0]), {})
    assert header.get("EchoTime") is None
    assert header.get("EchoTime", 3) == 3
    assert header.get("no keyword", 4) == 4
    assert not hasattr(header, "EchoTime")
    assert header.get((0x0010, 0x0020)).value == "1CT1"
