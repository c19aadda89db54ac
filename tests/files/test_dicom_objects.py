"""What is an image, what is left out, and what is kept when asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factories import SECONDARY_CAPTURE, write_dicom_slice, write_encapsulated
from vismae.core.errors import UnreadableFileError
from vismae.core.types import KEEPABLE, Flag, MedicalImage, Modality, PixelUnit
from vismae.files.dicom import read_dicom
from vismae.files.discover import SourceFile

PIXELS = np.arange(12, dtype=np.uint16).reshape(3, 4)
STORAGE = "1.2.840.10008.5.1.4.1.1."


def read(path: Path, keep: frozenset[Flag] = frozenset()) -> MedicalImage:
    [image] = read_dicom([SourceFile(path, None, "dicom")], None, keep)
    return image


def reason(path: Path, keep: frozenset[Flag] = frozenset()) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        read(path, keep)
    assert str(path) in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize(
    ("branch", "modality"),
    [
        ("88.22", "CT"),
        ("11.1", "CT"),
        ("104.1", "OT"),
        ("9.1.1", "ECG"),
        ("66", "MR"),
        ("66.4", "CT"),
        ("481.3", "CT"),
        ("481.2", "CT"),
        ("4.2", "MR"),
        ("67", "PT"),
    ],
)
def test_the_class_decides_before_the_modality(tmp_path: Path, branch: str, modality: str) -> None:
    path = write_dicom_slice(
        tmp_path / "o.dcm", PIXELS, SOPClassUID=STORAGE + branch, Modality=modality
    )

    assert reason(path, KEEPABLE) == "not-an-image"


@pytest.mark.parametrize(
    ("branch", "modality"),
    [
        ("2", Modality.CT),
        ("4", Modality.MR),
        ("1.1", Modality.XR),
        ("12.1", Modality.XR),
        ("6.1", Modality.US),
        ("77.1.6", Modality.OTHER),
        ("77.1.5.1", Modality.OTHER),
        ("77.1.4", Modality.OTHER),
        ("481.1", Modality.OTHER),
    ],
)
def test_images_of_a_class_are_of_its_modality(
    tmp_path: Path, branch: str, modality: Modality
) -> None:
    path = write_dicom_slice(
        tmp_path / "i.dcm",
        PIXELS,
        SOPClassUID=STORAGE + branch,
        Modality="OT",
        RescaleSlope=1.0,
        RescaleIntercept=0.0,
    )

    assert read(path).modality is modality


@pytest.mark.parametrize(
    "tags",
    [
        {"SOPClassUID": SECONDARY_CAPTURE},
        {"SOPClassUID": STORAGE + "7.2"},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
        {"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"]},
        {"ImageType": ["ORIGINAL", "SECONDARY", "OTHER", "DOSE_INFO"]},
    ],
)
def test_secondary_captures_are_left_out_unless_asked_for(
    tmp_path: Path, tags: dict[str, Any]
) -> None:
    path = write_dicom_slice(
        tmp_path / "s.dcm", PIXELS, **{"RescaleSlope": None, "RescaleIntercept": None, **tags}
    )

    assert reason(path) == "secondary-capture"
    image = read(path, frozenset({Flag.SECONDARY_CAPTURE}))
    assert image.details["flags"] == {Flag.SECONDARY_CAPTURE}
    # Without a true rescale it holds grey levels, though it names a scanner.
    assert (image.modality, image.unit) == (Modality.CT, PixelUnit.DISPLAY)


def test_a_kept_secondary_capture_with_a_true_rescale_has_its_unit(tmp_path: Path) -> None:
    path = write_dicom_slice(tmp_path / "s.dcm", PIXELS, SOPClassUID=SECONDARY_CAPTURE)

    assert read(path, KEEPABLE).unit is PixelUnit.HU


def test_a_coloured_ct_is_a_picture_of_a_screen(tmp_path: Path) -> None:
    colours = np.zeros((3, 4, 3), np.uint8)
    colours[..., 0] = 200
    path = write_dicom_slice(tmp_path / "s.dcm", colours)

    assert reason(path) == "secondary-capture"
    assert read(path, KEEPABLE).pixels.shape == (1, 3, 4, 3)


@pytest.mark.parametrize("conversion", ["WSD", "DV", "SYN", "DI"])
def test_a_true_ct_is_not_lost_for_words_that_converters_leave(
    tmp_path: Path, conversion: str
) -> None:
    path = write_dicom_slice(
        tmp_path / "c.dcm",
        PIXELS,
        ConversionType=conversion,
        ImageType=["DERIVED", "SECONDARY", "AXIAL"],
    )

    image = read(path)

    assert image.unit is PixelUnit.HU
    assert image.details["flags"] == frozenset()


@pytest.mark.parametrize(
    ("modality", "tags", "left_out"),
    [
        ("CT", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, True),
        ("MR", {"SeriesDescription": "AAHead_Scout_64ch"}, True),
        ("MR", {"SeriesDescription": "3 Plane Localizer"}, True),
        ("MR", {"SeriesDescription": "Survey_32ch"}, True),
        ("MR", {"SeriesDescription": "AAHScout"}, True),
        ("MR", {"SeriesDescription": "3-Pl T2* FGRE S"}, True),
        ("MR", {"SeriesDescription": "3Plane Loc SSFSE"}, True),
        ("MR", {"SeriesDescription": "WIP 3plane_Survey"}, True),
        ("MR", {"SeriesDescription": " LOC"}, True),
        ("MR", {"SeriesDescription": "Tri-planar"}, True),
        ("MR", {"SeriesDescription": "MPLOC"}, True),
        ("MR", {"SeriesDescription": "Lokalisator"}, True),
        ("CT", {"SeriesDescription": "PlanScan"}, True),
        ("CT", {"SeriesDescription": "SRS Localizer", "ImageType": [*"OP", "AXIAL"]}, False),
        ("MR", {"SeriesDescription": "T1 local excision"}, False),
        ("MR", {"SeriesDescription": "T2 plane 3"}, False),
        ("CT", {"SeriesDescription": "3 plane reformats"}, False),
        ("MR", {"SeriesDescription": "T1 tumour survey"}, False),
        ("CT", {"SeriesDescription": "Thorax 5.0"}, False),
        ("DX", {"SeriesDescription": "scout"}, False),
    ],
)
def test_localizers_are_known_by_type_or_by_name(
    tmp_path: Path, modality: str, tags: dict[str, Any], left_out: bool
) -> None:
    path = write_dicom_slice(tmp_path / "l.dcm", PIXELS, Modality=modality, **tags)

    if left_out:
        assert reason(path) == "localizer"
    flags = read(path, frozenset({Flag.LOCALIZER})).details["flags"]
    assert flags == ({Flag.LOCALIZER} if left_out else frozenset())


def test_burned_in_text_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    path = write_dicom_slice(tmp_path / "b.dcm", PIXELS, BurnedInAnnotation="YES")
    clean = write_dicom_slice(tmp_path / "c.dcm", PIXELS, BurnedInAnnotation="NO")

    assert reason(path) == "burned-in"
    assert reason(path, frozenset({Flag.LOCALIZER})) == "burned-in"
    assert read(path, frozenset({Flag.BURNED_IN})).details["flags"] == {Flag.BURNED_IN}
    assert read(clean).details["flags"] == frozenset()


@pytest.mark.parametrize(
    ("kind", "shown", "left_out"),
    [
        ("LABEL", "YES", True),
        ("LABEL", None, True),
        ("OVERVIEW", "YES", True),
        ("OVERVIEW", "NO", False),
        ("VOLUME", None, False),
    ],
)
def test_the_label_of_a_microscope_slide_is_burned_in_text(
    tmp_path: Path, kind: str, shown: str | None, left_out: bool
) -> None:
    """A scanner calls it no annotation, but the patient's name or number stands on it."""
    path = write_dicom_slice(
        tmp_path / "s.dcm",
        np.zeros((3, 4, 3), np.uint8),
        Modality="SM",
        SOPClassUID=STORAGE + "77.1.6",
        ImageType=["ORIGINAL", "PRIMARY", kind, "NONE"],
        SpecimenLabelInImage=shown,
        BurnedInAnnotation="NO",
    )

    if left_out:
        assert reason(path) == "burned-in"
    flags = read(path, frozenset({Flag.BURNED_IN})).details["flags"]
    assert flags == ({Flag.BURNED_IN} if left_out else frozenset())


@pytest.mark.parametrize("number", ["100", "100.1", "102", "106", "108"])
def test_video_has_a_reason_of_its_own(tmp_path: Path, number: str) -> None:
    path = write_encapsulated(
        tmp_path / "v.dcm",
        [b"\x00\x00\x01\xba" * 8],
        f"1.2.840.10008.1.2.4.{number}",
        Modality="US",
    )

    assert reason(path) == "video"


def test_an_object_without_pixels_says_so_before_its_unit_is_asked(tmp_path: Path) -> None:
    path = write_dicom_slice(tmp_path / "n.dcm", PIXELS, PixelData=None, RescaleSlope=None)

    assert reason(path) == "no-pixels"


def test_loss_is_told_by_the_element(tmp_path: Path) -> None:
    path = write_dicom_slice(tmp_path / "x.dcm", PIXELS, LossyImageCompression="01")

    assert read(path).details["flags"] == {Flag.LOSSY}


@pytest.mark.parametrize("organisation", ["TILED_FULL", "TILED_SPARSE"])
def test_tiles_of_a_slide_are_no_slices(tmp_path: Path, organisation: str) -> None:
    slide: dict[str, Any] = {
        "Modality": "SM",
        "SOPClassUID": STORAGE + "77.1.6",
        "DimensionOrganizationType": organisation,
        "TotalPixelMatrixRows": 32,
    }
    tiles = np.zeros((6, 16, 16, 3), np.uint8)
    path = write_dicom_slice(tmp_path / "s.dcm", tiles, **slide, TotalPixelMatrixColumns=48)
    assert reason(path) == "tiles"

    slide["TotalPixelMatrixRows"] = 16
    small = write_dicom_slice(tmp_path / "t.dcm", tiles[0], **slide, TotalPixelMatrixColumns=16)
    assert read(small).modality is Modality.OTHER


def test_bytes_in_front_of_a_dicom_file_are_not_called_an_object_without_pixels(
    tmp_path: Path,
) -> None:
    path = write_dicom_slice(tmp_path / "m.dcm", np.zeros((4, 4), np.int16))
    path.write_bytes(b"\x10\x20\x30\x40" * 8 + path.read_bytes())

    with pytest.raises(UnreadableFileError, match="something was written before") as caught:
        read_dicom([SourceFile(path, None, "dicom")])

    assert caught.value.reason == "undecodable"
