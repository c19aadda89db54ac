"""Flags of a volume's geometry. Order, spacing and affine are tested through ``read_dicom``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factories import write_dicom_series
from vismae.core.types import Flag, MedicalImage
from vismae.files.dicom import read_dicom
from vismae.files.discover import SourceFile


def volume(folder: Path, positions: Sequence[Sequence[float]], **tags: Any) -> MedicalImage:
    pixels = np.arange(len(positions) * 4).reshape(-1, 2, 2).astype(np.int16)
    paths = write_dicom_series(
        folder, pixels, ImagePositionPatient_each=[list(place) for place in positions], **tags
    )
    [image] = read_dicom([SourceFile(path, None, "dicom") for path in paths])
    return image


def stack(*heights_mm: float, shift_mm: float = 0.0) -> list[list[float]]:
    return [[0.0, shift_mm * height, height] for height in heights_mm]


@pytest.mark.parametrize(
    ("heights_mm", "flags"),
    [
        ([0, 5, 10, 15, 20], set()),
        ([0, 5.1, 10, 15.1, 20], set()),
        ([0, 5, 15, 20, 25], {Flag.MISSING_SLICES}),
        ([0, 5, 10, 25, 30], {Flag.MISSING_SLICES}),
        ([0, 5, 10, 13, 18], {Flag.IRREGULAR_SPACING}),
        ([0, 5, 15, 22, 27, 32, 37], {Flag.MISSING_SLICES, Flag.IRREGULAR_SPACING}),
        ([7], set()),
    ],
)
def test_gaps_are_told_apart(tmp_path: Path, heights_mm: list[float], flags: set[Flag]) -> None:
    image = volume(tmp_path, stack(*heights_mm))

    assert image.details["flags"] == flags
    assert image.details["regular_spacing"] is (not flags)


@pytest.mark.parametrize("heights_mm", [(0, 5, 15), (0, 10, 15), (0, 5, 15, 20, 30)])
def test_the_usual_distance_is_one_that_slices_have(
    tmp_path: Path, heights_mm: tuple[float, ...]
) -> None:
    """Half of the gaps have 5 mm and half 10 mm; none has 7.5 mm."""
    image = volume(tmp_path, stack(*heights_mm))

    assert image.spacing.slice_mm == pytest.approx(5.0)
    assert image.affine is not None
    assert image.affine[2, 2] == pytest.approx(5.0)
    assert image.details["flags"] == {Flag.MISSING_SLICES}


@pytest.mark.parametrize(("degrees", "tilted"), [(0.0, False), (0.2, False), (15.0, True)])
def test_slices_that_slide_along_themselves_were_tilted(
    tmp_path: Path, degrees: float, tilted: bool
) -> None:
    shift = float(np.tan(np.radians(degrees)))

    image = volume(tmp_path, stack(0, 5, 10, shift_mm=shift))

    assert image.details["flags"] == ({Flag.GANTRY_TILT} if tilted else set())
    # The affine follows the slices, so a tilted volume is not straightened by silence.
    assert image.affine is not None
    np.testing.assert_allclose(image.affine[:3, 2], [0.0, -5 * shift, 5.0], atol=1e-9)
    assert image.spacing.slice_mm == pytest.approx(5.0)


@pytest.mark.parametrize("count", [1, 3])
def test_the_header_may_say_the_tilt(tmp_path: Path, count: int) -> None:
    heights = [5.0 * index for index in range(count)]

    said = volume(tmp_path / "a", stack(*heights), GantryDetectorTilt=-12.0)
    straight = volume(tmp_path / "b", stack(*heights), GantryDetectorTilt=0)

    assert said.details["flags"] == {Flag.GANTRY_TILT}
    assert straight.details["flags"] == frozenset()


@pytest.mark.parametrize(
    "places",
    [
        [*stack(0, 1, 2), [6.0, 0.0, 3.0], *stack(4, 5, 6)],  # one slice of a moved field of view
        [*stack(0, 1, 2, 3), [6.0, 0.0, 4.0], [6.0, 0.0, 5.0], [6.0, 0.0, 6.0]],  # two stations
        stack(*np.arange(20.0), *(19 + 1.045 * np.arange(1, 20))),  # each gap is right, all are not
    ],
)
def test_slices_beside_a_straight_line_are_no_regular_volume(
    tmp_path: Path, places: list[list[float]]
) -> None:
    image = volume(tmp_path, places)

    assert image.details["flags"] == {Flag.IRREGULAR_SPACING}
    assert image.details["regular_spacing"] is False


def test_positions_rounded_to_tenths_are_regular(tmp_path: Path) -> None:
    heights = np.arange(40) * 0.75
    tilted = [[0.0, round(0.2 * height, 1), round(height, 2)] for height in heights]
    image = volume(tmp_path, tilted)

    assert image.details["flags"] == {Flag.GANTRY_TILT}
    assert image.details["regular_spacing"] is True
