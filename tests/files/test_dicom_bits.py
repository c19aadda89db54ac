"""Unused bits, against words made by hand."""

from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread

from factories import write_dicom_slice
from vismae.core.types import MedicalImage
from vismae.files.dicom import read_dicom
from vismae.files.dicom_bits import settle_stored_bits
from vismae.files.discover import SourceFile

# A smooth picture, as pictures of patients are: 0 to 3720 in steps of 120.
RAMP = np.tile(np.arange(0, 3840, 120), (4, 1))


def header(bits: int, signed: bool = False, high_bit: int | None = None) -> Dataset:
    dataset = Dataset()
    dataset.BitsStored, dataset.PixelRepresentation = bits, int(signed)
    dataset.HighBit = bits - 1 if high_bit is None else high_bit
    return dataset


def read(path: Path) -> MedicalImage:
    [image] = read_dicom([SourceFile(path, None, "dicom")])
    return image


def test_stray_high_bits_are_cleared() -> None:
    words = RAMP.astype(np.uint16)[None]
    words[0, 1, 5] |= 0x8000
    words[0, 2, 9] |= 0x5000

    np.testing.assert_array_equal(settle_stored_bits(words, header(12))[0], RAMP)


def test_an_overlay_in_the_unused_bits_is_cleared_however_much_it_covers(tmp_path: Path) -> None:
    words = RAMP.astype(np.uint16)
    words[:, :30] |= 0x8000  # a smooth block, which by itself looks like values
    path = write_dicom_slice(tmp_path / "o.dcm", words, Modality="MR", BitsStored=12, HighBit=11)
    dataset = dcmread(path)
    dataset.add_new(0x60000010, "US", words.shape[0])
    dataset.add_new(0x60000011, "US", words.shape[1])
    dataset.add_new(0x60000040, "CS", "G")
    dataset.add_new(0x60000050, "SS", [1, 1])
    dataset.add_new(0x60000100, "US", 16)
    dataset.add_new(0x60000102, "US", 15)
    dataset.save_as(path)

    image = read(path)

    np.testing.assert_array_equal(image.pixels[0], RAMP)
    assert "overlay" in image.details["flags"]


def test_values_beyond_bits_stored_are_values_if_the_image_is_smooth_with_them() -> None:
    words = (RAMP * 2).astype(np.uint16)[None]  # up to 7440, where 12 bits reach 4095
    dataset = header(12)

    np.testing.assert_array_equal(settle_stored_bits(words, dataset), words)
    assert (dataset.BitsStored, dataset.HighBit) == (13, 12)


def test_negative_values_without_their_sign_bits_get_them() -> None:
    values = RAMP - 1800
    words = (values & 0x0FFF).astype(np.int16)[None]

    np.testing.assert_array_equal(settle_stored_bits(words, header(12, signed=True))[0], values)


def test_unsigned_values_under_a_signed_header_stay_positive() -> None:
    # Written as signed 12 bits, which end at 2047; -1376 beside 2040 would be no picture.
    words = RAMP.astype(np.int16)[None]

    np.testing.assert_array_equal(settle_stored_bits(words, header(12, signed=True)), words)


def test_values_at_the_top_of_the_word_are_moved_down() -> None:
    words = (RAMP << 4).astype(np.uint16)[None]
    signed = ((RAMP - 1800) << 4).astype(np.int16)[None]

    np.testing.assert_array_equal(settle_stored_bits(words, header(12, high_bit=15))[0], RAMP)
    moved = settle_stored_bits(signed, header(12, signed=True, high_bit=15))
    np.testing.assert_array_equal(moved[0], RAMP - 1800)


def test_a_high_bit_that_no_value_reaches_is_wrong() -> None:
    words = RAMP.astype(np.uint16)[None]

    np.testing.assert_array_equal(settle_stored_bits(words, header(12, high_bit=15))[0], RAMP)


def test_padding_beyond_bits_stored_stays_recognisable(tmp_path: Path) -> None:
    words = (RAMP + 200).astype(np.uint16)
    words[0, :6] = 63536
    path = write_dicom_slice(
        tmp_path / "p.dcm", words, BitsStored=12, HighBit=11, PixelPaddingValue=63536
    )

    pixels = read(path).pixels[0]

    assert (pixels[0, :6] == 200).all()
    np.testing.assert_array_equal(pixels[1:], RAMP[1:] + 200)


def test_words_that_fit_are_handed_on_uncopied() -> None:
    for bits, signed in ((12, False), (13, True), (16, False), (16, True)):
        words = RAMP.astype(np.int16 if signed else np.uint16)[None]
        assert settle_stored_bits(words, header(bits, signed)) is words
