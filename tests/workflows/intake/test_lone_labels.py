"""Label maps that came without their image, against images that only look like them."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np

from factories import write_nifti, write_png, write_zip
from vismae.core.config import IngestConfig
from vismae.workflows.ingest import IngestResult, ingest
from vismae.workflows.intake.identity import private_folder

IMAGE = np.random.default_rng(0).integers(0, 900, (8, 9, 3)).astype(np.int16)
CLASSES = (IMAGE // 300).astype(np.uint8)
PICTURE = np.arange(256, dtype=np.uint8).reshape(16, 16)


def run(source: Path, store: Path) -> IngestResult:
    return ingest(IngestConfig(sources=(source,), store=store, executor="here"))


def left_out(store: Path) -> dict[str, str]:
    """Return file name -> reason."""
    with (private_folder(store) / "rejected.csv").open(newline="") as file:
        return {row["path"].split("/")[-1]: row["reason"] for row in csv.DictReader(file)}


def test_what_header_or_name_and_values_call_a_label_map_is_no_image(tmp_path: Path) -> None:
    data = tmp_path / "in"
    write_nifti(data / "a" / "brain.nii.gz", IMAGE)
    write_nifti(data / "b" / "brain_seg.nii.gz", CLASSES)
    write_nifti(data / "c" / "label.nii.gz", CLASSES.astype(np.float32))
    write_nifti(data / "d" / "labelsTs" / "case_001.nii.gz", CLASSES)
    told = nib.Nifti1Image(IMAGE, np.eye(4))
    told.header.set_intent("label")
    nib.save(told, data / "parcels.nii.gz")

    result = run(data, tmp_path / "s")

    assert result.stored == 3
    names = ("brain_seg.nii.gz", "label.nii.gz", "case_001.nii.gz", "parcels.nii.gz")
    assert left_out(tmp_path / "s") == dict.fromkeys(names, "label-without-image")


def test_pictures_beside_their_label_maps_in_an_archive_are_the_only_images(
    tmp_path: Path,
) -> None:
    picture = write_png(tmp_path / "p.png", PICTURE)
    drawn = write_png(tmp_path / "m.png", (PICTURE > 99).astype(np.uint8) * 255)
    members = {"us/1.png": picture, "us/1_mask.png": drawn, "us/1_mask_1.png": drawn}
    archive = write_zip(tmp_path / "in.zip", members)

    result = run(archive, tmp_path / "s")

    assert (result.stored, result.reasons) == (1, {"label-without-image": 2})


def test_an_image_may_have_any_name(tmp_path: Path) -> None:
    write_nifti(tmp_path / "in" / "scan_seg.nii.gz", IMAGE)
    write_png(tmp_path / "in" / "masks" / "face.png", PICTURE)

    result = run(tmp_path / "in", tmp_path / "s")

    assert (result.stored, result.reasons) == (4, {})


def test_what_a_table_gives_a_label_is_an_image(tmp_path: Path) -> None:
    write_nifti(tmp_path / "in" / "shape_seg.nii.gz", CLASSES)
    table = tmp_path / "in" / "manifest.csv"
    table.write_text("path,label\nshape_seg.nii.gz,round\n", encoding="utf-8")

    assert run(table, tmp_path / "s").stored == 3


def test_in_folders_of_one_case_each_its_files_are_paired(tmp_path: Path) -> None:
    for name in ("case_00000", "case_00001"):
        write_nifti(tmp_path / "in" / name / "imaging.nii.gz", IMAGE)
        write_nifti(tmp_path / "in" / name / "segmentation.nii.gz", CLASSES)

    result = run(tmp_path / "in", tmp_path / "s")

    assert (result.stored, result.reasons) == (6, {})
    for row in range(6):
        found = result.store.read(row)
        np.testing.assert_array_equal(found.label_map, found.pixels // 300)
