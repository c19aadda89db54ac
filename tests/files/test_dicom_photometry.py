"""Grey images whose header lost how they are painted."""

from pathlib import Path

import numpy as np
import pytest

from factories import write_dicom_slice
from vismae.core.errors import UnreadableFileError
from vismae.files.discover import source_file
from vismae.files.read import read_image

PIXELS = np.arange(20, dtype=np.uint16).reshape(4, 5)


@pytest.mark.parametrize("lost", ["", None])
def test_values_of_slices_do_not_depend_on_it(tmp_path: Path, lost: str | None) -> None:
    path = write_dicom_slice(tmp_path / "a.dcm", PIXELS, PhotometricInterpretation=lost)

    [image] = read_image(source_file(path))

    np.testing.assert_array_equal(image.pixels[0] * image.slope + image.intercept, PIXELS - 1024.0)


@pytest.mark.parametrize(
    ("shape", "expected"), [("IDENTITY", PIXELS), ("INVERSE", 2**16 - 1 - PIXELS)]
)
def test_of_a_radiograph_the_shape_of_its_table_tells(
    tmp_path: Path, shape: str, expected: np.ndarray
) -> None:
    path = write_dicom_slice(
        tmp_path / "x.dcm",
        PIXELS,
        Modality="DX",
        PhotometricInterpretation="",
        PresentationLUTShape=shape,
    )

    [image] = read_image(source_file(path))

    np.testing.assert_array_equal(image.pixels[0], expected)


@pytest.mark.parametrize("modality", ["DX", "CR"])
def test_a_radiograph_that_may_be_inverted_is_refused(tmp_path: Path, modality: str) -> None:
    path = write_dicom_slice(
        tmp_path / "x.dcm", PIXELS, Modality=modality, PhotometricInterpretation=""
    )

    with pytest.raises(UnreadableFileError, match="lacks PhotometricInterpretation"):
        read_image(source_file(path))


def test_colours_are_not_guessed(tmp_path: Path) -> None:
    colours = np.zeros((4, 5, 3), np.uint8)
    path = write_dicom_slice(
        tmp_path / "c.dcm", colours, Modality="US", PhotometricInterpretation=""
    )

    with pytest.raises(UnreadableFileError, match="lacks PhotometricInterpretation"):
        read_image(source_file(path))
