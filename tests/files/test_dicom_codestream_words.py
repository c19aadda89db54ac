"""Codestreams whose precision or sign is not what the header says, against what was encoded."""

from pathlib import Path

import numpy as np
import pytest
from jpeg_ls import encode_buffer as encode_jpeg_ls
from openjpeg.utils import encode_buffer as encode_jpeg_2000
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from factories import write_encapsulated
from vismae.core.types import MedicalImage
from vismae.files.discover import source_file
from vismae.files.read import read_image

HEIGHT, WIDTH = 40, 48
# Smooth pictures, as those of patients are, in the ranges of CT and of 12 and 8 bits.
_WAVE = 0.5 - 0.5 * np.cos(np.add.outer(np.arange(HEIGHT) / 14, np.arange(WIDTH) / 16))
SIGNED = np.round(3000 * _WAVE - 1000).astype(np.int64)
UNSIGNED = np.round(4095 * _WAVE).astype(np.int64)
BYTES = np.round(255 * _WAVE).astype(np.int64)


def jpeg_2000(values: np.ndarray, bits: int, signed: bool) -> bytes:
    kind = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    return encode_jpeg_2000(values.astype(kind).tobytes(), WIDTH, HEIGHT, 1, bits, signed)


def jpeg_ls(values: np.ndarray, bits: int) -> bytes:
    return bytes(encode_jpeg_ls(values.astype(np.uint16).tobytes(), HEIGHT, WIDTH, 1, bits))


def read(
    path: Path, codestream: bytes, syntax: str, signed: bool, bits: int, **tags: object
) -> MedicalImage:
    header = {
        **{"Rows": HEIGHT, "Columns": WIDTH, "PixelRepresentation": int(signed)},
        **{"BitsAllocated": 8 if bits <= 8 else 16, "BitsStored": bits, "HighBit": bits - 1},
        **{"Modality": "MR", **tags},
    }
    [image] = read_image(source_file(write_encapsulated(path, [codestream], syntax, **header)))
    return image


@pytest.mark.parametrize(
    ("values", "bits", "signed", "header_signed", "header_bits", "truth"),
    [
        pytest.param(SIGNED & 0xFFFF, 16, False, True, 16, SIGNED, id="unsigned 16 for signed"),
        pytest.param(SIGNED & 0x1FFF, 13, False, True, 13, SIGNED, id="unsigned 13 for signed"),
        pytest.param(SIGNED & 0x1FFF, 13, False, True, 16, SIGNED, id="13 bits for signed 16"),
        pytest.param(SIGNED & 0xFFFF, 16, False, True, 13, SIGNED, id="16 bits for signed 13"),
        pytest.param(SIGNED, 13, True, True, 16, SIGNED, id="signed 13 for 16"),
        pytest.param(SIGNED, 13, True, True, 12, SIGNED, id="signed 13 for 12"),
        pytest.param(SIGNED, 13, True, False, 16, SIGNED, id="negative for unsigned"),
        pytest.param(UNSIGNED, 12, False, True, 16, UNSIGNED, id="short of the sign"),
        pytest.param(UNSIGNED, 12, False, True, 12, UNSIGNED, id="no sign in truth"),
        pytest.param(BYTES, 8, False, True, 16, BYTES, id="a byte short of the sign"),
        pytest.param(
            (UNSIGNED ^ 0x800) - 0x800, 12, True, False, 12, UNSIGNED, id="signed for unsigned"
        ),
        pytest.param(2 * UNSIGNED, 16, False, False, 12, 2 * UNSIGNED, id="beyond BitsStored"),
        pytest.param(UNSIGNED, 12, False, False, 8, UNSIGNED, id="beyond BitsAllocated"),
    ],
)
def test_jpeg_2000_of_other_bits_than_its_header_says(
    tmp_path: Path,
    values: np.ndarray,
    bits: int,
    signed: bool,
    header_signed: bool,
    header_bits: int,
    truth: np.ndarray,
) -> None:
    image = read(
        tmp_path / "j.dcm",
        jpeg_2000(values, bits, signed),
        JPEG2000Lossless,
        header_signed,
        header_bits,
    )

    np.testing.assert_array_equal(image.pixels[0], truth)
    assert image.pixels.dtype.itemsize <= 2


@pytest.mark.parametrize(
    ("values", "bits", "header_signed", "header_bits", "truth"),
    [
        pytest.param(UNSIGNED, 12, True, 16, UNSIGNED, id="short of the sign"),
        pytest.param(SIGNED & 0x1FFF, 13, True, 13, SIGNED, id="signed"),
        pytest.param(2 * UNSIGNED, 16, False, 12, 2 * UNSIGNED, id="beyond BitsStored"),
    ],
)
def test_jpeg_ls_of_other_bits_than_its_header_says(
    tmp_path: Path,
    values: np.ndarray,
    bits: int,
    header_signed: bool,
    header_bits: int,
    truth: np.ndarray,
) -> None:
    image = read(
        tmp_path / "l.dcm", jpeg_ls(values, bits), JPEGLSLossless, header_signed, header_bits
    )

    np.testing.assert_array_equal(image.pixels[0], truth)


def test_a_sign_that_neither_sense_makes_smooth_is_the_header_s(tmp_path: Path) -> None:
    phases = np.random.default_rng(0).integers(-4096, 4096, (HEIGHT, WIDTH))

    image = read(
        tmp_path / "p.dcm", jpeg_2000(phases & 0x1FFF, 13, False), JPEG2000Lossless, True, 13
    )

    np.testing.assert_array_equal(image.pixels[0], phases)


def test_frames_short_of_the_sign_have_the_type_of_their_series(tmp_path: Path) -> None:
    short = jpeg_2000(UNSIGNED, 12, False)

    image = read(tmp_path / "s.dcm", short, JPEG2000Lossless, True, 16)

    assert image.pixels.dtype == np.int16
