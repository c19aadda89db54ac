"""What colours are, whatever PhotometricInterpretation says: codestreams and greys tell."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from factories import write_dicom_slice, write_encapsulated
from vismae.core.errors import UnreadableFileError
from vismae.files.dicom import read_dicom
from vismae.files.discover import SourceFile
from vismae.files.reasons import Reason

ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(4)
JFIF_BYTES = 18
NAMES = ["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT"]


def read(path: Path) -> np.ndarray:
    [image] = read_dicom([SourceFile(path, None, "dicom")])
    return image.pixels


def picture() -> np.ndarray:
    """A grey scan with a coloured corner, as ultrasound has it, (48, 64, 3)."""
    grey = np.tile(np.linspace(10, 250, 64).astype(np.uint8)[None, :, None], (48, 1, 3))
    grey[:16, :16] = (200, 30, 20)
    return grey


def jpeg(marker: str, **options: Any) -> bytes:
    """A codestream with the marker of JFIF, with that of Adobe, with both or with none."""
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, "JPEG", quality=95, **options)
    content = stream.getvalue()
    start, behind = content[:2], content[2:]
    assert behind[4:8] == b"JFIF"
    if "jfif" not in marker:
        behind = behind[JFIF_BYTES:]
    return start + (ADOBE + b"\x01" if "adobe" in marker else b"") + behind


def write_colours(path: Path, codestream: bytes, syntax: str, name: str, count: int = 1) -> Path:
    return write_encapsulated(
        path,
        [codestream] * count,
        syntax,
        Modality="US",
        Rows=48,
        Columns=64,
        SamplesPerPixel=3,
        PlanarConfiguration=0,
        PhotometricInterpretation=name,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        **({"NumberOfFrames": count} if count > 1 else {}),
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("marker", ["jfif", "adobe", "jfif and adobe", "none"])
def test_a_jpeg_tells_its_colours_whatever_the_header_calls_them(
    tmp_path: Path, marker: str, name: str
) -> None:
    path = write_colours(tmp_path / "c.dcm", jpeg(marker), JPEGBaseline8Bit, name)

    off = read(path)[0].astype(int) - picture()

    assert np.abs(off).mean() < 4  # its chroma has half the pixels; undone twice it is off by 40


@pytest.mark.parametrize("name", NAMES)
def test_a_jpeg_of_rgb_that_says_so_is_not_converted(tmp_path: Path, name: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, "JPEG", quality=95, keep_rgb=True)
    path = write_colours(tmp_path / "c.dcm", stream.getvalue(), JPEGBaseline8Bit, name)

    assert np.abs(read(path)[0].astype(int) - picture()).mean() < 2


def test_of_a_silent_jpeg_of_full_chroma_the_header_tells_the_colours(tmp_path: Path) -> None:
    codestream = jpeg("none", subsampling=0)
    as_ycbcr = read(write_colours(tmp_path / "y.dcm", codestream, JPEGBaseline8Bit, "YBR_FULL"))[0]
    as_rgb = read(write_colours(tmp_path / "r.dcm", codestream, JPEGBaseline8Bit, "RGB"))[0]

    assert np.abs(as_ycbcr.astype(int) - picture()).mean() < 2
    stored = convert_color_space(picture(), "RGB", "YBR_FULL").astype(int)
    assert np.abs(as_rgb.astype(int) - stored).mean() < 2


def test_frames_of_a_jpeg_film_keep_their_colours_though_its_offsets_lead_nowhere(
    tmp_path: Path,
) -> None:
    codestream = jpeg("adobe")
    path = write_colours(tmp_path / "c.dcm", codestream, JPEGBaseline8Bit, "YBR_FULL_422", 3)
    content = path.read_bytes()
    table = content.index(b"\xfe\xff\x00\xe0\x0c\x00\x00\x00") + 8
    path.write_bytes(content[:table] + b"\x07\0\0\0" * 3 + content[table + 12 :])

    pixels = read(path)

    assert pixels.shape == (3, 48, 64, 3)
    assert np.abs(pixels.astype(int) - picture()).mean() < 4


@pytest.mark.parametrize("name", ["RGB", "YBR_RCT", "YBR_FULL", "YBR_FULL_422"])
def test_rgb_that_was_compressed_anew_under_its_old_name_stays_rgb(
    tmp_path: Path, name: str
) -> None:
    codestream = encode_array(picture(), photometric_interpretation=1, use_mct=True, codec_format=0)
    path = write_colours(tmp_path / "c.dcm", codestream, JPEG2000Lossless, name)

    np.testing.assert_array_equal(read(path)[0], picture())


def test_ycbcr_that_was_compressed_as_it_was_becomes_rgb(tmp_path: Path) -> None:
    stored = convert_color_space(picture(), "RGB", "YBR_FULL")
    codestream = encode_array(stored, photometric_interpretation=1, use_mct=False, codec_format=0)
    path = write_colours(tmp_path / "c.dcm", codestream, JPEG2000Lossless, "YBR_FULL")

    assert np.abs(read(path)[0].astype(int) - picture()).max() <= 2


def television(rgb: np.ndarray) -> np.ndarray:
    """YCbCr of 16 to 235 as PS3.3 C.7.6.3.1.2 had it, of pairs of pixels (H, W / 2, 4)."""
    matrix = np.array(
        [[0.2568, 0.5041, 0.0979], [-0.1482, -0.2910, 0.4392], [0.4392, -0.3678, -0.0714]]
    )
    ycbcr = np.rint(rgb @ matrix.T + [16, 128, 128]).astype(np.uint8)
    pairs = (ycbcr[:, ::2, 0], ycbcr[:, 1::2, 0], ycbcr[:, ::2, 1], ycbcr[:, ::2, 2])
    return np.stack(pairs, axis=-1)


def write_television(path: Path, pixels: bytes) -> Path:
    return write_dicom_slice(
        path,
        picture(),
        Modality="US",
        PhotometricInterpretation="YBR_PARTIAL_422",
        PixelData=pixels,
    )


def test_ycbcr_of_television_becomes_rgb(tmp_path: Path) -> None:
    path = write_television(tmp_path / "t.dcm", television(picture()).tobytes())

    assert np.abs(read(path)[0].astype(int) - picture()).max() <= 3


def test_ycbcr_of_television_that_ends_early_is_truncated(tmp_path: Path) -> None:
    path = write_television(tmp_path / "t.dcm", television(picture()).tobytes()[:-50])

    with pytest.raises(UnreadableFileError) as caught:
        read(path)

    assert caught.value.reason == Reason.TRUNCATED
