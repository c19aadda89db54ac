import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from factories import write_encapsulated
from vismae.core.errors import UnreadableFileError
from vismae.files.dicom_codestream import codestream_shape
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
def test_a_codestream_says_its_shape(kind: str, options: dict[str, object]) -> None:
    assert codestream_shape(encoded(kind, 40, 24, **options)) == (40, 24, 1)


@pytest.mark.parametrize(
    "name",
    ["JPEGLSNearLossless_08.dcm", "JPGExtended.dcm", "JPEG2000.dcm", "SC_rgb_jpeg_dcmtk.dcm"],
)
def test_files_of_other_writers_agree_with_their_headers(name: str) -> None:
    dataset = dcmread(str(get_testdata_file(name)))
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))

    assert codestream_shape(frame) == (
        *(dataset.Rows, dataset.Columns),
        dataset.SamplesPerPixel,
    )


@pytest.mark.parametrize(
    "frame", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\x4f\xff\x51\0", b"RLE"]
)
def test_what_is_cut_or_foreign_says_nothing(frame: bytes) -> None:
    assert codestream_shape(frame) is None


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

    with pytest.raises(
        UnreadableFileError, match="holds 40×24 pixels of 1 sample, the header says 24×40"
    ):
        read_image(source_file(path))


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless])
def test_colours_that_the_header_calls_grey_are_refused(tmp_path: Path, syntax: str) -> None:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
    kind = "JPEG" if syntax == JPEGBaseline8Bit else "JPEG2000"
    Image.fromarray(pixels).save(buffer, kind, **({"no_jp2": True} if kind == "JPEG2000" else {}))
    tags = {"Rows": 8, "Columns": 12, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    path = write_encapsulated(
        tmp_path / "c.dcm",
        [buffer.getvalue()],
        syntax,
        **tags,
        Modality="US",
        PixelRepresentation=0,
    )

    with pytest.raises(UnreadableFileError, match="3 samples, the header says 8×12 pixels of 1 s"):
        read_image(source_file(path))
