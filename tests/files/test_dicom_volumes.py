"""Which frames of a series form one volume; stored values name measurement and place."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID

from factories import write_dicom_series, write_dicom_slice
from vismae.core.types import Flag, MedicalImage
from vismae.files.dicom import read_dicom
from vismae.files.discover import SourceFile

Place = tuple[int, float]  # stored value, height in mm


def series(folder: Path, places: Sequence[Place], **tags: Any) -> list[MedicalImage]:
    pixels = np.stack([np.full((4, 4), value, np.int16) for value, _ in places])
    heights = [[0.0, 0.0, height] for _, height in places]
    tags = {"Modality": "MR", "SliceThickness": 3.0, **tags}
    paths = write_dicom_series(folder, pixels, ImagePositionPatient_each=heights, **tags)
    return read_dicom([SourceFile(path, None, "dicom") for path in paths])


def values(images: Sequence[MedicalImage]) -> list[list[int]]:
    return [image.pixels[:, 0, 0].tolist() for image in images]


def two_stacks(shift_mm: float = 0.0) -> list[Place]:
    """1000 to 1003 and 2000 to 2003, 3 mm apart, one after the other at each place."""
    return [
        (1000 * kind + place, 3.0 * place + shift_mm * (kind - 1))
        for place in range(4)
        for kind in (1, 2)
    ]


WHOLE = [[1000, 1001, 1002, 1003], [2000, 2001, 2002, 2003]]


@pytest.mark.parametrize(
    ("keyword", "kinds"),
    [
        ("EchoNumbers", (1, 2)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("DiffusionBValue", (0.0, 800.0)),
        ("AcquisitionNumber", (1, 2)),
        ("AcquisitionTime", ("100000.5", "100007.0")),
        ("EchoTime", (10.0, 80.0)),
        ("TriggerTime", (0.0, 35.5)),
        ("InversionTime", (100.0, 900.0)),
        ("FlipAngle", (5.0, 15.0)),
        ("SequenceName", ("*ep_b0", "*ep_b1000t")),
        ("KVP", (80.0, 140.0)),
        ("ConvolutionKernel", ("B30f", "B70f")),
        ("ImageComments", ("WATER", "FAT")),
        ("DerivationDescription", ("40 keV", "70 keV")),
        ("SliceThickness", (1.0, 5.0)),
        ("FrameReferenceTime", (5000.0, 20000.0)),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
    ],
)
@pytest.mark.parametrize("shift_mm", [0.0, 0.4])
def test_a_missing_slice_does_not_mix_what_the_header_tells_apart(
    tmp_path: Path, keyword: str, kinds: Sequence[Any], shift_mm: float
) -> None:
    places = [place for place in two_stacks(shift_mm) if place[0] != 1001]
    each = [kinds[value // 1000 - 1] for value, _ in places]

    images = series(tmp_path, places, **{f"{keyword}_each": each})

    assert values(images) == [[1000, 1002, 1003], WHOLE[1]]
    assert [image.spacing.slice_mm for image in images] == pytest.approx([3.0, 3.0])


def test_phases_a_little_apart_are_two_regular_volumes(tmp_path: Path) -> None:
    places = two_stacks(0.4)
    numbers = [value // 1000 for value, _ in places]

    images = series(tmp_path, places, Modality="CT", AcquisitionNumber_each=numbers)

    assert values(images) == WHOLE
    assert [image.spacing.slice_mm for image in images] == pytest.approx([3.0, 3.0])
    assert all(image.details["regular_spacing"] for image in images)


@pytest.mark.parametrize(
    ("keyword", "first", "per_slice"),
    [("ContentTime", 100000.0, 1.0), ("AcquisitionTime", 100000.0, 1.0), ("TriggerTime", 5.0, 0.3)],
)
def test_phases_whose_slices_are_all_counted_from_1_follow_the_clock(
    tmp_path: Path, keyword: str, first: float, per_slice: float
) -> None:
    """No two slices have one time, and file names say nothing."""
    places = [*reversed(two_stacks())]
    each: list[Any] = [
        first + (10.0 if value >= 2000 else 0.0) + per_slice * (value % 1000) for value, _ in places
    ]
    if keyword != "TriggerTime":
        each = [f"{number:.1f}" for number in each]

    images = series(
        tmp_path,
        places,
        InstanceNumber_each=[value % 1000 + 1 for value, _ in places],
        **{f"{keyword}_each": each},
    )

    assert values(images) == WHOLE


def test_a_damaged_trigger_time_does_no_harm(tmp_path: Path) -> None:
    tags = {"TriggerTime_each": [0.0] * 8}
    images = series(tmp_path / "plain", two_stacks(), **tags)
    damaged = sorted((tmp_path / "plain").iterdir())
    for path in damaged:
        path.write_bytes(path.read_bytes().replace(b"DS\x04\x000.0 ", b"DS\x04\x00n/a "))

    again = read_dicom([SourceFile(path, None, "dicom") for path in damaged])

    assert values(again) == values(images) == WHOLE


def test_thick_slices_do_not_take_the_place_of_thin_ones(tmp_path: Path) -> None:
    """Both reconstructions lie in one series; the thick slices are numbered first."""
    thick = [(2000 + place, 5.0 * place) for place in range(3)]
    thin = [(1000 + place, 1.0 * place) for place in range(11)]
    thickness = [5.0] * 3 + [1.0] * 11

    images = series(tmp_path, [*thick, *thin], Modality="CT", SliceThickness_each=thickness)

    assert values(images) == [[2000, 2001, 2002], [1000 + place for place in range(11)]]
    assert [image.spacing.slice_mm for image in images] == [5.0, 1.0]


def test_slices_of_another_thickness_further_up_stay_in_their_stack(tmp_path: Path) -> None:
    places = [(1000 + place, 5.0 * place) for place in range(8)]

    [image] = series(tmp_path, places, Modality="CT", SliceThickness_each=[5.0] * 4 + [10.0] * 4)

    assert values([image]) == [[1000 + place for place in range(8)]]


def test_numbers_that_count_slices_divide_nothing(tmp_path: Path) -> None:
    places = two_stacks()
    echoes = [value // 1000 for value, _ in places]

    by_echo = series(
        tmp_path / "e", places, EchoNumbers_each=echoes, AcquisitionNumber_each=list(range(1, 9))
    )
    by_order = series(tmp_path / "o", places, AcquisitionNumber_each=list(range(1, 9)))

    assert values(by_echo) == WHOLE
    assert values(by_order) == WHOLE


@pytest.mark.parametrize("shift_mm", [0.0, 1.0], ids=["level", "one 1 mm to the left"])
def test_stations_of_a_spine_are_volumes_of_their_own(tmp_path: Path, shift_mm: float) -> None:
    """Sagittal slices in two stations, 200 mm above one another, numbered throughout."""
    places = [place for place in two_stacks() if place[0] != 1001]
    positions = [
        [-3.0 * (value % 1000) - shift_mm * (value >= 2000), 0.0, -200.0 * (value >= 2000)]
        for value, _ in places
    ]
    orientation = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]
    pixels = np.stack([np.full((4, 4), value, np.int16) for value, _ in places])
    paths = write_dicom_series(
        tmp_path,
        pixels,
        ImagePositionPatient_each=positions,
        orientation=orientation,
        Modality="MR",
    )

    images = read_dicom([SourceFile(path, None, "dicom") for path in paths])

    assert values(images) == [[1000, 1002, 1003], WHOLE[1]]
    assert not any(Flag.GANTRY_TILT in image.details["flags"] for image in images)
    tops = [image.affine[2, 3] for image in images if image.affine is not None]
    assert tops == [0.0, -200.0]


def test_slices_shifted_by_a_tilted_gantry_are_one_volume(tmp_path: Path) -> None:
    tilt = np.radians(30.0)
    orientation = [1.0, 0.0, 0.0, 0.0, float(np.cos(tilt)), float(np.sin(tilt))]
    pixels = np.zeros((30, 4, 4), np.int16)
    positions = [[0.0, 0.0, 10.0 * place] for place in range(30)]

    paths = write_dicom_series(
        tmp_path, pixels, ImagePositionPatient_each=positions, orientation=orientation
    )
    [image] = read_dicom([SourceFile(path, None, "dicom") for path in paths])

    assert image.details["flags"] == {Flag.GANTRY_TILT}


@pytest.mark.parametrize("shift_mm", [1.5, 12.0], ids=["interleaved", "one after the other"])
def test_packages_of_one_stack_stay_together(tmp_path: Path, shift_mm: float) -> None:
    places = two_stacks(shift_mm)
    numbers = [value // 1000 for value, _ in places]

    [image] = series(tmp_path, places, AcquisitionNumber_each=numbers)

    assert image.spacing.slice_mm == pytest.approx(min(shift_mm, 3.0))


def test_directions_of_one_b_value_are_not_mixed_with_the_image_without(tmp_path: Path) -> None:
    heights = [3.0 * place for place in range(3)]
    places = [(100 * kind + n, height) for n, height in enumerate(heights) for kind in (1, 2, 3)]
    places.remove((101, 3.0))
    weights = [0.0 if value < 200 else 800.0 for value, _ in places]

    images = series(tmp_path, places, DiffusionBValue_each=weights)

    assert values(images) == [[100, 102], [200, 201, 202], [300, 301, 302]]


@pytest.mark.parametrize("missing", [2000, 2002, 3003])
def test_a_missing_slice_does_not_mix_stacks_that_nothing_but_their_order_tells_apart(
    tmp_path: Path, missing: int
) -> None:
    """Energies of one scan, reconstructed one after the other."""
    places = [(1000 * kind + place, 3.0 * place) for kind in (1, 2, 3) for place in range(4)]
    places = [place for place in places if place[0] != missing]

    images = series(tmp_path, places, Modality="CT")

    whole = [[1000 * kind + place for place in range(4)] for kind in (1, 2, 3)]
    assert values(images) == [[value for value in stack if value != missing] for stack in whole]


def test_passes_of_a_table_that_goes_to_and_fro_are_not_mixed_where_a_slice_is_missing(
    tmp_path: Path,
) -> None:
    passes = [[1000, 1001, 1002, 1003], [2003, 2001, 2000], [3000, 3001, 3002, 3003]]
    places = [(value, 3.0 * (value % 1000)) for values in passes for value in values]

    images = series(tmp_path, places)

    assert values(images) == [sorted(of_one) for of_one in passes]


def test_a_slice_that_was_taken_twice_does_not_divide_its_stack(tmp_path: Path) -> None:
    places = [(1000 + place, 3.0 * place) for place in range(6)]
    places.insert(3, (2002, 6.0))

    images = series(tmp_path, places, Modality="CT")

    assert values(images) == [[1000 + place for place in range(6)], [2002]]


def enhanced_values(path: Path, told: Callable[[int], Dataset]) -> list[list[int]]:
    """What is read of two stacks in one enhanced file, each frame with what `told` says of it."""
    places = [place for place in two_stacks() if place[0] != 1001]
    per_frame = []
    for value, height in places:
        frame, position = told(value), Dataset()
        position.ImagePositionPatient = [0.0, 0.0, height]
        frame.PlanePositionSequence = DicomSequence([position])
        per_frame.append(frame)
    write_dicom_slice(
        path,
        np.stack([np.full((4, 4), value, np.int16) for value, _ in places]),
        Modality="MR",
        SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.4.1"),
        PerFrameFunctionalGroupsSequence=DicomSequence(per_frame),
    )
    return values(read_dicom([SourceFile(path, None, "dicom")]))


def one_group(sequence: str, keyword: str, value: Any) -> Dataset:
    frame, told = Dataset(), Dataset()
    setattr(told, keyword, value)
    setattr(frame, sequence, DicomSequence([told]))
    return frame


def test_dimensions_of_enhanced_frames_count_save_those_of_position(tmp_path: Path) -> None:
    def dimensions(value: int) -> Dataset:
        indices = [value % 1000 + 1, value // 1000]
        return one_group("FrameContentSequence", "DimensionIndexValues", indices)

    found = enhanced_values(tmp_path / "e.dcm", dimensions)

    assert found == [[1000, 1002, 1003], WHOLE[1]]


@pytest.mark.parametrize(
    ("sequence", "keyword", "kinds"),
    [
        ("MRImageFrameTypeSequence", "FrameType", (["ORIGINAL", "M"], ["DERIVED", "P"])),
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", (0.0, 35.5)),
    ],
)
def test_enhanced_frames_are_told_apart_by_type_and_heart_phase(
    tmp_path: Path, sequence: str, keyword: str, kinds: Sequence[Any]
) -> None:
    found = enhanced_values(
        tmp_path / "e.dcm", lambda value: one_group(sequence, keyword, kinds[value // 1000 - 1])
    )

    assert found == [[1000, 1002, 1003], WHOLE[1]]
