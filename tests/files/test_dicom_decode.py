"""Transfer syntaxes and colour spaces. Every bundled file is compared in
``test_dicom_reference.py``; here is what no bundled file shows."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset, dcmread
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from factories import write_dicom_slice, write_encapsulated
from vismae.core.errors import UnreadableFileError
from vismae.core.types import MedicalImage
from vismae.files.dicom import read_dicom
from vismae.files.discover import SourceFile
from vismae.files.reasons import Reason

# 8 rows, 12 columns of 100 · (row + column) - 700, encoded by OpenJPH 0.26 without loss.
HTJ2K_CODESTREAM = base64.b64decode(
    "/0//UQApQAAAAAAMAAAACAAAAAAAAAAAAAAADAAAAAgAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB"
    "/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAGgAAf+TwAAl8wCHdAAA"
    "wAATAK7+Aod0AMAAEsAAE4D3AAd0AI47/gCCNADAABNAABUgwIGBi3QAwIGBAAhAd1YAwAAqYAAVwEaj0fjacQJ1AMZG"
    "o9Fo/OAQ9iEB7LgA/9k="
)


def read(path: Path) -> MedicalImage:
    [image] = read_dicom([SourceFile(path, None, "dicom")])
    return image


@pytest.mark.parametrize("number", ["201", "202", "203"])
def test_high_throughput_jpeg_2000_is_decoded(tmp_path: Path, number: str) -> None:
    path = write_encapsulated(
        tmp_path / "h.dcm",
        [HTJ2K_CODESTREAM] * 2,
        f"1.2.840.10008.1.2.4.{number}",
        Modality="MR",
        NumberOfFrames=2,
        Rows=8,
        Columns=12,
        PixelRepresentation=1,
    )

    image = read(path)

    expected = np.add.outer(np.arange(8), np.arange(12)) * 100 - 700
    np.testing.assert_array_equal(image.pixels, [expected, expected])
    assert ("lossy" in image.details["flags"]) is (number == "203")


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless],
)
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_words_of_every_size_survive_every_native_syntax(
    tmp_path: Path, syntax: Any, dtype: str
) -> None:
    limits = np.iinfo(dtype)
    values = np.linspace(limits.min, limits.max, 15).astype(dtype).reshape(3, 5)
    path = write_dicom_slice(tmp_path / "n.dcm", values, Modality="MR")
    written = dcmread(path)
    dataset = Dataset()  # without a memory of the syntax that it came in
    dataset.update({element.tag: element for element in written})
    dataset.file_meta = written.file_meta
    if syntax == RLELossless:
        dataset.compress(RLELossless, encoding_plugin="pydicom")
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
        if not syntax.is_little_endian:
            swapped = values.astype(values.dtype.newbyteorder(">")).tobytes()
            dataset.PixelData = swapped + b"\0" * (len(swapped) % 2)
            dataset["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"
    dataset.save_as(path, enforce_file_format=True)

    np.testing.assert_array_equal(read(path).pixels[0], values)


def colour_picture() -> np.ndarray:
    """A grey picture with a coloured corner, as ultrasound has it."""
    grey = np.tile(np.linspace(0, 250, 16).astype(np.uint8)[None, :, None], (12, 1, 3))
    grey[:3, :4] = (200, 30, 20)
    return grey


def test_native_ycbcr_becomes_rgb(tmp_path: Path) -> None:
    stored = convert_color_space(colour_picture(), "RGB", "YBR_FULL")
    path = write_dicom_slice(
        tmp_path / "y.dcm", stored, Modality="US", PhotometricInterpretation="YBR_FULL"
    )

    difference = read(path).pixels[0].astype(int) - colour_picture()

    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("tag", ["YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"])
def test_rgb_that_is_still_called_ycbcr_is_not_converted_again(tmp_path: Path, tag: str) -> None:
    path = write_dicom_slice(
        tmp_path / "r.dcm", colour_picture(), Modality="US", PhotometricInterpretation=tag
    )

    np.testing.assert_array_equal(read(path).pixels[0], colour_picture())


def test_ycbcr_that_is_not_subsampled_though_it_says_so_is_read(tmp_path: Path) -> None:
    stored = convert_color_space(colour_picture(), "RGB", "YBR_FULL")
    path = write_dicom_slice(
        tmp_path / "y.dcm", stored, Modality="US", PhotometricInterpretation="YBR_FULL_422"
    )

    difference = read(path).pixels[0].astype(int) - colour_picture()

    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize(("largest", "shown"), [(65535, [0, 127, 255]), (255, [0, 127, 255])])
def test_palettes_of_16_bits_become_8(tmp_path: Path, largest: int, shown: list[int]) -> None:
    tables: dict[str, Any] = {}
    for colour in ("Red", "Green", "Blue"):
        entries = np.array([0, largest // 2, largest], np.uint16)
        tables[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        tables[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    path = write_dicom_slice(
        tmp_path / "p.dcm",
        np.array([[0, 1, 2]], np.uint8),
        Modality="US",
        PhotometricInterpretation="PALETTE COLOR",
        **tables,
    )

    image = read(path)

    assert image.pixels.dtype == np.uint8
    assert image.pixels[0, 0].tolist() == shown


def test_a_dark_picture_keeps_the_scale_of_its_palette(tmp_path: Path) -> None:
    tables: dict[str, Any] = {}
    for colour in ("Red", "Green", "Blue"):
        entries = np.array([0, 200, 65535], np.uint16)
        tables[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        tables[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    dark = {"Modality": "US", "PhotometricInterpretation": "PALETTE COLOR", **tables}
    path = write_dicom_slice(tmp_path / "p.dcm", np.array([[0, 1, 1]], np.uint8), **dark)

    assert read(path).pixels[0, 0].tolist() == [0, 0, 0]


def test_colours_of_16_bits_keep_their_upper_8(tmp_path: Path) -> None:
    colours = np.array([[[65535, 0, 256], [512, 1024, 255]]], np.uint16)
    path = write_dicom_slice(tmp_path / "c.dcm", colours, Modality="US")

    assert read(path).pixels[0].tolist() == [[[255, 0, 1], [2, 4, 0]]]


@pytest.mark.parametrize(
    ("values", "stored", "expected"),
    [
        ([0, 100, 255], 16, [0, 100, 255]),
        ([0, 1024, 4095], 12, [0, 64, 255]),
    ],
)
def test_colours_tell_themselves_how_many_bits_they_have(
    tmp_path: Path, values: list[int], stored: int, expected: list[int]
) -> None:
    """Words of 16 bits that hold 8-bit colours would be black."""
    colours = np.array([[values, values[::-1]]], np.uint16)
    path = write_dicom_slice(tmp_path / "c.dcm", colours, Modality="US", BitsStored=stored)

    assert read(path).pixels[0, 0].tolist() == [expected, expected[::-1]]


def test_colour_planes_one_after_another_are_read(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(np.moveaxis(colour_picture(), -1, 0))
    path = write_dicom_slice(tmp_path / "c.dcm", colour_picture(), Modality="US")
    dataset: Dataset = dcmread(path)
    dataset.PlanarConfiguration, dataset.PixelData = 1, planes.tobytes()
    dataset.save_as(path)

    np.testing.assert_array_equal(read(path).pixels[0], colour_picture())


@pytest.mark.parametrize("promised", [None, 2])
def test_frames_that_the_header_does_not_promise_are_not_read(
    tmp_path: Path, promised: int | None
) -> None:
    path = write_encapsulated(
        tmp_path / "more.dcm",
        [HTJ2K_CODESTREAM] * 3,
        "1.2.840.10008.1.2.4.201",
        Modality="MR",
        NumberOfFrames=promised,
        Rows=8,
        Columns=12,
        PixelRepresentation=1,
    )

    assert read(path).pixels.shape == (promised or 1, 8, 12)


@pytest.mark.filterwarnings("ignore:A value of type")
@pytest.mark.parametrize("written", [None, ""])
def test_colours_whose_planes_are_not_told_are_one_pixel_after_another(
    tmp_path: Path, written: str | None
) -> None:
    """So does SimpleITK, which stands for other readers."""
    path = write_dicom_slice(
        tmp_path / "c.dcm", colour_picture(), Modality="US", PlanarConfiguration=written
    )

    found = read(path).pixels[0]

    np.testing.assert_array_equal(found, colour_picture())
    other = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    np.testing.assert_array_equal(found, other.reshape(found.shape))


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.9", "1.2.840.113619.5.2", "1.3.46.670589.99"]
)
def test_a_transfer_syntax_that_nobody_knows_is_named(tmp_path: Path, syntax: str) -> None:
    path = write_dicom_slice(tmp_path / "n.dcm", np.zeros((4, 4), np.int16))
    known = ExplicitVRLittleEndian.encode() + b"\0"
    content = path.read_bytes()
    assert content.count(known) == 1
    path.write_bytes(content.replace(known, syntax.encode().ljust(len(known), b"\0")))

    with pytest.raises(UnreadableFileError, match=f"transfer syntax {syntax} is none") as caught:
        read(path)

    assert caught.value.reason == Reason.UNDECODABLE


def test_uncompressed_pixels_are_not_to_be_decompressed(tmp_path: Path) -> None:
    path = write_dicom_slice(tmp_path / "n.dcm", np.zeros((4, 4), np.int16), BitsAllocated=12)

    with pytest.raises(UnreadableFileError, match="Fetch it again") as caught:
        read(path)

    assert "Convert" not in str(caught.value)


def test_compressed_pixels_are_not_taken_for_words_because_the_header_says_so(
    tmp_path: Path,
) -> None:
    """Noise does not get smaller: there are as many bytes as the words would have."""
    path = write_encapsulated(
        tmp_path / "n.dcm",
        [bytes(range(256)) * 4],
        JPEGBaseline8Bit,
        Modality="MR",
        Rows=16,
        Columns=32,
        SamplesPerPixel=1,
        BitsAllocated=16,
    )
    content = path.read_bytes()
    native = ExplicitVRLittleEndian.encode().ljust(len(JPEGBaseline8Bit), b"\0")
    path.write_bytes(content.replace(JPEGBaseline8Bit.encode(), native))

    with pytest.raises(UnreadableFileError, match="no transfer syntax says how") as caught:
        read(path)

    assert caught.value.reason == Reason.UNDECODABLE
