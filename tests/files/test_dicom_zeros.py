import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.uid import ImplicitVRLittleEndian

from factories import write_dicom_slice
from vismae.core.errors import UnreadableFileError
from vismae.files.dicom import read_dicom
from vismae.files.dicom_identifiers import read_identifiers
from vismae.files.dicom_zeros import until_zeros
from vismae.files.discover import SourceFile
from vismae.files.reasons import Reason
from vismae.files.structure_names import read_telling_parts

PIXELS = np.arange(12 * 10, dtype=np.int16).reshape(12, 10)
ZEROS = bytes(2**21)  # 262,144 elements to pydicom
FEW = 40_000


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the elements that pydicom makes, in a list of one."""
    count = [0]
    make = RawDataElement.__new__

    def counted(cls: type, *args: object, **named: object) -> RawDataElement:
        count[0] += 1
        return make(cls, *args, **named)

    monkeypatch.setattr(RawDataElement, "__new__", counted)
    return count


def nothing_but_zeros(path: Path) -> None:
    path.write_bytes(bytes(128) + b"DICM" + ZEROS)


def zeros_behind_identifiers(path: Path) -> None:
    write_dicom_slice(path, PIXELS)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\x10\x00\x20\x00LO")] + ZEROS)


def zeros_instead_of_pixels(path: Path) -> None:
    write_dicom_slice(path, PIXELS)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\xe0\x7f\x10\x00OW")] + ZEROS)


def zeros_in_a_sequence(path: Path) -> None:
    write_dicom_slice(path, PIXELS)
    whole = path.read_bytes()
    sequence = b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path.write_bytes(whole[: whole.index(b"\x10\x00\x20\x00LO")] + sequence + ZEROS)


def zeros_with_an_end(path: Path) -> None:
    zeros_behind_identifiers(path)
    path.write_bytes(path.read_bytes() + b"end of the file")


@pytest.mark.parametrize(
    "fill",
    [
        nothing_but_zeros,
        zeros_behind_identifiers,
        zeros_instead_of_pixels,
        zeros_in_a_sequence,
        zeros_with_an_end,
    ],
)
def test_a_file_filled_with_zeros_is_refused_after_few_of_them(
    fill: Callable[[Path], None], made: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "copied.dcm"
    fill(path)
    file = SourceFile(path, None, "dicom")

    assert read_identifiers(file).frames == 1
    read_telling_parts(file)
    with pytest.raises(UnreadableFileError, match=r"copied\.dcm: ") as caught:
        read_dicom([file])

    assert caught.value.reason is Reason.UNDECODABLE
    assert "filled with zeros" in str(caught.value) or fill is zeros_in_a_sequence
    assert made[0] < FEW


def test_a_large_file_read_from_disk_is_no_exception(made: list[int], tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    zeros_behind_identifiers(path)

    with path.open("rb") as stream:
        header = pydicom.dcmread(until_zeros(stream), force=True)

    assert "SOPInstanceUID" in header
    assert made[0] < FEW


@pytest.mark.parametrize("behind", [8, 4096, len(ZEROS)])
def test_zeros_behind_the_pixels_do_no_harm(behind: int, made: list[int], tmp_path: Path) -> None:
    path = write_dicom_slice(tmp_path / "padded.dcm", PIXELS)
    path.write_bytes(path.read_bytes() + bytes(behind))

    [image] = read_dicom([SourceFile(path, None, "dicom")])

    assert np.array_equal(image.pixels[0], PIXELS)
    assert made[0] < FEW


@pytest.mark.parametrize("implicit", [True, False])
def test_zeros_as_pixels_are_pixels(implicit: bool, tmp_path: Path) -> None:
    pixels = np.zeros((512, 512), np.int16)
    pixels[-1, -1] = 1
    path = write_dicom_slice(tmp_path / "dark.dcm", pixels)
    if implicit:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dataset.save_as(path, implicit_vr=True, little_endian=True)

    [image] = read_dicom([SourceFile(path, None, "dicom")])

    assert np.array_equal(image.pixels[0], pixels)


def test_a_file_without_long_zeros_is_read_as_it_is(tmp_path: Path) -> None:
    path = write_dicom_slice(tmp_path / "plain.dcm", PIXELS)
    stream = io.BytesIO(path.read_bytes() + bytes(4096))

    assert until_zeros(stream) is stream
