import contextlib
import csv
from pathlib import Path

import numpy as np
import pytest

from factories import write_dicom_series, write_nifti, write_png, write_zip
from vismae.core.errors import UnreadableFileError
from vismae.core.types import KEEPABLE, Flag, MedicalImage, Modality
from vismae.files.dicom_identifiers import group_series
from vismae.files.discover import SourceFile, discover, source_file
from vismae.files.read import read_image, read_label_map
from vismae.files.reasons import REASONS, Reason

VOLUME = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def test_every_reason_has_a_meaning() -> None:
    assert set(REASONS) == set(Reason)
    assert all(meaning.endswith(".") for meaning in REASONS.values())


def test_a_mixed_archive_is_read_as_a_folder_would_be(tmp_path: Path) -> None:
    slices = write_dicom_series(tmp_path / "ct", VOLUME)
    png = write_png(tmp_path / "p.png", VOLUME[0].astype(np.uint8))
    scan = write_nifti(tmp_path / "v_T1w.nii.gz", VOLUME)
    members = {f"ct/{path.name}": path for path in slices} | {"p.png": png, "v_T1w.nii.gz": scan}
    archive = write_zip(tmp_path / "zip" / "all.zip", members)

    found = [file for file in discover(archive) if isinstance(file, SourceFile)]
    images = [image for group in group_series(found) for image in read_image(group)]

    assert [image.pixels.shape for image in images] == [(1, 4, 5), (5, 4, 3), (3, 4, 5)]
    assert [image.modality for image in images] == [Modality.OTHER, Modality.MR, Modality.CT]
    assert images[0].source == f"{archive}!p.png"


def test_label_maps_of_every_format_have_slices_first(tmp_path: Path) -> None:
    labels = (VOLUME > 30).astype(np.uint8)

    flat, no_spacing = read_label_map(source_file(write_png(tmp_path / "l.png", labels[0])))
    solid, spacing = read_label_map(source_file(write_nifti(tmp_path / "l.nii", labels)))

    assert flat.shape == (1, 4, 5)
    assert no_spacing is None
    assert solid.shape == (5, 4, 3)
    assert spacing is not None
    assert spacing.row_mm == 1.0


def test_a_dicom_label_map_is_refused_with_a_cure(tmp_path: Path) -> None:
    [path] = write_dicom_series(tmp_path, VOLUME[:1])

    with pytest.raises(UnreadableFileError, match="NIfTI") as caught:
        read_label_map(source_file(path))

    assert caught.value.reason == "label-format"


def test_several_files_that_are_no_series_are_refused(tmp_path: Path) -> None:
    files = [
        source_file(write_png(tmp_path / f"{n}.png", (VOLUME[n] % 200).astype(np.uint8)))
        for n in range(2)
    ]

    with pytest.raises(UnreadableFileError, match="by itself"):
        read_image(files)
    with pytest.raises(UnreadableFileError, match="no file"):
        read_image([])


@pytest.mark.filterwarnings("ignore::UserWarning")  # what the libraries say of the damage
@pytest.mark.parametrize("seed", range(40))
def test_random_damage_never_raises_anything_else(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    originals = [
        write_dicom_series(tmp_path / "d", VOLUME[:1], PixelPaddingValue=3)[0],
        write_nifti(tmp_path / "n.nii.gz", VOLUME),
        write_nifti(tmp_path / "n.nii", VOLUME),
        write_png(tmp_path / "p.png", VOLUME[0].astype(np.uint8)),
        write_png(tmp_path / "t.tif", VOLUME[0].astype(np.uint16)),
    ]
    for original in originals:
        content = bytearray(original.read_bytes())
        for place in rng.integers(0, len(content), 5):
            content[place] = rng.integers(256)
        damaged = tmp_path / f"damaged{original.suffix}"
        damaged.write_bytes(content[: rng.integers(len(content) // 2, len(content) + 1)])
        for read in (read_image, read_label_map):
            with contextlib.suppress(UnreadableFileError):
                read(source_file(damaged))


# Objects that pydicom can decode but that are no images to learn from.
_DECODABLE_NON_IMAGES = {"SEG", "RTDOSE"}
# Undecodable for plain pydicom, for want of a transfer syntax that can be known; 12-bit JPEG needs
# an optional package.
_READABLE_BEYOND_PYDICOM = {"CR-MONO1-10-chest"}
_NEED_IMAGECODECS = {"JPEG-lossy.dcm", "MR1_JPLY", "RG3_JPLY", "XA1_JPLY"}


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_every_real_file_is_read_or_rejected_with_a_reason(test_data: Path) -> None:
    folder = test_data / "data" / "dicom_nifti"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    with (folder / "manifest.csv").open(newline="") as stream:
        manifest = {row["path"]: row for row in csv.DictReader(stream)}
    read: set[str] = set()
    refused: dict[str, UnreadableFileError] = {}
    for file in discover(folder):
        assert isinstance(file, SourceFile), file
        name = str(file.path.relative_to(folder))
        try:
            images = read_image(file, keep=KEEPABLE)
        except UnreadableFileError as error:
            refused[name] = error
            continue
        read.add(name)
        _require_sound(images, manifest[name])

    assert read | set(refused) == set(manifest)
    assert all(name in str(error) for name, error in refused.items())
    assert all(Reason(error.reason) in REASONS for error in refused.values())
    for name, row in manifest.items():
        decodable = row["readable_with_pydicom_gdcm_pylibjpeg"].startswith("yes")
        if row["modality"] in _DECODABLE_NON_IMAGES:
            assert refused[name].reason == "not-an-image"
        elif decodable or Path(name).name in _READABLE_BEYOND_PYDICOM:
            assert name in read, refused[name]
        elif Path(name).name not in _NEED_IMAGECODECS:
            assert name in refused


def _require_sound(images: list[MedicalImage], row: dict[str, str]) -> None:
    for image in images:
        pixels = image.pixels
        assert pixels.ndim in (3, 4)
        assert np.isfinite(pixels).all()
        assert np.isfinite([image.slope, image.intercept]).all()
        if row["format"] == "DICOM":
            assert image.modality == Modality.parse(row["modality"])
        if row["format"] == "DICOM" and Flag.REGION_CROPPED not in image.details["flags"]:
            assert pixels.shape[1:3] == (int(row["rows"]), int(row["columns"]))


@pytest.mark.real_data
def test_simpleitk_agrees_on_real_ct_pet_and_mr(test_data: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    folder = test_data / "data" / "dicom_nifti"
    names = [
        "dicom_clinical/ct_images_seg_CRLM-CT-1004/1-21.dcm",
        "dicom_clinical/sts_images_raw_STS_001_MR_T2/1-21.dcm",
        "dicom_testsuite/CT2_J2KR",
        "nifti/anatomical.nii",
        "nifti/reoriented_anat_moved.nii",
    ]
    for name in names:
        path = folder / name
        if not path.is_file():
            pytest.skip(f"needs {path}")
        reference = sitk.ReadImage(str(path))
        [image] = read_image(source_file(path))
        assert image.affine is not None
        rng = np.random.default_rng(0)
        for _ in range(20):
            slice_, row, column = (int(rng.integers(length)) for length in image.pixels.shape)
            ras = image.affine @ [column, row, slice_, 1]
            point = [float(-ras[0]), float(-ras[1]), float(ras[2])]
            value = reference[reference.TransformPhysicalPointToIndex(point)]
            ours = image.pixels[slice_, row, column] * image.slope + image.intercept
            padded = name.startswith("dicom_clinical/ct") and value < -2000
            assert ours == (-1024.0 if padded else pytest.approx(value)), name


def test_one_channel_of_a_file_of_several_volumes_is_read(tmp_path: Path) -> None:
    volumes = np.random.default_rng(0).integers(0, 900, (6, 5, 3, 40)).astype(np.int16)
    file = source_file(write_nifti(tmp_path / "brain.nii.gz", volumes))
    [image] = read_image(file, channel=37)
    [alone] = read_image(source_file(write_nifti(tmp_path / "one.nii.gz", volumes[..., 37])))
    assert np.array_equal(image.pixels, alone.pixels)
    assert image.details["volume_index"] == 37
    picture = source_file(write_png(tmp_path / "a.png", np.zeros((4, 4), np.uint8)))
    for wrong, channel in ((file, 40), (picture, 0)):
        with pytest.raises(UnreadableFileError, match=f"channel {channel} is wanted") as caught:
            read_image(wrong, channel=channel)
        assert caught.value.reason is Reason.NO_CHANNEL
