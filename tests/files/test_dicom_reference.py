"""Pixel values against SimpleITK, for every file that both can read.

SimpleITK decodes with GDCM's own codecs and applies the rescale. What this package does on purpose
beyond that is undone here, rule by rule, so that the rest must agree: equal for lossless syntaxes
and within two levels for lossy ones.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from pydicom import Dataset, dcmread

from vismae.core.errors import UnreadableFileError
from vismae.core.types import KEEPABLE, Flag, MedicalImage, PixelUnit
from vismae.files.dicom import read_dicom
from vismae.files.dicom_bits import padding_value
from vismae.files.dicom_decode import decode_pixels
from vismae.files.dicom_quiet import quiet_pydicom
from vismae.files.dicom_ultrasound import picture_region
from vismae.files.discover import SourceFile

sitk = pytest.importorskip("SimpleITK")

BUNDLED = Path(str(pydicom.data.__file__)).parent / "test_files"
# Files whose values differ for a reason that no rule below undoes.
EXCEPTIONS = {
    **dict.fromkeys(
        (
            *("SC_rgb_rle_16bit.dcm", "SC_rgb_rle_16bit_2frame.dcm"),
            *("SC_rgb_rle_32bit.dcm", "SC_rgb_rle_32bit_2frame.dcm"),
        ),
        "GDCM mixes up the bytes of RLE colours of 16 and 32 bits; the first bar is pure red.",
    ),
    "RG3_JPLY": "GDCM wraps round where lossy compression overshot the 10 bits, in eight pixels.",
    "mlut_18.dcm": "SimpleITK does not apply a modality table.",
    "vlut_04.dcm": "SimpleITK does not apply a VOI table.",
}


def images_both_read(folder: Path) -> Iterator[tuple[Path, MedicalImage, np.ndarray]]:
    """Yield path, image and SimpleITK's values, (S, H, W) or (S, H, W, 3), in the same order."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name in EXCEPTIONS:
            continue
        try:
            [image] = read_dicom([SourceFile(path, None, "dicom")], keep=KEEPABLE)
            reference = sitk.GetArrayFromImage(sitk.ReadImage(os.fspath(path)))
        except (UnreadableFileError, RuntimeError):
            continue
        with quiet_pydicom():
            header = dcmread(path, force=True, stop_before_pixels=True)
        # Frames of one file are put in order of their place.
        numbers = [int(key.rsplit(":", 1)[1]) - 1 for key in image.details["slice_keys"]]
        yield path, image, expected(image, reference[numbers].astype(np.float64), header, path)


def expected(image: MedicalImage, values: np.ndarray, header: Dataset, path: Path) -> np.ndarray:
    """Do to SimpleITK's values what this package does beyond decoding and rescaling."""
    if header.get("SequenceOfUltrasoundRegions") and Flag.REGION_CROPPED in image.details["flags"]:
        region = picture_region(header, str(path))
        assert region is not None
        values = values[:, region.top : region.bottom, region.left : region.right]
    if image.pixels.ndim == 4 and int(header.BitsAllocated) > 8:
        values = values // 2 ** (int(header.BitsStored) - 8)
    if image.unit is PixelUnit.SUV:
        values = values * image.slope / float(header.RescaleSlope)
    for_the_eye = image.unit is PixelUnit.DISPLAY
    padding = padding_value(header, "PixelPaddingValue", image.pixels.dtype)
    padded = np.zeros(values.shape, dtype=bool)
    if padding is not None and (for_the_eye or Flag.LOSSY not in image.details["flags"]):
        with quiet_pydicom():
            padded = decode_pixels(dcmread(path, force=True), str(path)) == padding
    if padded.any() and not padded.all():
        values = np.where(padded, values[~padded].min(), values)
    return values


def differences(folder: Path) -> tuple[int, dict[str, float]]:
    """Return how many files were compared, and the largest difference of those that disagree."""
    count, wrong = 0, dict[str, float]()
    for path, image, values in images_both_read(folder):
        physical = image.pixels * image.slope + image.intercept
        assert physical.shape == values.shape, path
        allowed = 2.0 if Flag.LOSSY in image.details["flags"] else 1e-6 * np.abs(values).max()
        largest = float(np.abs(physical - values).max())
        if largest > allowed:
            wrong[str(path)] = largest
        count += 1
    return count, wrong


def test_bundled_files_have_the_values_that_simpleitk_reads() -> None:
    count, wrong = differences(BUNDLED)

    assert wrong == {}
    assert count >= 75  # of pydicom 3.0; the others are no images, or for one reader only


@pytest.mark.real_data
def test_real_files_have_the_values_that_simpleitk_reads(test_data: Path) -> None:
    folder = test_data / "data" / "dicom_nifti"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")

    count, wrong = differences(folder)

    assert wrong == {}
    assert count >= 70
