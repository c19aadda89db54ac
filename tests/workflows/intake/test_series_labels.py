"""A DICOM series whose folder a table names, with one label map for all of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from factories import AXIAL, SAGITTAL, write_dicom_series, write_nifti, write_png
from vismae.core.config import IngestConfig
from vismae.workflows.ingest import IngestResult, ingest

VOLUME = np.random.default_rng(0).integers(0, 900, (4, 12, 10)).astype(np.int16)
CLASSES = (VOLUME > 500).astype(np.uint8)
SPACING = (5.0, 1.5, 1.25)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_of(orientation: Sequence[float], spacing_mm: Sequence[float]) -> np.ndarray:
    """Voxel (column, row, slice) of ``write_dicom_series`` to RAS mm."""
    rows, columns = np.array(orientation[:3]), np.array(orientation[3:])
    affine = np.eye(4)
    affine[:3, 0] = rows * spacing_mm[2]
    affine[:3, 1] = columns * spacing_mm[1]
    affine[:3, 2] = np.cross(rows, columns) * spacing_mm[0]
    return LPS_TO_RAS @ affine


def run(folder: Path, label_map: str) -> IngestResult:
    table = folder / "list.csv"
    table.write_text(f"path,label_map\nct,{label_map}\n", encoding="utf-8")
    return ingest(IngestConfig(sources=(table,), store=folder / "s", executor="here"))


@pytest.mark.parametrize(
    "orientation",
    [
        pytest.param(AXIAL, id="supine"),
        pytest.param([-1.0, 0, 0, 0, -1.0, 0], id="prone"),
        pytest.param([1.0, 0, 0, 0, 0, -1.0], id="coronal"),
        pytest.param(SAGITTAL, id="sagittal"),
        pytest.param([0, 1.0, 0, 1.0, 0, 0], id="turned"),
    ],
)
@pytest.mark.parametrize("spacing_mm", [SPACING, (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("stored_backwards", [False, True])
def test_it_lies_on_the_slices_however_both_are_stored(
    tmp_path: Path,
    orientation: list[float],
    spacing_mm: tuple[float, float, float],
    stored_backwards: bool,
) -> None:
    write_dicom_series(tmp_path / "ct", VOLUME, spacing_mm, orientation=orientation)
    voxels, affine = CLASSES.transpose(2, 1, 0), affine_of(orientation, spacing_mm)
    if stored_backwards:
        affine[:3, 3] += affine[:3, 0] * (voxels.shape[0] - 1)
        affine[:3, 0] *= -1
        voxels, affine = voxels[::-1].transpose(2, 0, 1), affine[:, [2, 0, 1, 3]]
    write_nifti(tmp_path / "seg.nii.gz", np.ascontiguousarray(voxels), affine)

    result = run(tmp_path, "seg.nii.gz")

    assert (result.stored, result.reasons) == (4, {})
    for row in range(4):
        found = result.store.read(row)
        np.testing.assert_array_equal(found.label_map, found.pixels > 500)


def test_one_of_other_slices_is_told(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "ct", VOLUME, SPACING)
    affine = affine_of(AXIAL, SPACING)
    write_nifti(tmp_path / "short.nii.gz", CLASSES[:3].transpose(2, 1, 0).copy(), affine)

    result = run(tmp_path, "short.nii.gz")

    assert (result.stored, result.reasons) == (4, {"label-shape": 1})
    assert not result.store.index["has_label_map"].any()


def test_a_picture_may_be_that_of_every_slice(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "ct", VOLUME, SPACING)
    write_png(tmp_path / "field.png", CLASSES[0])

    result = run(tmp_path, "field.png")

    assert (result.stored, result.reasons) == (4, {})
    for row in range(4):
        np.testing.assert_array_equal(result.store.read(row).label_map, CLASSES[0])
