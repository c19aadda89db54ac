"""Series, geometry and pixels. Units have their own file, ``test_dicom_units.py``."""

import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID

from factories import (
    AXIAL,
    SAGITTAL,
    write_dicom_series,
    write_dicom_slice,
    write_enhanced_ct,
)
from vismae.core.errors import UnreadableFileError
from vismae.core.types import KEEPABLE, Flag, MedicalImage, Modality, PixelUnit
from vismae.files.dicom import read_dicom
from vismae.files.dicom_grey import grey_values
from vismae.files.discover import SourceFile


def dicom(*paths: Path | str) -> list[SourceFile]:
    return [SourceFile(Path(path), None, "dicom") for path in paths]


def bundled(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    return Path(found)


def counted_volume(slices: int = 4, rows: int = 5, columns: int = 6) -> np.ndarray:
    volume = np.arange(slices * rows * columns).reshape(slices, rows, columns)
    return volume.astype(np.int16)


def physical(image: MedicalImage) -> np.ndarray:
    return image.pixels * image.slope + image.intercept


def rejection(
    paths: list[SourceFile],
    modality: Modality | None = None,
    keep: frozenset[Flag] = frozenset(),
) -> UnreadableFileError:
    with pytest.raises(UnreadableFileError) as caught:
        read_dicom(paths, modality, keep)
    assert str(paths[0].path) in str(caught.value)
    return caught.value


# --- geometry -------------------------------------------------------------------------------


def test_slices_are_ordered_by_position_not_by_instance_number(tmp_path: Path) -> None:
    volume = counted_volume()
    paths = write_dicom_series(tmp_path, volume, instance_numbers=[3, 1, 4, 2])

    [image] = read_dicom(dicom(*reversed(paths)))

    np.testing.assert_array_equal(image.pixels, volume)
    assert image.details["slice_sources"] == [str(path) for path in paths]
    assert len(set(image.details["slice_keys"])) == 4


def test_spacing_and_affine_place_a_voxel_where_dicom_says(tmp_path: Path) -> None:
    paths = write_dicom_series(
        tmp_path, counted_volume(), spacing_mm=(5.0, 0.7, 0.6), origin=(10.0, -20.0, 30.0)
    )

    [image] = read_dicom(dicom(*paths))

    assert image.spacing.slice_mm == pytest.approx(5.0)
    assert (image.spacing.row_mm, image.spacing.column_mm) == (0.7, 0.6)
    # Column 2, row 3, slice 1: LPS (10 + 2·0.6, -20 + 3·0.7, 30 + 5), RAS with x and y negated.
    assert image.affine is not None
    np.testing.assert_allclose(image.affine @ [2, 3, 1, 1], [-11.2, 17.9, 35.0, 1.0])


def test_sagittal_slices_run_along_their_own_normal(tmp_path: Path) -> None:
    volume = counted_volume()
    paths = write_dicom_series(tmp_path, volume, orientation=SAGITTAL, spacing_mm=(3.0, 1.0, 1.0))

    [image] = read_dicom(dicom(*reversed(paths)))

    np.testing.assert_array_equal(image.pixels, volume)
    assert image.affine is not None
    # The normal of (posterior, inferior) points to the right: RAS x rises.
    np.testing.assert_allclose(image.affine[:3, 2], [3.0, 0.0, 0.0], atol=1e-12)


def test_a_missing_slice_is_told_and_does_not_stretch_the_others(tmp_path: Path) -> None:
    paths = write_dicom_series(tmp_path, counted_volume(6))
    del paths[4]

    [image] = read_dicom(dicom(*paths))

    assert image.spacing.slice_mm == pytest.approx(5.0)
    assert image.details["regular_spacing"] is False


def test_other_orientation_and_other_shape_become_images_of_their_own(tmp_path: Path) -> None:
    paths = write_dicom_series(tmp_path / "a", counted_volume(3))
    paths += write_dicom_series(tmp_path / "b", counted_volume(2), orientation=SAGITTAL)
    paths += write_dicom_series(tmp_path / "c", counted_volume(2, rows=7))

    images = read_dicom(dicom(*paths))

    assert [image.pixels.shape for image in images] == [(3, 5, 6), (2, 5, 6), (2, 7, 6)]


def test_positions_that_occur_again_become_volumes_in_time(tmp_path: Path) -> None:
    early, late = counted_volume(3), counted_volume(3) + 1000
    paths = write_dicom_series(tmp_path / "a", early, Modality="MR", instance_numbers=[1, 2, 3])
    paths += write_dicom_series(tmp_path / "b", late, Modality="MR", instance_numbers=[4, 5, 6])

    images = read_dicom(dicom(*reversed(paths)))

    assert len(images) == 2
    np.testing.assert_array_equal(images[0].pixels, early)
    np.testing.assert_array_equal(images[1].pixels, late)


def test_frames_at_one_position_are_one_sequence_without_slice_spacing(tmp_path: Path) -> None:
    volume = counted_volume(3)
    paths = write_dicom_series(tmp_path, volume, spacing_mm=(0.0, 1.0, 1.0), Modality="MR")

    [image] = read_dicom(dicom(*reversed(paths)))

    np.testing.assert_array_equal(image.pixels, volume)
    assert image.spacing.slice_mm is None
    assert image.details["slices_in_space"] is False


def test_without_positions_ct_slices_are_ordered_by_instance_number(tmp_path: Path) -> None:
    volume = counted_volume()
    paths = write_dicom_series(
        tmp_path, volume, instance_numbers=[1, 2, 3, 10], ImagePositionPatient=None
    )

    [image] = read_dicom(dicom(*reversed(paths)))

    np.testing.assert_array_equal(image.pixels, volume)
    assert image.affine is None
    assert image.spacing.slice_mm is None


def test_radiographs_of_one_series_stay_separate_images(tmp_path: Path) -> None:
    views = [np.full((4, 4), value, np.uint16) for value in (1, 2)]
    paths = [
        write_dicom_slice(
            tmp_path / f"{index}.dcm", view, Modality="DX", ImagerPixelSpacing=[0.2, 0.1]
        )
        for index, view in enumerate(views)
    ]

    images = read_dicom(dicom(*paths))

    assert [image.pixels.shape for image in images] == [(1, 4, 4), (1, 4, 4)]
    assert (images[0].spacing.row_mm, images[0].spacing.column_mm) == (0.2, 0.1)


def test_a_file_that_came_twice_counts_once(tmp_path: Path) -> None:
    paths = write_dicom_series(tmp_path, counted_volume(2))
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(paths[0].read_bytes())

    [image] = read_dicom(dicom(*paths, copy))

    assert image.pixels.shape[0] == 2


def test_slices_of_one_uid_at_other_places_are_no_copies(tmp_path: Path) -> None:
    """An anonymiser gave all slices one UID; the first and the last hold nothing but air."""
    volume = np.zeros((4, 3, 3), np.int16)
    volume[1], volume[2] = 1, 2
    paths = write_dicom_series(tmp_path / "a", volume, SOPInstanceUID="1.2.3")
    again = shutil.copytree(tmp_path / "a", tmp_path / "b")

    [image] = read_dicom(dicom(*paths, *sorted(again.iterdir())))

    np.testing.assert_array_equal(image.pixels, volume)
    assert len(image.details["rejected_files"]) == 4


def test_enhanced_multiframe_takes_position_and_rescale_from_each_frame(tmp_path: Path) -> None:
    volume = np.full((3, 4, 4), 100, np.int16)
    path = write_enhanced_ct(
        tmp_path / "e.dcm",
        volume,
        positions=[[0, 0, 6], [0, 0, 0], [0, 0, 3]],
        rescales=[(1.0, 0.0), (2.0, -1000.0), (3.0, 5.0)],
    )

    [image] = read_dicom(dicom(path))

    np.testing.assert_array_equal(physical(image)[:, 0, 0], [-800.0, 305.0, 100.0])
    assert image.pixels.dtype == np.float32
    assert image.unit is PixelUnit.HU
    assert (image.spacing.slice_mm, image.spacing.row_mm) == (3.0, 0.5)


def test_ultrasound_cine_frames_are_slices_with_the_regions_pixel_size(tmp_path: Path) -> None:
    region = Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.02, -0.03
    path = write_dicom_slice(
        tmp_path / "cine.dcm",
        np.zeros((5, 4, 6), np.uint8),
        Modality="US",
        SequenceOfUltrasoundRegions=DicomSequence([region]),
    )

    [image] = read_dicom(dicom(path))

    assert image.pixels.shape == (5, 4, 6)
    assert (image.unit, image.modality) == (PixelUnit.DISPLAY, Modality.US)
    assert image.spacing.slice_mm is None
    assert image.spacing.row_mm == pytest.approx(0.3)
    assert image.spacing.column_mm == pytest.approx(0.2)


# --- pixels ---------------------------------------------------------------------------------


def test_monochrome1_radiographs_are_turned_round_within_their_stored_bits(tmp_path: Path) -> None:
    stored = np.array([[0, 10], [1000, 4095]], np.uint16)
    path = write_dicom_slice(
        tmp_path / "x.dcm",
        stored,
        Modality="CR",
        PhotometricInterpretation="MONOCHROME1",
        BitsStored=12,
        HighBit=11,
    )

    [image] = read_dicom(dicom(path))

    np.testing.assert_array_equal(image.pixels[0], [[4095, 4085], [3095, 0]])
    assert (image.slope, image.intercept) == (1.0, 0.0)


def test_monochrome1_does_not_change_hounsfield_units(tmp_path: Path) -> None:
    stored = np.array([[0, 1024]], np.int16)
    path = write_dicom_slice(tmp_path / "c.dcm", stored, PhotometricInterpretation="MONOCHROME1")

    [image] = read_dicom(dicom(path))

    np.testing.assert_array_equal(physical(image)[0], [[-1024.0, 0.0]])


def test_padding_becomes_the_smallest_valid_value(tmp_path: Path) -> None:
    stored = np.array([[-2000, 24, 500], [-2000, 30, 1024]], np.int16)
    path = write_dicom_slice(tmp_path / "p.dcm", stored, PixelPaddingValue=-2000)

    [image] = read_dicom(dicom(path))

    np.testing.assert_array_equal(image.pixels[0], [[24, 24, 500], [24, 30, 1024]])


@pytest.mark.parametrize(("kind", "dtype"), [("Float", "<f4"), ("DoubleFloat", "<f8")])
@pytest.mark.parametrize("limit", [None, -9998.5])
def test_padding_of_real_numbers_becomes_the_smallest_valid_value(
    tmp_path: Path, kind: str, dtype: str, limit: float | None
) -> None:
    """As in maps of diffusion, whose padding has an element of its own."""
    values = np.array([[-9999.1, 0.5], [0.25, -9998.75 if limit else 3.0]], dtype)
    path = write_dicom_slice(
        tmp_path / "adc.dcm",
        np.zeros((2, 2), np.uint16),
        Modality="MR",
        SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.30"),
        **dict.fromkeys(("PixelData", "BitsStored", "HighBit", "PixelRepresentation")),
        BitsAllocated=8 * values.dtype.itemsize,
        **{f"{kind}PixelData": values.tobytes(), f"{kind}PixelPaddingValue": -9999.1},
        **({f"{kind}PixelPaddingRangeLimit": limit} if limit else {}),
    )

    [image] = read_dicom([SourceFile(path, None, "dicom")])

    last = 0.25 if limit else 3.0
    np.testing.assert_array_equal(image.pixels, np.array([[[0.25, 0.5], [0.25, last]]], "f4"))


def test_padding_of_a_negative_slope_becomes_the_largest_stored_value(tmp_path: Path) -> None:
    path = write_dicom_slice(
        tmp_path / "p.dcm",
        np.array([[0, 100, 4000]], np.uint16),
        Modality="DX",
        PixelPaddingValue=0,
        RescaleSlope="-1",
        RescaleIntercept="4095",
    )

    [image] = read_dicom(dicom(path))

    np.testing.assert_array_equal(physical(image)[0], [[95, 3995, 95]])


@pytest.mark.parametrize("slopes", [("1", "1", "1"), ("1", "2", "2")])
def test_a_slice_of_padding_alone_gets_the_smallest_value_of_its_volume(
    tmp_path: Path, slopes: tuple[str, ...]
) -> None:
    padding = -32768
    volume = np.array([[[padding, 6, 90]], [[5, 1500, padding]], [[padding] * 3]], np.int16)
    paths = write_dicom_series(
        tmp_path,
        volume,
        Modality="MR",
        PixelPaddingValue=padding,
        RescaleSlope_each=list(slopes),
        RescaleIntercept="0",
    )

    [image] = read_dicom(dicom(*paths))

    assert physical(image).min() == min(5 * float(slopes[1]), 6)
    assert (physical(image)[2] == physical(image).min()).all()


def test_an_image_of_padding_alone_stays_as_it_is(tmp_path: Path) -> None:
    stored = np.full((2, 3), -2000, np.int16)
    [image] = read_dicom(
        dicom(write_dicom_slice(tmp_path / "p.dcm", stored, PixelPaddingValue=-2000))
    )
    np.testing.assert_array_equal(image.pixels[0], stored)


def test_padding_of_a_monochrome1_radiograph_ends_up_black(tmp_path: Path) -> None:
    stored = np.array([[0, 10, 200]], np.uint8)
    path = write_dicom_slice(
        tmp_path / "p.dcm",
        stored,
        Modality="DX",
        PhotometricInterpretation="MONOCHROME1",
        PixelPaddingValue=0,
    )

    [image] = read_dicom(dicom(path))

    np.testing.assert_array_equal(image.pixels[0], [[55, 245, 55]])


@pytest.mark.parametrize("grey", [True, False])
def test_palettes_are_looked_up_and_grey_palettes_become_grey(tmp_path: Path, grey: bool) -> None:
    ramp = np.arange(256, dtype=np.uint8)
    tables: dict[str, Any] = {}
    for colour, table in zip(("Red", "Green", "Blue"), (ramp, ramp, ramp[::-1]), strict=True):
        chosen = ramp if grey else table
        tables[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        tables[f"{colour}PaletteColorLookupTableData"] = chosen.tobytes()
    path = write_dicom_slice(
        tmp_path / "p.dcm",
        np.array([[0, 7], [100, 255]], np.uint8),
        Modality="US",
        PhotometricInterpretation="PALETTE COLOR",
        **tables,
    )

    [image] = read_dicom(dicom(path))

    if grey:
        np.testing.assert_array_equal(image.pixels[0], [[0, 7], [100, 255]])
    else:
        np.testing.assert_array_equal(image.pixels[0, 0, 1], [7, 7, 248])


def test_ycbcr_is_converted_once() -> None:
    [from_rgb] = read_dicom(dicom(bundled("SC_rgb_dcmtk_+eb+cr.dcm")), keep=KEEPABLE)
    [from_ybr] = read_dicom(dicom(bundled("SC_rgb_dcmtk_+eb+cy+n1.dcm")), keep=KEEPABLE)

    assert from_ybr.pixels.shape == (1, 100, 100, 3)
    # Ten colour bars of ten rows; at their edges the subsampled colours may differ.
    bars = [image.pixels[0, 5::10, 50].astype(int) for image in (from_rgb, from_ybr)]
    assert np.abs(bars[0] - bars[1]).max() <= 6
    np.testing.assert_allclose(bars[1][0], [255, 0, 0], atol=6)


def test_rgb_with_equal_channels_becomes_grey(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    path = write_dicom_slice(tmp_path / "g.dcm", np.stack([grey] * 3, -1), Modality="US")

    [image] = read_dicom(dicom(path))

    np.testing.assert_array_equal(image.pixels, grey[None])


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_every_lossless_syntax_gives_the_pixels_of_the_native_file(name: str) -> None:
    [native] = read_dicom(dicom(bundled("MR_small.dcm")))
    [other] = read_dicom(dicom(bundled(name)))

    np.testing.assert_array_equal(other.pixels, native.pixels)
    assert other.pixels.dtype == native.pixels.dtype
    assert other.unit is PixelUnit.ARBITRARY


def test_12_bit_jpeg_is_read_with_imagecodecs_and_else_names_it() -> None:
    # The same scintigram compressed twice, with and without loss.
    lossy = dicom(bundled("JPEG-lossy.dcm"))
    try:
        importlib.import_module("imagecodecs")
    except ImportError:
        assert "vismae[codecs]" in str(rejection(lossy, keep=KEEPABLE))
        return
    [image] = read_dicom(lossy, keep=KEEPABLE)
    [reference] = read_dicom(dicom(bundled("JPEG2000.dcm")), keep=KEEPABLE)
    difference = np.abs(image.pixels.astype(int) - reference.pixels.astype(int))
    assert difference.mean() < 5


def test_overshoot_of_lossy_compression_does_not_wrap_when_turned_round() -> None:
    header = Dataset()
    header.PhotometricInterpretation = "MONOCHROME1"
    header.BitsStored, header.PixelRepresentation = 10, 0

    stored = np.array([[[0, 1023, 1030]]], np.uint16)
    turned = grey_values(stored, header, for_the_eye=True, slope=1.0, intercept=0.0)

    np.testing.assert_array_equal(turned.pixels, [[[1023, 0, 0]]])


def test_a_file_without_meta_header_is_read(tmp_path: Path) -> None:
    path = write_dicom_slice(tmp_path / "a.dcm", counted_volume()[0])
    dataset = pydicom.dcmread(path)
    del dataset.file_meta
    bare = tmp_path / "bare"
    dataset.save_as(bare, implicit_vr=True, little_endian=True)

    [image] = read_dicom(dicom(bare))

    np.testing.assert_array_equal(image.pixels[0], counted_volume()[0])


def test_details_hold_identifiers_and_nothing_typed_by_hand(tmp_path: Path) -> None:
    path = write_dicom_slice(
        tmp_path / "a.dcm",
        counted_volume()[0],
        SeriesDescription="thorax of Jane Doe",
        BodyPartExamined="CHEST",
        StudyDescription="Jane Doe",
        Manufacturer="Jane Doe Imaging",
        PatientSex="F",
        PatientAge="045Y",
        StudyInstanceUID="1.2",
        SeriesInstanceUID="1.2.9",
        SOPInstanceUID="1.2.3",
        PatientID="P7",
        PatientName="Doe^Jane",
    )

    [image] = read_dicom(dicom(path))

    assert image.patient_id == "P7"
    facts = ("body_part", "sex", "age_band", "manufacturer", "study_uid", "series_uid")
    expected = ["chest", "f", "40-49", "other", "1.2", "1.2.9"]
    assert [image.details[fact] for fact in facts] == expected
    assert image.details["slice_keys"] == ["1.2.3:1"]
    assert "Doe" not in str(image.details)


def test_flags_of_some_slices_only_are_theirs(tmp_path: Path) -> None:
    paths = write_dicom_series(
        tmp_path, counted_volume(3), LossyImageCompression_each=["00", "01", "00"]
    )

    [image] = read_dicom(dicom(*paths))

    assert image.details["flags"] == frozenset()
    assert image.details["slice_flags"] == [frozenset(), {Flag.LOSSY}, frozenset()]


# --- files that cannot be used --------------------------------------------------------------


@pytest.mark.parametrize("code", ["SR", "SEG", "RTDOSE", "PR", "KO"])
def test_objects_that_are_no_images_are_named(tmp_path: Path, code: str) -> None:
    path = write_dicom_slice(tmp_path / "o.dcm", counted_volume()[0], Modality=code)

    assert rejection(dicom(path)).reason == "not-an-image"


def test_localizers_are_left_out_of_their_series_and_reported(tmp_path: Path) -> None:
    paths = write_dicom_series(tmp_path, counted_volume(3))
    scout = write_dicom_slice(
        tmp_path / "scout.dcm",
        counted_volume()[0],
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )

    assert rejection(dicom(scout)).reason == "localizer"
    [image] = read_dicom(dicom(scout, *paths))
    assert image.pixels.shape[0] == 3
    [rejected] = image.details["rejected_files"]
    assert (rejected.path, rejected.reason) == (str(scout), "localizer")


def test_missing_pixels_and_missing_bytes_are_told_apart(tmp_path: Path) -> None:
    empty = write_dicom_slice(tmp_path / "e.dcm", counted_volume()[0], PixelData=None)
    short = write_dicom_slice(tmp_path / "s.dcm", counted_volume()[0])
    short.write_bytes(short.read_bytes()[:-10])

    assert rejection(dicom(empty)).reason == "no-pixels"
    assert rejection(dicom(short)).reason == "truncated"
    assert rejection(dicom(bundled("MR_truncated.dcm"))).reason == "truncated"


def test_a_missing_header_element_is_named(tmp_path: Path) -> None:
    path = write_dicom_slice(tmp_path / "h.dcm", counted_volume()[0], BitsAllocated=None)

    error = rejection(dicom(path))

    assert error.reason == "undecodable"
    assert "BitsAllocated" in str(error)


def test_garbage_behind_a_compressed_syntax_names_the_syntax(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(bundled("MR_small_jp2klossless.dcm"))
    dataset.PixelData = encapsulate([b"\x01\x02\x03\x04" * 20])
    path = tmp_path / "garbage.dcm"
    dataset.save_as(path)

    error = rejection(dicom(path))

    assert error.reason == "undecodable"
    assert "JPEG 2000" in str(error)


def test_a_panic_of_the_rle_decoder_does_not_end_the_job(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(bundled("MR_small_RLE.dcm"))
    # Two segments; the first one's only run would fill more than the image has.
    header = np.array([2, 64, 66, *[0] * 13], "<u4").tobytes()
    dataset.PixelData = encapsulate([header + bytes([200, 1]) * 4000])
    path = tmp_path / "panic.dcm"
    dataset.save_as(path)

    assert rejection(dicom(path)).reason in ("undecodable", "truncated")


def test_a_header_that_promises_too_many_pixels_is_refused_before_decoding(tmp_path: Path) -> None:
    path = write_dicom_slice(
        tmp_path / "big.dcm",
        counted_volume()[0],
        Rows=60000,
        Columns=60000,
        NumberOfFrames=100,
        ImageOrientationPatient=AXIAL,
    )

    assert rejection(dicom(path)).reason == "too-large"


def test_simpleitk_reads_the_same_volume(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    paths = write_dicom_series(
        tmp_path,
        counted_volume(),
        spacing_mm=(2.5, 0.7, 0.6),
        origin=(1.0, 2.0, 3.0),
        instance_numbers=[2, 4, 1, 3],
    )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    reference = reader.Execute()

    [image] = read_dicom(dicom(*paths))

    np.testing.assert_allclose(physical(image), sitk.GetArrayFromImage(reference))
    assert image.affine is not None
    lps = np.array(reference.TransformIndexToPhysicalPoint((4, 3, 2)))
    np.testing.assert_allclose((image.affine @ [4, 3, 2, 1])[:3], lps * [-1, -1, 1])
