from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from factories import AXIAL, SAGITTAL
from factories_labels import write_labelled_series, write_rtstruct
from vismae.core.errors import UnreadableFileError
from vismae.core.types import MedicalImage
from vismae.files.dicom import read_dicom
from vismae.files.dicom_labels import describe_labels, read_dicom_labels
from vismae.files.discover import SourceFile

OBLIQUE = [0.8, 0.6, 0.0, 0.0, 0.0, -1.0]
SHAPE = (5, 24, 30)
SPACING = (3.0, 0.7, 1.1)
ORIGIN = np.array([-20.3, 11.7, 40.1])
# An L whose corners lie between pixel centres, as (row, column).
L_SHAPE = np.array([[2.4, 3.6], [2.4, 6.3], [15.7, 6.3], [15.7, 20.2], [18.6, 20.2], [18.6, 3.6]])


def source(path: Path) -> SourceFile:
    return SourceFile(path, None, "dicom")


def series_of(folder: Path, orientation: list[float] = AXIAL, **options: Any) -> list[Path]:
    volume = np.zeros(SHAPE, np.int16)
    return write_labelled_series(
        folder, volume, spacing_mm=SPACING, origin=ORIGIN, orientation=orientation, **options
    )


def image_of(paths: list[Path]) -> MedicalImage:
    [image] = read_dicom([source(path) for path in paths])
    return image


def in_patient(pixels: np.ndarray, place: float, orientation: list[float] = AXIAL) -> np.ndarray:
    """Return mm, LPS, of (row, column) on a slice; between slices for a broken number."""
    along, down = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(along, down)
    row, column = np.asarray(pixels, float).T[..., None]
    return (
        ORIGIN + row * SPACING[1] * down + column * SPACING[2] * along + place * SPACING[0] * normal
    )


def l_pixels() -> np.ndarray:
    inside = np.zeros(SHAPE[1:], dtype=np.int32)
    inside[3:19, 4:7] = 1
    inside[16:19, 4:21] = 1
    return inside


def read(path: Path, image: MedicalImage, **values: int) -> np.ndarray:
    return read_dicom_labels(source(path), image, values)[0]


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, OBLIQUE], ids=["axial", "sag", "oblique"])
def test_a_known_shape_lies_the_right_way_round(tmp_path: Path, orientation: list[float]) -> None:
    series = series_of(tmp_path / "ct", orientation)
    contours = {"organ": [in_patient(L_SHAPE, place, orientation) for place in (1, 2)]}
    path = write_rtstruct(tmp_path / "r.dcm", series, contours)

    label_map = read(path, image_of(series), organ=5)

    expected = np.zeros(SHAPE, dtype=np.int32)
    expected[1:3] = l_pixels() * 5
    np.testing.assert_array_equal(label_map, expected)


def test_random_contours_agree_with_simpleitk_points_in_polygon(tmp_path: Path) -> None:
    """SimpleITK gives the places of pixel centres, matplotlib says which are inside."""
    sitk = pytest.importorskip("SimpleITK")
    from matplotlib.path import Path as Outline

    rng = np.random.default_rng(3)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 60))
    radius = rng.uniform(4, 11, 60)
    pixels = np.stack([12.3 + radius * np.sin(angle), 14.8 + radius * np.cos(angle)], axis=1)
    series = series_of(tmp_path / "ct", OBLIQUE)
    outline = in_patient(pixels, 2, OBLIQUE)
    path = write_rtstruct(tmp_path / "r.dcm", series, {"organ": [outline]})

    label_map = read(path, image_of(series), organ=1)

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in series])
    image = reader.Execute()
    along, down = np.array(OBLIQUE[:3]), np.array(OBLIQUE[3:])
    centres = np.array(
        [
            [image.TransformIndexToPhysicalPoint((column, row, 2)) for column in range(SHAPE[2])]
            for row in range(SHAPE[1])
        ]
    )
    flat = np.stack([centres @ along, centres @ down], axis=-1).reshape(-1, 2)
    polygon = np.stack([outline @ along, outline @ down], axis=-1)
    expected = Outline(polygon).contains_points(flat).reshape(SHAPE[1:])
    np.testing.assert_array_equal(label_map[2], expected)
    assert not label_map[[0, 1, 3, 4]].any()


def test_inner_contours_are_holes_on_their_own_slice_only(tmp_path: Path) -> None:
    series = series_of(tmp_path / "ct")
    outer = np.array([[1.5, 1.5], [1.5, 12.5], [12.5, 12.5], [12.5, 1.5]])
    inner = np.array([[4.5, 4.5], [4.5, 8.5], [8.5, 8.5], [8.5, 4.5]])
    contours = [in_patient(outer, 1), in_patient(inner, 1), in_patient(outer, 2)]
    path = write_rtstruct(tmp_path / "r.dcm", series, {"ring": contours})

    label_map = read(path, image_of(series), ring=1)

    assert [int(area) for area in label_map.sum(axis=(1, 2))] == [0, 121 - 16, 121, 0, 0]
    assert not label_map[1, 5:9, 5:9].any()


def test_contours_between_slices_go_to_the_nearest_within_half_a_spacing(tmp_path: Path) -> None:
    series = series_of(tmp_path / "ct")
    contours = [in_patient(L_SHAPE, place) for place in (-0.4, 1.3, 3.7, 4.6)]
    path = write_rtstruct(tmp_path / "r.dcm", series, {"organ": contours})

    label_map = read(path, image_of(series), organ=1)

    assert [bool(inside.any()) for inside in label_map] == [True, True, False, False, True]


def test_of_two_planes_near_one_slice_the_nearer_counts_and_they_do_not_cancel(
    tmp_path: Path,
) -> None:
    series = series_of(tmp_path / "ct")
    far = L_SHAPE * 0.8
    contours = [in_patient(far, 1.8), in_patient(L_SHAPE, 2.1), in_patient(far, 2.4)]
    path = write_rtstruct(tmp_path / "r.dcm", series, {"organ": contours})

    np.testing.assert_array_equal(read(path, image_of(series), organ=1)[2], l_pixels())


def test_half_way_between_slices_the_image_that_a_contour_names_decides(tmp_path: Path) -> None:
    series = series_of(tmp_path / "ct")
    for wanted in (1, 2):
        path = write_rtstruct(
            tmp_path / f"{wanted}.dcm", series, {"organ": [in_patient(L_SHAPE, 1.5)]}
        )
        dataset = pydicom.dcmread(path)
        contour = dataset.ROIContourSequence[0].ContourSequence[0]
        uid = pydicom.dcmread(series[wanted]).SOPInstanceUID
        contour.ContourImageSequence[0].ReferencedSOPInstanceUID = uid
        dataset.save_as(path)

        label_map = read(path, image_of(series), organ=1)

        assert np.flatnonzero(label_map.any(axis=(1, 2))).tolist() == [wanted]


def test_points_and_open_contours_enclose_nothing(tmp_path: Path) -> None:
    series = series_of(tmp_path / "ct")
    line = in_patient(L_SHAPE, 1)
    path = write_rtstruct(
        tmp_path / "r.dcm",
        series,
        {"organ": [in_patient(L_SHAPE, 2)], "isocentre": [line[:1]], "needle": [line], "none": []},
        {"isocentre": "POINT", "needle": "OPEN_PLANAR"},
    )

    described = describe_labels(pydicom.dcmread(path, stop_before_pixels=True), path.name)
    label_map = read(path, image_of(series), organ=1, needle=2, isocentre=3)

    assert described.kind == "rtstruct"
    assert described.structures == ("organ",)
    assert described.frame_of_reference == "1.2.3.4"
    assert described.series == (str(pydicom.dcmread(series[0]).SeriesInstanceUID),)
    assert np.unique(label_map).tolist() == [0, 1]


def test_contours_in_another_space_at_an_angle_or_far_away_are_refused(tmp_path: Path) -> None:
    series = series_of(tmp_path / "ct")
    image = image_of(series)
    image.details["frame_of_reference"] = None
    tilted = in_patient(L_SHAPE, 2) + np.linspace(0, 9, len(L_SHAPE))[:, None] * [0, 0, 1]
    far = in_patient(L_SHAPE, 40)
    stranger = write_rtstruct(
        tmp_path / "s.dcm",
        series,
        {"organ": [in_patient(L_SHAPE, 1)]},
        refer_to_images=False,
        ReferencedFrameOfReferenceSequence=None,
    )
    for path in (
        write_rtstruct(tmp_path / "t.dcm", series, {"organ": [tilted]}),
        write_rtstruct(tmp_path / "f.dcm", series, {"organ": [far]}),
        stranger,
    ):
        with pytest.raises(UnreadableFileError) as caught:
            read(path, image, organ=1)
        assert caught.value.reason == "label-geometry"

    image.details["frame_of_reference"] = "1.2.3.4"
    np.testing.assert_array_equal(read(stranger, image, organ=1)[1], l_pixels())


def test_numbers_that_are_no_points_are_damage(tmp_path: Path) -> None:
    series = series_of(tmp_path / "ct")
    path = write_rtstruct(tmp_path / "r.dcm", series, {"organ": [in_patient(L_SHAPE, 1)]})
    dataset = pydicom.dcmread(path)
    dataset.ROIContourSequence[0].ContourSequence[0].ContourData = ["1.0"] * 10
    dataset.save_as(path)

    with pytest.raises(UnreadableFileError, match="10 numbers") as caught:
        read(path, image_of(series), organ=1)
    assert caught.value.reason == "undecodable"
