"""Windows that are recorded, tables that are applied, and the order of both with MONOCHROME1."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.pixels.processing import apply_voi_lut
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID

from factories import PET_TAGS, write_dicom_series, write_dicom_slice, write_enhanced_ct
from vismae.core.types import MedicalImage, PixelUnit
from vismae.files.dicom import read_dicom
from vismae.files.dicom_window import display_window
from vismae.files.discover import SourceFile

RAMP = np.arange(16, dtype=np.uint16).reshape(2, 8)


def read(*paths: Path) -> MedicalImage:
    [image] = read_dicom([SourceFile(path, None, "dicom") for path in paths])
    return image


def table(values: list[int], first: int = 0, bits: int = 12) -> DicomSequence:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item.LUTData = np.array(values, np.uint16).tobytes()
    item["LUTData"].VR = "OW"
    return DicomSequence([item])


def header(**tags: Any) -> Dataset:
    dataset = Dataset()
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    return dataset


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (None, (-160.0, 239.0)),
        ("LINEAR", (-160.0, 239.0)),
        ("LINEAR_EXACT", (-160.0, 240.0)),
        ("SIGMOID", (-160.0, 240.0)),
    ],
)
def test_the_ends_of_a_window_are_the_standards(
    function: str | None, expected: tuple[float, float]
) -> None:
    dataset = header(WindowCenter=40, WindowWidth=400)
    if function:
        dataset.VOILUTFunction = function

    assert display_window(dataset, 0) == expected


def test_the_recorded_ends_are_where_pydicom_paints_black_and_white() -> None:
    dataset = header(
        WindowCenter=40.0,
        WindowWidth=400.0,
        BitsStored=16,
        PixelRepresentation=1,
        PhotometricInterpretation="MONOCHROME2",
        RescaleSlope=1.0,
        RescaleIntercept=0.0,
    )
    window = display_window(dataset, 0)
    assert window is not None
    values = np.array([window[0] - 1, window[0], window[0] + 2, window[1] - 2, window[1] + 1])

    painted = apply_voi_lut(values.astype(np.int16), dataset)

    low, high = painted.min(), painted.max()
    assert (painted == low).tolist() == [True, True, False, False, False]
    assert (painted == high).tolist() == [False, False, False, False, True]


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"WindowCenter": 40},
        {"WindowCenter": 40, "WindowWidth": 0},
        {"WindowCenter": 40, "WindowWidth": 0.5},
        {"WindowCenter": 40, "WindowWidth": -1, "VOILUTFunction": "SIGMOID"},
    ],
)
def test_windows_that_mean_nothing_are_none(tags: dict[str, Any]) -> None:
    assert display_window(header(**tags), 0) is None


def test_the_first_of_several_windows_counts() -> None:
    assert display_window(header(WindowCenter=[40, 600], WindowWidth=[401, 2001]), 0) == (
        -160.5,
        239.5,
    )


def test_a_linear_window_changes_no_pixel(tmp_path: Path) -> None:
    path = write_dicom_slice(tmp_path / "c.dcm", RAMP, WindowCenter=40, WindowWidth=400)

    image = read(path)

    np.testing.assert_array_equal(image.pixels[0], RAMP)
    assert image.details["window"] == (-160.0, 239.0)


def test_the_window_of_a_volume_is_the_median_of_its_slices(tmp_path: Path) -> None:
    paths = write_dicom_series(
        tmp_path,
        np.zeros((3, 4, 4), np.int16),
        Modality="MR",
        VOILUTFunction="LINEAR_EXACT",
        WindowCenter_each=[100, 110, 500],
        WindowWidth_each=[100, 100, 900],
    )

    assert read(*paths).details["window"] == (50.0, 160.0)


def test_a_pet_window_is_in_suv(tmp_path: Path) -> None:
    path = write_dicom_slice(
        tmp_path / "p.dcm",
        RAMP,
        **{**PET_TAGS, "VOILUTFunction": "LINEAR_EXACT", "WindowCenter": 500, "WindowWidth": 1000},
    )

    image = read(path)

    factor = image.slope / 2.0
    assert image.details["window"] == pytest.approx((0.0, 1000.0 * factor))


def test_enhanced_images_have_the_window_in_a_group_of_the_frame(tmp_path: Path) -> None:
    window, per_frame = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 40, 400
    per_frame.FrameVOILUTSequence = DicomSequence([window])
    path = write_enhanced_ct(
        tmp_path / "e.dcm",
        np.zeros((1, 4, 4), np.int16),
        positions=[[0, 0, 0]],
        rescales=[(1.0, 0.0)],
        PerFrameFunctionalGroupsSequence=DicomSequence([per_frame]),
        RescaleSlope=1.0,
        RescaleIntercept=0.0,
    )

    assert read(path).details["window"] == (-160.0, 239.0)


def test_turning_monochrome1_round_turns_the_window_too(tmp_path: Path) -> None:
    path = write_dicom_slice(
        tmp_path / "x.dcm",
        RAMP,
        Modality="DX",
        PhotometricInterpretation="MONOCHROME1",
        BitsStored=12,
        HighBit=11,
        VOILUTFunction="LINEAR_EXACT",
        WindowCenter=1000,
        WindowWidth=400,
    )

    assert read(path).details["window"] == (4095.0 - 1200.0, 4095.0 - 800.0)


def test_a_voi_table_of_a_radiograph_is_applied(tmp_path: Path) -> None:
    values = [0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100, 121, 144, 169, 196, 225]
    path = write_dicom_slice(
        tmp_path / "x.dcm",
        RAMP,
        Modality="DX",
        VOILUTSequence=table(values),
        WindowCenter=8,
        WindowWidth=16,
    )

    image = read(path)

    np.testing.assert_array_equal(image.pixels[0], RAMP**2)
    assert image.unit is PixelUnit.DISPLAY
    assert image.details["window"] is None


def tomosynthesis(path: Path, groups: list[DicomSequence | None], **shared: Any) -> MedicalImage:
    """Read a multi-frame image in which each frame has a VOI table, or all share one."""
    per_frame = []
    for tables in groups:
        frame = Dataset()
        if tables is not None:
            frame.FrameVOILUTSequence = DicomSequence([header(VOILUTSequence=tables)])
        per_frame.append(frame)
    write_dicom_slice(
        path,
        np.stack([RAMP] * len(groups)),
        Modality="MG",
        SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.13.1.3"),
        PerFrameFunctionalGroupsSequence=DicomSequence(per_frame),
        SharedFunctionalGroupsSequence=DicomSequence([header(**shared)]),
    )
    return read(path)


def test_the_voi_table_of_a_tomosynthesis_stands_in_its_functional_groups(tmp_path: Path) -> None:
    squares = table((np.arange(16) ** 2).tolist())
    holder = header(VOILUTSequence=squares, WindowCenter=8, WindowWidth=16)

    image = tomosynthesis(
        tmp_path / "x.dcm", [None, None], FrameVOILUTSequence=DicomSequence([holder])
    )

    np.testing.assert_array_equal(image.pixels, [RAMP**2, RAMP**2])
    assert image.details["window"] is None


def test_each_frame_has_its_own_voi_table_or_none_is_applied(tmp_path: Path) -> None:
    squares, doubled = ((np.arange(16) ** 2).tolist(), (np.arange(16) * 2).tolist())

    both = tomosynthesis(tmp_path / "b.dcm", [table(squares), table(doubled)])
    one = tomosynthesis(tmp_path / "o.dcm", [table(squares), None])
    unlike = tomosynthesis(tmp_path / "u.dcm", [table(squares), table(doubled, bits=10)])

    np.testing.assert_array_equal(both.pixels, [RAMP**2, RAMP * 2])
    np.testing.assert_array_equal(one.pixels, [RAMP, RAMP])
    np.testing.assert_array_equal(unlike.pixels, [RAMP, RAMP])


def test_the_table_comes_before_monochrome1_and_after_the_rescale(tmp_path: Path) -> None:
    path = write_dicom_slice(
        tmp_path / "x.dcm",
        np.array([[0, 1, 2, 3]], np.uint16),
        Modality="DX",
        PhotometricInterpretation="MONOCHROME1",
        RescaleSlope=2.0,
        RescaleIntercept=10.0,
        VOILUTSequence=table([0, 0, 100, 0, 200, 0, 4000], first=10),
    )

    image = read(path)

    # Rescaled 10, 12, 14, 16; looked up 0, 100, 200, 4000; turned round in the table's 12 bits.
    np.testing.assert_array_equal(image.pixels[0], [[4095, 3995, 3895, 95]])
    assert (image.slope, image.intercept) == (1.0, 0.0)


def test_a_voi_table_leaves_hounsfield_units_alone(tmp_path: Path) -> None:
    path = write_dicom_slice(tmp_path / "c.dcm", RAMP, VOILUTSequence=table([0] * 16))

    image = read(path)

    np.testing.assert_array_equal(image.pixels[0], RAMP)
    assert image.unit is PixelUnit.HU


def test_a_damaged_table_is_left_out(tmp_path: Path) -> None:
    path = write_dicom_slice(
        tmp_path / "x.dcm", RAMP, Modality="DX", VOILUTSequence=table([0] * 16, bits=40)
    )

    np.testing.assert_array_equal(read(path).pixels[0], RAMP)


def test_a_modality_table_comes_before_monochrome1(tmp_path: Path) -> None:
    modality_table = table([5, 50, 500, 4000], bits=12)
    modality_table[0].ModalityLUTType = "US"
    path = write_dicom_slice(
        tmp_path / "x.dcm",
        np.array([[0, 1, 2, 3]], np.uint16),
        Modality="DX",
        PhotometricInterpretation="MONOCHROME1",
        ModalityLUTSequence=modality_table,
    )

    np.testing.assert_array_equal(read(path).pixels[0], [[4090, 4045, 3595, 95]])
