import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames
from pydicom.uid import JPEG2000Lossless

from factories import write_encapsulated
from vismae.core.errors import UnreadableFileError
from vismae.files.dicom_codestream import codestream_size
from vismae.files.discover import source_file
from vismae.files.read import read_image


def encoded(kind: str, height: int, width: int, **options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"comment": b"\xff\xc0" * 30}),
        ("JPEG2000", {"no_jp2": True}),
        ("JPEG2000", {"no_jp2": False}),
    ],
)
def test_a_codestream_says_its_height_and_width(kind: str, options: dict[str, object]) -> None:
    assert codestream_size(encoded(kind, 40, 24, **options)) == (40, 24)


@pytest.mark.parametrize(
    "name",
    ["JPEGLSNearLossless_08.dcm", "JPGExtended.dcm", "JPEG2000.dcm", "SC_rgb_jpeg_dcmtk.dcm"],
)
def test_files_of_other_writers_agree_with_their_headers(name: str) -> None:
    dataset = dcmread(str(get_testdata_file(name)))
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))

    assert codestream_size(frame) == (dataset.Rows, dataset.Columns)


@pytest.mark.parametrize(
    "frame", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\x4f\xff\x51\0", b"RLE"]
)
def test_what_is_cut_or_foreign_says_nothing(frame: bytes) -> None:
    assert codestream_size(frame) is None


def test_a_codestream_larger_than_its_header_is_not_decoded(tmp_path: Path) -> None:
    path = write_encapsulated(
        tmp_path / "a.dcm",
        [encoded("JPEG2000", 40, 24, no_jp2=True)],
        JPEG2000Lossless,
        Rows=24,
        Columns=40,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
    )

    with pytest.raises(UnreadableFileError, match="holds 40×24 pixels, the header says 24×40"):
        read_image(source_file(path))
