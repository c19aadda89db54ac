import contextlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from factories import AXIAL, SAGITTAL, write_dicom_slice
from factories_labels import (
    write_labelled_series,
    write_plain_seg,
    write_rtstruct,
    write_seg,
)
from vismae.core.errors import UnreadableFileError
from vismae.core.types import MedicalImage
from vismae.files.dicom import read_dicom
from vismae.files.dicom_labels import LabelObject, describe_labels, read_dicom_labels
from vismae.files.discover import SourceFile

pytest.importorskip("highdicom")

OBLIQUE = [0.8, 0.6, 0.0, 0.0, 0.0, -1.0]
SHAPE = (6, 20, 24)


def source(path: Path) -> SourceFile:
    return SourceFile(path, None, "dicom")


def series_of(folder: Path, orientation: list[float] = AXIAL, **options: Any) -> list[Path]:
    return write_labelled_series(
        folder,
        np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16),
        spacing_mm=options.pop("spacing_mm", (3.0, 0.7, 1.1)),
        origin=(-20.3, 11.7, 40.1),
        orientation=orientation,
        **options,
    )


def image_of(paths: list[Path]) -> MedicalImage:
    [image] = read_dicom([source(path) for path in reversed(paths)])
    return image


def header(path: Path) -> Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True)


def edit(path: Path, **tags: Any) -> Path:
    dataset = pydicom.dcmread(path)
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path)
    return path


def asymmetric(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """An L that no flip, turn or swap of slices maps onto itself."""
    inside = np.zeros(shape, dtype=bool)
    inside[1:4, 3:12, 2:5] = True
    inside[1, 9:12, 2:15] = True
    return inside


def reason_of(path: Path, image: MedicalImage, values: dict[str, int] | None = None) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        read_dicom_labels(source(path), image, values or {"Liver": 1})
    assert path.name in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, OBLIQUE], ids=["axial", "sag", "oblique"])
@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_a_segmentation_lies_where_it_was_drawn(
    tmp_path: Path, kind: str, orientation: list[float]
) -> None:
    series = series_of(tmp_path / "ct", orientation)
    liver, tumour = asymmetric(), np.roll(asymmetric(), (2, 5, 8), axis=(0, 1, 2))
    tumour &= ~liver
    path = write_seg(tmp_path / "s.dcm", series, {"Liver": liver, "Tumour": tumour}, kind)

    label_map, overlapping = read_dicom_labels(
        source(path), image_of(series), {"Tumour": 7, "Liver": 4}
    )

    assert label_map.dtype == np.int32
    np.testing.assert_array_equal(label_map, liver * 4 + tumour * 7)
    assert not overlapping


def test_a_segmentation_describes_itself_without_pixels(tmp_path: Path) -> None:
    series = series_of(tmp_path / "ct")
    path = write_seg(
        tmp_path / "s.dcm", series, {"Liver": asymmetric(), "Jane's cyst": ~asymmetric()}
    )

    described = describe_labels(header(path), path.name)

    assert described == pickle.loads(pickle.dumps(described))
    assert described.kind == "seg"
    assert described.series == (str(header(series[0]).SeriesInstanceUID),)
    assert described.frame_of_reference == "1.2.3.4"
    assert described.structures[0] == "Liver"
    assert described.structures[1].startswith("structure-")


def test_pixels_agree_with_those_that_highdicom_reads(tmp_path: Path) -> None:
    import highdicom as hd

    rng = np.random.default_rng(0)
    series = series_of(tmp_path / "ct", OBLIQUE)
    segments = {f"s{n}": rng.random(SHAPE) > 0.7 for n in range(3)}
    segments["s1"][2:5] = False  # frames that are left out
    path = write_seg(tmp_path / "s.dcm", series, segments)
    uids = [str(header(image).SOPInstanceUID) for image in series]
    reference = hd.seg.segread(path).get_pixels_by_source_instance(uids)

    for number, name in enumerate(segments):
        label_map, _ = read_dicom_labels(source(path), image_of(series), {name: 1})
        np.testing.assert_array_equal(label_map, reference[..., number])


def test_fractions_count_from_half(tmp_path: Path) -> None:
    series = series_of(tmp_path / "ct")
    share = np.linspace(0, 1, int(np.prod(SHAPE))).reshape(SHAPE)
    path = write_seg(
        tmp_path / "s.dcm", series, {"Liver": share}, "FRACTIONAL", max_fractional_value=200
    )

    label_map, _ = read_dicom_labels(source(path), image_of(series), {"Liver": 1})

    np.testing.assert_array_equal(label_map, np.around(share * 200) >= 100)


def test_small_structures_stay_visible_and_overlap_is_told(tmp_path: Path) -> None:
    series = series_of(tmp_path / "ct")
    large, small = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    large[:, 2:15, 2:15] = True
    small[3, 5:7, 5:7] = True
    path = write_seg(tmp_path / "s.dcm", series, {"tumour": small, "liver": large})
    image = image_of(series)

    label_map, overlapping = read_dicom_labels(source(path), image, {"tumour": 2, "liver": 1})

    np.testing.assert_array_equal(label_map, np.where(small, 2, large))
    assert overlapping
    assert not read_dicom_labels(source(path), image, {"tumour": 2})[1]
    assert not read_dicom_labels(source(path), image, {"tumour": 2, "liver": 2})[1]


@pytest.mark.parametrize("factor", [1, 2])
def test_a_segmentation_on_another_parallel_grid_is_resampled(tmp_path: Path, factor: int) -> None:
    """Drawn on a finer series that starts elsewhere; compared with a nearest-neighbour look-up."""
    coarse = series_of(tmp_path / "pet", spacing_mm=(3.0, 2.0, 2.0))
    rng = np.random.default_rng(1)
    inside = rng.random((14, 40, 44)) > 0.5
    fine = write_labelled_series(
        tmp_path / "ct",
        inside.astype(np.int16),
        spacing_mm=(1.5 * factor, 0.9, 1.3),
        origin=(-25.0, 8.0, 37.5),
        StudyInstanceUID=header(coarse[0]).StudyInstanceUID,
    )
    path = write_seg(tmp_path / "s.dcm", fine, {"Liver": inside})
    image = image_of(coarse)
    image.details["frame_of_reference"] = "1.2.3.4"

    label_map, _ = read_dicom_labels(source(path), image, {"Liver": 1})

    size = np.array([1.5 * factor, 0.9, 1.3])
    start = np.array([40.1, 11.7, -20.3]) - [37.5, 8.0, -25.0]  # slice, row, column
    places = np.stack(np.indices(SHAPE), axis=-1) * [3.0, 2.0, 2.0] + start
    # Between two planes either is the nearest; these offsets leave no such ties in the plane.
    index = np.rint(places / size - [1e-6, 0, 0]).astype(int)
    within = ((index >= 0) & (index < inside.shape)).all(axis=-1)
    expected = np.zeros(SHAPE, bool)
    expected[within] = inside[tuple(index[within].T)]
    assert 0.05 < expected.mean() < 0.6
    np.testing.assert_array_equal(label_map, expected)


def test_frames_of_another_time_point_are_not_taken_over(tmp_path: Path) -> None:
    tags = {"StudyInstanceUID": "1.2.9", "SeriesInstanceUID": "1.2.10"}
    before = series_of(tmp_path / "a", AcquisitionNumber=1, **tags)
    after = series_of(tmp_path / "b", AcquisitionNumber=2, instance_numbers=range(11, 17), **tags)
    path = write_seg(tmp_path / "s.dcm", before, {"Liver": asymmetric()})
    images = read_dicom([source(file) for file in [*before, *after]])
    drawn_on = {str(header(file).SOPInstanceUID) + ":1" for file in before}
    [drawn] = [image for image in images if set(image.details["slice_keys"]) == drawn_on]
    [other] = [image for image in images if image is not drawn]

    assert read_dicom_labels(source(path), drawn, {"Liver": 1})[0].any()
    assert reason_of(path, other) == "label-geometry"


def test_a_segmentation_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    series = series_of(tmp_path / "ct")
    path = write_seg(tmp_path / "s.dcm", series, {"Liver": asymmetric()})
    other_space = image_of(series)
    other_space.details.update(frame_of_reference="9.9", series_uid="9.9.1")
    turned = image_of(series_of(tmp_path / "sag", SAGITTAL))
    turned.details["frame_of_reference"] = "1.2.3.4"
    stranger = image_of(series_of(tmp_path / "other"))
    stranger.details["frame_of_reference"] = None
    far = image_of(write_labelled_series(tmp_path / "far", np.ones(SHAPE, np.int16)))
    far.details["frame_of_reference"] = "1.2.3.4"

    assert reason_of(path, other_space) == "label-geometry"
    assert reason_of(path, turned) == "label-geometry"
    assert reason_of(path, stranger) == "label-geometry"
    assert reason_of(path, far) == "label-geometry"


def test_radiographs_without_positions_are_matched_by_reference(tmp_path: Path) -> None:
    tags = {"Modality": "CR", "SeriesInstanceUID": "1.2.10", "StudyInstanceUID": "1.2.9"}
    inside = asymmetric()[1]
    film = write_dicom_slice(tmp_path / "x.dcm", inside.astype(np.uint16), **tags)
    path = write_plain_seg(tmp_path / "s.dcm", inside, film)
    [image] = read_dicom([source(film)])

    label_map, _ = read_dicom_labels(source(path), image, {"Lung": 3})

    np.testing.assert_array_equal(label_map[0], inside * 3)
    other = write_dicom_slice(tmp_path / "y.dcm", inside.astype(np.uint16), **tags)
    assert reason_of(path, read_dicom([source(other)])[0], {"Lung": 3}) == "label-geometry"
    smaller = write_dicom_slice(
        tmp_path / "z.dcm",
        inside[:9].astype(np.uint16),
        **tags,
        SOPInstanceUID=header(film).SOPInstanceUID,
    )
    assert reason_of(path, read_dicom([source(smaller)])[0], {"Lung": 3}) == "label-geometry"


def test_other_objects_and_empty_ones_have_their_reasons(tmp_path: Path) -> None:
    series = series_of(tmp_path / "ct")
    image = image_of(series)
    empty = write_seg(tmp_path / "e.dcm", series, {"Liver": asymmetric()})
    edit(empty, SegmentSequence=[])
    cut = write_seg(tmp_path / "c.dcm", series, {"Liver": asymmetric()})
    cut.write_bytes(cut.read_bytes()[:-60])
    no_area = write_rtstruct(tmp_path / "p.dcm", series, {"x": [np.zeros((1, 3))]}, {"x": "POINT"})

    assert reason_of(series[0], image) == "label-format"
    assert reason_of(empty, image) == "label-empty"
    assert reason_of(no_area, image) == "label-empty"
    assert reason_of(cut, image) in ("truncated", "undecodable")
    image.details.pop("planes")
    assert reason_of(cut, image) == "label-geometry"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", range(30))
def test_random_damage_never_raises_anything_else(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    series = series_of(tmp_path / "ct")
    image = image_of(series)
    square = np.array([[0, 0, 43.0], [9, 0, 43], [9, 9, 43], [0, 9, 43]])
    for path in (
        write_seg(tmp_path / "s.dcm", series, {"Liver": asymmetric()}),
        write_rtstruct(tmp_path / "r.dcm", series, {"Liver": [square]}),
    ):
        content = bytearray(path.read_bytes())
        for place in rng.integers(0, len(content), 8):
            content[place] = rng.integers(256)
        path.write_bytes(content[: rng.integers(len(content) // 2, len(content) + 1)])
        with contextlib.suppress(UnreadableFileError):
            read_dicom_labels(source(path), image, {"Liver": 1})


@pytest.mark.real_data
def test_a_real_liver_segmentation_is_drawn_on_slices_at_its_places(
    test_data: Path, tmp_path: Path
) -> None:
    """Its images are not public with it, so slices with their identifiers stand in for them."""
    path = test_data / "data" / "dicom_nifti" / "dicom_testsuite" / "liver_1frame.dcm"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    seg = pydicom.dcmread(path)
    described = describe_labels(seg, path.name)
    assert described == LabelObject(
        "seg", described.series, str(seg.FrameOfReferenceUID), ("Liver",)
    )
    frames = seg.PerFrameFunctionalGroupsSequence  # of three slices; the file holds one frame
    uids = [
        str(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        for frame in frames
    ]
    spacing = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    origin = [float(v) for v in frames[0].PlanePositionSequence[0].ImagePositionPatient]
    series = write_labelled_series(
        tmp_path,
        np.zeros((len(frames), seg.Rows, seg.Columns), np.int16),
        spacing_mm=(1.0, float(spacing[0]), float(spacing[1])),
        origin=origin,
        SeriesInstanceUID=described.series[0],
        SOPInstanceUID_each=uids,
    )

    label_map, overlapping = read_dicom_labels(source(path), image_of(series), {"Liver": 1})

    np.testing.assert_array_equal(label_map[0], seg.pixel_array)
    assert label_map[0].any()
    assert not label_map[1:].any()
    assert not overlapping


def test_frames_of_single_bits_that_end_within_a_byte_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 100, (4, 5, 7)).astype(np.int16)
    series = write_labelled_series(tmp_path / "ct", volume)
    path = write_seg(tmp_path / "s.dcm", series, {"Liver": volume > 50, "Spleen": volume < 20})

    label_map, overlapping = read_dicom_labels(
        source(path), image_of(series), {"Liver": 1, "Spleen": 2}
    )

    np.testing.assert_array_equal(label_map, (volume > 50) + 2 * (volume < 20))
    assert not overlapping
