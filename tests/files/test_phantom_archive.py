import csv
import hashlib

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from vismae.core.errors import SettingError
from vismae.core.types import Modality
from vismae.files.phantom_anatomy import draw_patient, sample_anatomy
from vismae.files.phantom_archive import (
    CLASSIFICATION_COLUMNS,
    SEGMENTATION_COLUMNS,
    UNLABELLED_COLUMNS,
    write_phantom_archive,
)
from vismae.files.phantom_examinations import noise_of
from vismae.files.phantom_scanners import suv_map
from vismae.files.phantom_tissue import Tissue

SEED = 11


def write_small(folder, seed=SEED):
    return write_phantom_archive(
        folder,
        patients=2,
        seed=seed,
        size=64,
        slices_per_volume=6,
        ultrasound_frames=3,
        segmentation_patients=(2, 1, 1),
        segmentation_slices=3,
        classification_patients=(4, 2, 2),
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_small(tmp_path_factory.mktemp("phantom"))


def read_rows(manifest):
    with manifest.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_series(folder):
    return [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_writes_the_same_bytes_and_another_seed_does_not(archive, tmp_path):
    again, other = write_small(tmp_path / "a"), write_small(tmp_path / "b", seed=12)
    assert digests(again.folder) == digests(archive.folder)
    assert digests(other.folder) != digests(archive.folder)


def test_all_five_modalities_are_there_and_counted(archive):
    found = 0
    for modality in ("ct", "pet"):
        found += len(list((archive.unlabelled / modality).glob("P*/*.dcm")))
    for path in (archive.unlabelled / "mr").glob("*.nii.gz"):
        found += nib.load(path).shape[2]
    radiographs = list((archive.unlabelled / "xr").iterdir())
    assert {path.suffix for path in radiographs} == {".png", ".dcm"}
    frames = list((archive.unlabelled / "us").glob("*.png"))
    assert len(frames) == 6
    assert found + len(radiographs) + len(frames) == archive.slice_count


def test_the_unlabelled_manifest_names_every_file_with_modality_and_patient(archive):
    rows = read_rows(archive.unlabelled / "manifest.csv")
    assert tuple(rows[0]) == UNLABELLED_COLUMNS
    named = set()
    for row in rows:
        path = archive.unlabelled / row["path"]
        assert row["path"].startswith(f"{row['modality']}/{row['patient_id']}")
        named.update(path.glob("*.dcm") if path.is_dir() else [path])
    written = {path for path in archive.unlabelled.rglob("*") if path.is_file()}
    assert named == written - {archive.unlabelled / "manifest.csv"}


def test_ct_files_are_a_valid_ordered_series(archive):
    series = read_series(archive.unlabelled / "ct" / "P0001")
    heights = [float(file.ImagePositionPatient[2]) for file in series]
    gaps = np.diff(heights)
    np.testing.assert_allclose(gaps, float(series[0].SpacingBetweenSlices), atol=1e-3)
    assert gaps.min() > 0
    assert len({file.SOPInstanceUID for file in series}) == len(series)
    assert len({file.SeriesInstanceUID for file in series}) == 1
    first = series[0]
    assert first.PatientID == "P0001"
    assert first.PatientName == "PHANTOM^0001"
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID
    assert list(first.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
    assert first.pixel_array.dtype == np.int16
    hu = np.stack([file.pixel_array for file in series]) * 1.0 + float(first.RescaleIntercept)
    assert first.RescaleIntercept == -1024
    assert np.median(hu[:, :4, :4]) == pytest.approx(-1000, abs=15)


def test_suv_recovered_from_the_tags_is_the_true_uptake(archive):
    patient = draw_patient(SEED, 2, has_lesion=True)
    series = read_series(archive.unlabelled / "pet" / "P0002")
    first = series[0]
    injection = first.RadiopharmaceuticalInformationSequence[0]
    assert (first.Units, first.DecayCorrection) == ("BQML", "START")
    waited = 3600.0  # From 080000 to 090000.
    assert injection.RadiopharmaceuticalStartTime == "080000"
    assert first.SeriesTime == "090000"
    half_life = float(injection.RadionuclideHalfLife)
    left_bq = float(injection.RadionuclideTotalDose) * 0.5 ** (waited / half_life)
    grams = float(first.PatientWeight) * 1000.0
    activity = np.stack([file.pixel_array for file in series]) * float(first.RescaleSlope)
    suv = activity * grams / left_bq

    x, y = (
        float(first.ImagePositionPatient[axis]) + float(first.PixelSpacing[0]) * np.arange(64)
        for axis in (0, 1)
    )
    z = np.array([float(file.ImagePositionPatient[2]) for file in series])
    anatomy = sample_anatomy(patient, x[None, None], y[None, :, None], z[:, None, None])
    rng = noise_of(SEED, patient, 3)
    uptake = {
        Tissue.MYOCARDIUM: float(rng.uniform(1.5, 6.0)),
        Tissue.LESION: float(rng.uniform(3.5, 9.0)),
    }
    truth = suv_map(anatomy, uptake)
    assert suv.mean() == pytest.approx(truth.mean(), rel=0.02)
    liver = anatomy.tissue == Tissue.LIVER
    assert suv[liver].mean() == pytest.approx(2.1, rel=0.1)


def test_ct_and_mr_of_one_patient_lie_in_the_same_place(archive):
    first = read_series(archive.unlabelled / "ct" / "P0001")[0]
    image = nib.load(archive.unlabelled / "mr" / "P0001.nii.gz")
    left, back, up = (float(value) for value in first.ImagePositionPatient)
    np.testing.assert_allclose(image.affine[:3, 3], [-left, -back, up], atol=1e-3)
    np.testing.assert_allclose(image.header.get_zooms()[0], first.PixelSpacing[0], atol=1e-4)
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")


def test_the_dicom_radiograph_is_stored_inverted(archive):
    file = pydicom.dcmread(archive.unlabelled / "xr" / "P0001_00.dcm")
    assert file.PhotometricInterpretation == "MONOCHROME1"
    air, abdomen = file.pixel_array[38:50, :2], file.pixel_array[52:60, 24:40]
    assert air.mean() > abdomen.mean() + 1500


def test_segmentation_manifest_has_its_columns_and_splits_by_patient(archive):
    rows = read_rows(archive.segmentation_manifest)
    assert tuple(rows[0]) == SEGMENTATION_COLUMNS
    assert len(rows) == 4 * 3
    folder = archive.segmentation_manifest.parent
    splits = {}
    for row in rows:
        splits.setdefault(row["patient_id"], set()).add(row["split"])
        image = np.asarray(Image.open(folder / row["path"]))
        labels = np.asarray(Image.open(folder / row["label_map"]))
        assert image.shape == labels.shape == (64, 64)
        assert set(np.unique(labels)) <= {0, 1, 2, 3}
        row_mm, column_mm = (float(value) for value in row["spacing_mm"].split(";"))
        assert row_mm == column_mm > 0
        assert Modality.parse(row["modality"]) is Modality.MR
    assert all(len(found) == 1 for found in splits.values())
    assert {"train", "val", "test"} == set.union(*splits.values())
    unlabelled = {path.name for path in (archive.unlabelled / "ct").iterdir()}
    assert not unlabelled & set(splits)


def test_segmentation_images_are_dark_where_the_label_map_says_lung(archive):
    folder = archive.segmentation_manifest.parent
    for row in read_rows(archive.segmentation_manifest):
        image = np.asarray(Image.open(folder / row["path"])).astype(float)
        labels = np.asarray(Image.open(folder / row["label_map"]))
        rest = labels > 1
        if rest.sum() > 30:
            assert image[labels == 1].mean() < 0.7 * image[rest].mean()


def test_the_new_patients_label_map_is_the_anatomy_itself(archive):
    labels = nib.load(archive.new_patient / "mr_label_map.nii.gz")
    stored = np.asarray(labels.dataobj)
    assert stored.shape == nib.load(archive.new_patient / "mr.nii.gz").shape
    columns, rows, slices = np.meshgrid(*(np.arange(n) for n in stored.shape), indexing="ij")
    voxels = np.stack([columns, rows, slices, np.ones_like(rows)])
    right, front, up, _ = np.einsum("ij,jabc->iabc", labels.affine, voxels)
    patient = draw_patient(SEED, 3001, has_lesion=True)
    anatomy = sample_anatomy(patient, -right, -front, up)
    # float32 in the file: a point on a border may fall to either side.
    assert (anatomy.label_map != stored).mean() < 1e-3


def test_classification_manifest_has_both_classes_and_no_shared_patient(archive):
    rows = read_rows(archive.classification_manifest)
    assert tuple(rows[0]) == CLASSIFICATION_COLUMNS
    folder = archive.classification_manifest.parent
    by_split = {}
    for row in rows:
        by_split.setdefault(row["split"], []).append(row)
        file = pydicom.dcmread(folder / row["path"])
        assert file.PatientID == row["patient_id"]
        assert Modality.parse(file.Modality) is Modality.parse(row["modality"]) is Modality.CT
    patients = [{row["patient_id"] for row in part} for part in by_split.values()]
    assert sum(len(group) for group in patients) == len(set.union(*patients)) == 8
    for part in by_split.values():
        assert {row["label"] for row in part} == {"healthy", "lesion"}


def test_file_size_does_not_give_the_class_away(archive):
    folder = archive.classification_manifest.parent
    sizes = {}
    for row in read_rows(archive.classification_manifest):
        sizes.setdefault(row["label"], []).append((folder / row["path"]).stat().st_size)
    gap = abs(np.mean(sizes["healthy"]) - np.mean(sizes["lesion"]))
    assert gap < 20


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(SettingError, match="not empty"):
        write_small(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_archive_of_no_patients_is_refused(tmp_path):
    with pytest.raises(SettingError, match="at least 1 patient"):
        write_phantom_archive(tmp_path / "new", patients=0)
