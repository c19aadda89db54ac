import csv
import gzip
import json
import shutil
import stat
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from factories import (
    write_dicom_series,
    write_dicom_slice,
    write_jpeg,
    write_nifti,
    write_palette_png,
    write_png,
    write_zip,
)
from factories_labels import write_labelled_series, write_rtstruct, write_seg
from vismae.core.config import IngestConfig
from vismae.core.errors import DataError, RunFolderError
from vismae.data.splits import split_patients
from vismae.data.store import Store
from vismae.workflows.ingest import IngestResult, ingest, open_or_ingest
from vismae.workflows.intake.identity import private_folder
from vismae.workflows.intake.work import INTAKE_REASONS, IntakeReason


def picture(number: int, shape: tuple[int, ...] = (12, 10)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, shape).astype(np.uint8)


def write_csv(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def run(source: Path, store: Path, **settings: object) -> IngestResult:
    """Ingest in this process, unless the settings ask for others."""
    settings = {"executor": "here", **settings}
    return ingest(IngestConfig(sources=(source,), store=store, **settings))  # type: ignore[arg-type]


def rejected(store: Path) -> dict[str, str]:
    """Return file name -> reason."""
    with (private_folder(store) / "rejected.csv").open(newline="") as file:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("place", [".", "shards"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_store_is_not_read_into_itself(tmp_path: Path, place: str, overwrite: bool) -> None:
    write_png(tmp_path / "scans" / "a.png", picture(0))
    store = run(tmp_path / "scans", tmp_path / "store").folder
    with pytest.raises(DataError, match=r"is the store, or within it"):
        run(store / place, store, overwrite=overwrite)
    assert len(Store(store)) == 1


def test_a_folder_of_every_kind_of_file_becomes_one_store(tmp_path: Path) -> None:
    source = tmp_path / "scans"
    volume = np.arange(4 * 6 * 5, dtype=np.int16).reshape(4, 6, 5)
    write_png(source / "a.png", picture(0))
    write_jpeg(source / "sub" / "b.jpg", picture(1, (8, 9, 3)))
    write_zip(source / "c.zip", {"in/c.png": source / "a.png"})
    write_nifti(source / "brain_T1w.nii.gz", volume)
    write_dicom_series(source / "ct", volume[:3])
    (source / "notes.txt").write_text("not an image, and none of its business")
    (source / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00" * 40)

    result = run(source, tmp_path / "s")

    index = result.store.index
    assert Counter(index["modality"]) == {"other": 3, "mr": 5, "ct": 3}
    assert (result.stored, result.files, result.rejected) == (11, 8, 1)
    assert rejected(tmp_path / "s") == {"broken.png": "undecodable"}
    assert result.reasons == {"undecodable": 1}
    assert "1 of 8 files were left out (undecodable 1)" in result.summary()
    assert index["image_id"].is_unique
    assert index["volume_id"].nunique() == 5
    np.testing.assert_array_equal(result.store.read(0).pixels, picture(0))


def test_ct_slices_are_in_order_with_units_spacing_and_one_scale(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 3000, (5, 8, 7)).astype(np.int16)
    write_dicom_series(
        tmp_path / "ct", volume, (2.5, 0.8, 0.7), instance_numbers=[3, 1, 5, 2, 4], PatientID="Doe"
    )

    store = run(tmp_path / "ct", tmp_path / "s").store

    rows = store.index
    assert rows["slice_index"].tolist() == [0, 1, 2, 3, 4]
    assert rows[["volume_id", "patient_id"]].nunique().tolist() == [1, 1]
    assert set(rows["unit"]) == {"hu"}
    assert set(zip(rows["slope"], rows["intercept"], strict=True)) == {(1.0, -1024.0)}
    assert set(rows["spacing_slice_mm"]) == {2.5}
    assert set(zip(rows["spacing_row_mm"], rows["spacing_column_mm"], strict=True)) == {(0.8, 0.7)}
    expected = np.percentile(volume.astype(float) - 1024, [0.5, 99.5])
    for name, value in zip(("scale_low", "scale_high"), expected, strict=True):
        assert rows[name].to_numpy() == pytest.approx(value)
    for row in range(5):
        np.testing.assert_array_equal(store.read(row).pixels, volume[row])


def test_patients_of_file_headers_become_pseudonyms_that_only_the_salt_explains(
    tmp_path: Path,
) -> None:
    for number, patient in enumerate(["Doe^Jane", "Doe^Jane", "Roe^Max"]):
        write_dicom_slice(
            tmp_path / "in" / f"{number}.dcm", picture(number).astype(np.int16), PatientID=patient
        )

    first = run(tmp_path / "in", tmp_path / "s").store.index["patient_id"].tolist()
    again = run(tmp_path / "in", tmp_path / "s", overwrite=True).store.index["patient_id"].tolist()
    other = run(tmp_path / "in", tmp_path / "t").store.index["patient_id"].tolist()

    assert first[0] == first[1] != first[2]
    assert first == again
    assert not set(first) & set(other)
    assert set(Store(tmp_path / "s").index["group_kind"]) == {"patient"}


def test_the_private_folder_is_for_the_user_alone_and_leads_back_to_the_files(
    tmp_path: Path,
) -> None:
    write_png(tmp_path / "in" / "a.png", picture(0))
    store = run(tmp_path / "in", tmp_path / "s").store

    private = private_folder(tmp_path / "s")
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    for name in ("salt", "sources.csv", "request.json"):
        assert stat.S_IMODE((private / name).stat().st_mode) == 0o600
    with (private / "sources.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["image_id"] == store.index["image_id"][0]
    assert row["source"] == str(tmp_path / "in" / "a.png")


def test_a_manifest_gives_labels_splits_groups_and_label_maps(tmp_path: Path) -> None:
    folder = tmp_path / "task"
    for number in range(3):
        write_png(folder / f"i{number}.png", picture(number))
        write_png(folder / f"m{number}.png", (picture(number) > 99).astype(np.uint8) * 255)
    write_csv(
        folder / "manifest.csv",
        "path,mask_path,label,split,group_id,modality,body_part,spacing_mm",
        "i0.png,m0.png,ill,train,G1,MR,heart,0.5;0.6",
        "i1.png,m1.png,well,valid,,mr,heart,",
        "i2.png,,,test,,PT,,",
    )

    store = run(folder, tmp_path / "s", keep_column=("body_part",), keep_ids=True).store

    rows = store.index
    assert rows["modality"].tolist() == ["mr", "mr", "pet"]
    assert rows["label"].fillna("-").tolist() == ["ill", "well", "-"]
    assert rows["split"].tolist() == ["train", "val", "test"]
    assert rows["group_kind"].tolist() == ["group", "image", "image"]
    assert rows["patient_id"].nunique() == 3
    assert rows["patient_id"][0] == "G1"
    assert rows["extra_body_part"].fillna("").tolist() == ["heart", "heart", ""]
    assert (rows["spacing_row_mm"][0], rows["spacing_column_mm"][0]) == (0.5, 0.6)
    assert store.label_values == (0, 255)
    first = store.read(0)
    np.testing.assert_array_equal(first.label_map, np.where(first.pixels > 99, 255, 0))
    assert store.read(2).label_map is None


def test_members_of_the_archive_beside_a_manifest_are_read_without_unpacking(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "task"
    image, labels = write_png(tmp_path / "a.png", picture(0)), tmp_path / "m.png"
    write_palette_png(labels, picture(0) % 3, [0, 0, 0, 255, 0, 0, 0, 255, 0])
    write_zip(folder / "images.zip", {"images/a.png": image, "masks/a.png": labels})
    path = write_csv(folder / "manifest.csv", "image,mask", "images/a.png,masks/a.png")

    store = run(path, tmp_path / "s").store

    np.testing.assert_array_equal(store.read(0).pixels, picture(0))
    np.testing.assert_array_equal(store.read(0).label_map, picture(0) % 3)
    assert sorted(entry.name for entry in folder.iterdir()) == ["images.zip", "manifest.csv"]


def test_rows_of_one_volume_are_ordered_and_share_one_scale(tmp_path: Path) -> None:
    for number, level in enumerate([10, 200, 90]):
        write_png(tmp_path / "t" / f"{number}.png", np.full((4, 4), level, np.uint8))
    path = write_csv(
        tmp_path / "t" / "m.csv",
        "path,patient_id,volume_id,slice_index",
        "0.png,P,V,7",
        "1.png,P,V,2",
        "2.png,P,W,1",
    )

    store = run(path, tmp_path / "s", keep_ids=True).store

    rows = store.index[store.index["volume_id"] == "P/V"]
    assert [store.read(row).pixels[0, 0] for row in rows.index] == [200, 10]
    assert rows["slice_index"].tolist() == [0, 1]
    assert rows["scale_low"].nunique() == rows["scale_high"].nunique() == 1
    assert rows["scale_low"].iloc[0] < 12
    assert rows["scale_high"].iloc[0] == 200


def test_a_nifti_volume_and_its_label_map_go_slice_by_slice(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 900, (6, 5, 4)).astype(np.int16)
    labels = (volume > 450).astype(np.uint8) * 3
    affine = np.diag([0.7, 0.8, 5.0, 1.0])
    write_nifti(tmp_path / "t" / "ct.nii.gz", volume, affine)
    write_nifti(tmp_path / "t" / "label.nii.gz", labels, affine)
    path = write_csv(
        tmp_path / "t" / "m.csv",
        "image,label_map,patient_id,modality",
        "ct.nii.gz,label.nii.gz,P1,ct",
    )

    store = run(path, tmp_path / "s", keep_ids=True).store

    assert len(store) == 4
    assert store.index["slice_index"].tolist() == [0, 1, 2, 3]
    assert set(store.index["unit"]) == {"hu"}
    assert set(store.index["patient_id"]) == {"P1"}
    for row in range(4):
        found = store.read(row)
        np.testing.assert_array_equal(found.label_map, (found.pixels > 450) * 3)


def test_dicom_files_named_one_by_one_still_form_a_volume(tmp_path: Path) -> None:
    volume = np.arange(3 * 4 * 4, dtype=np.int16).reshape(3, 4, 4)
    paths = write_dicom_series(tmp_path / "t" / "ct", volume, instance_numbers=[2, 3, 1])
    lines = [f"ct/{path.name},{split}" for path, split in zip(paths, "abc", strict=True)]
    path = write_csv(tmp_path / "t" / "m.csv", "path,label", *reversed(lines))

    store = run(path, tmp_path / "s").store

    assert store.index["volume_id"].nunique() == 1
    assert store.index["label"].tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(store.read(2).pixels, volume[2])


def test_a_folder_named_in_a_manifest_is_looked_through(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "t" / "case1", np.zeros((3, 4, 4), np.int16))
    path = write_csv(tmp_path / "t" / "m.csv", "path,label,patient_id", "case1,ill,P1")

    rows = run(path, tmp_path / "s", keep_ids=True).store.index

    assert len(rows) == 3
    assert set(zip(rows["label"], rows["patient_id"], strict=True)) == {("ill", "P1")}


def test_images_of_nobody_known_are_divided_alike_by_every_run_that_ingests_them(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    for number in range(20):
        pixels = rng.integers(0, 255, (8, 8), dtype=np.uint8)
        write_png(tmp_path / "t" / "ab"[number % 2] / f"{number}.png", pixels)
    stores = [
        open_or_ingest([tmp_path / "t"], tmp_path / name / "store", task="classify")
        for name in ("one", "two")
    ]
    ids = [set(store.index["patient_id"]) for store in stores]
    assert len(ids[0]) == 20
    assert ids[0] == ids[1]
    splits = [split_patients(store.index) for store in stores]
    assert splits[0] == splits[1]
    # A store to be kept has pseudonyms that nobody can make from the images.
    kept = run(tmp_path / "t", tmp_path / "kept").store
    assert ids[0].isdisjoint(kept.index["patient_id"])


def test_volumes_of_nobody_known_are_told_apart_though_all_begin_empty(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(3):
        # Two volumes in each file.
        volumes = rng.integers(1, 900, (6, 5, 4, 2), dtype=np.int16)
        volumes[:, :, 0] = volumes[:, :, -1] = 0
        write_nifti(tmp_path / "t" / f"case{number}_mr.nii.gz", volumes)

    index = open_or_ingest([tmp_path / "t"], tmp_path / "store").index

    assert index["volume_id"].nunique() == 6
    assert set(index["group_kind"]) == {"image"}
    assert index["patient_id"].nunique() == 3
    assert (index.groupby("patient_id").size() == 8).all()


def test_the_option_speaks_for_silent_files_the_table_for_all(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    write_png(folder / "plain.png", picture(0))
    write_dicom_slice(folder / "mr.dcm", picture(1).astype(np.int16), Modality="MR")
    write_dicom_slice(folder / "none.dcm", picture(2).astype(np.int16), Modality=None)
    lines = ["path,modality", "plain.png,", "mr.dcm,", "none.dcm,", "plain.png,us"]
    path = write_csv(folder / "m.csv", *lines)

    rows = run(path, tmp_path / "s", modality="DX").store.index

    assert sorted(rows["modality"]) == ["mr", "us", "xr", "xr"]
    assert rows["image_id"].is_unique


def test_unknown_modality_words_are_kept_and_count_as_other(tmp_path: Path) -> None:
    write_png(tmp_path / "t" / "a.png", picture(0))
    path = write_csv(tmp_path / "t" / "m.csv", "path,modality", "a.png,fundus photograph")

    rows = run(path, tmp_path / "s").store.index

    assert rows["modality"].tolist() == ["other"]
    assert rows["extra_modality"].tolist() == ["fundus photograph"]


def test_each_unusable_file_costs_itself_only_and_has_a_reason(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    write_png(folder / "good.png", picture(0))
    write_png(folder / "small.png", picture(1, (3, 3)))
    write_png(folder / "colours.png", picture(2, (12, 10, 3)))
    (folder / "text.dat").write_text("hello")
    write_csv(
        folder / "manifest.csv",
        "path,mask",
        "good.png,",
        "good.png,small.png",
        "good.png,colours.png",
        "good.png,gone.png",
        "gone.png,",
        "text.dat,",
    )

    result = run(folder, tmp_path / "s")

    assert result.stored == 4
    assert not result.store.index["has_label_map"].any()
    assert result.reasons == {
        # One file that is no image, and no label map.
        "not-found": 1,
        "label-shape": 1,
        "label-colours": 1,
        "unknown-format": 1,
    }
    with (private_folder(tmp_path / "s") / "rejected.csv").open(newline="") as file:
        messages = {row["reason"]: row["message"] for row in csv.DictReader(file)}
    assert "3×3 pixels, but" in messages["label-shape"]
    assert "has 12×10 pixels" in messages["label-shape"]


def test_nothing_usable_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.dat").write_text("x")

    with pytest.raises(DataError, match=r"none of 3 files could be used \(unknown-format 3\)"):
        run(tmp_path / "in", tmp_path / "s")
    assert set(rejected(tmp_path / "s").values()) == {"unknown-format"}
    # The failed attempt is no obstacle to the next.
    write_png(tmp_path / "in" / "a.png", picture(0))
    assert run(tmp_path / "in", tmp_path / "s").stored == 1


def test_an_empty_folder_is_an_error_that_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="no image files were found"):
        run(tmp_path / "in", tmp_path / "s")


def test_too_large_a_share_of_rejections_fails_after_the_store_is_written(tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "a.png", picture(0))
    (tmp_path / "in" / "b.png").write_text("x")

    assert run(tmp_path / "in", tmp_path / "s", max_rejected_fraction=0.5).rejected == 1
    with pytest.raises(DataError, match=r"1 of 2 files .* max_rejected_fraction 0\.4"):
        run(tmp_path / "in", tmp_path / "t", max_rejected_fraction=0.4)
    assert len(Store(tmp_path / "t")) == 1


def test_images_and_label_maps_in_the_decathlons_folders_are_paired(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("liver_01", "liver_02"):
        write_nifti(tmp_path / "in" / "imagesTr" / f"{name}.nii.gz", rng.integers(0, 9, (6, 5, 3)))
    labels = rng.integers(0, 3, (6, 5, 3)).astype(np.uint8)
    for name in ("liver_01", "liver_77"):
        write_nifti(tmp_path / "in" / "labelsTr" / f"{name}.nii.gz", labels)
    (tmp_path / "in" / "dataset.json").write_text(
        json.dumps(
            {
                "modality": {"0": "CT"},
                "labels": {"0": "background", "1": "liver", "2": "tumour"},
                "training": [],
            }
        )
    )

    result = run(tmp_path / "in", tmp_path / "s")

    index = result.store.index
    assert index["has_label_map"].tolist() == [True] * 3 + [False] * 3
    assert set(index["modality"]) == {"ct"}
    assert result.store.classes == {1: "liver", 2: "tumour"}
    assert rejected(tmp_path / "s") == {"liver_77.nii.gz": "label-without-image"}


def test_a_segmentation_and_a_structure_set_become_label_maps_of_their_series(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 100, (4, 12, 10)).astype(np.int16)
    volume[1, 3:6, 2:7] = 50
    series = write_labelled_series(tmp_path / "in" / "ct", volume)
    write_seg(tmp_path / "in" / "a.dcm", series, {"Spleen": volume > 80, "Liver": volume < 30})
    # Columns 2 to 6, rows 3 to 5 of the second slice, in mm.
    square = np.array([[1.5, 2.5, 5], [6.5, 2.5, 5], [6.5, 5.5, 5], [1.5, 5.5, 5]])
    write_rtstruct(tmp_path / "in" / "b.dcm", series, {"Gland": [square]})

    store = run(tmp_path / "in", tmp_path / "s").store

    assert store.classes == {1: "Gland", 2: "Liver", 3: "Spleen"}
    found = np.stack([store.read(row).label_map for row in range(4)])
    expected = np.where(volume > 80, 3, np.where(volume < 30, 2, 0))
    expected[1, 3:6, 2:7] = 1
    np.testing.assert_array_equal(found, expected)


def test_blank_images_are_kept(tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "a.png", np.zeros((5, 5), np.uint8))
    row = run(tmp_path / "in", tmp_path / "s").store.index.iloc[0]
    assert (row["scale_low"], row["scale_high"]) == (0.0, 0.0)


def test_the_same_command_again_adds_only_what_is_new(tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "b.png", picture(0))
    (tmp_path / "in" / "mended.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    first = run(tmp_path / "in", tmp_path / "s")
    index = first.store.index
    write_png(tmp_path / "in" / "a.png", picture(1))
    write_png(tmp_path / "in" / "mended.png", picture(2))

    second = run(tmp_path / "in", tmp_path / "s")
    third = run(tmp_path / "in", tmp_path / "s")

    assert (first.stored, first.new_files, first.rejected) == (1, 2, 1)
    assert (second.stored, second.new_files, second.rejected) == (3, 2, 0)
    assert (third.stored, third.new_files) == (3, 0)
    assert third.store.index.iloc[:1].drop(columns=[]).equals(index)
    assert third.store.verify() == []
    assert rejected(tmp_path / "s") == {}


def test_a_store_is_not_added_to_with_other_settings(tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "a.png", picture(0))
    run(tmp_path / "in", tmp_path / "s")

    with pytest.raises(DataError, match=r"encoding is 'raw', it began with 'zstd'.*--overwrite"):
        run(tmp_path / "in", tmp_path / "s", encoding="raw")
    (private_folder(tmp_path / "s") / "salt").write_text("ab" * 32)
    with pytest.raises(DataError, match="salt is another one"):
        run(tmp_path / "in", tmp_path / "s")
    assert len(Store(tmp_path / "s")) == 1


def test_a_store_without_its_private_folder_is_not_touched(tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "a.png", picture(0))
    run(tmp_path / "in", tmp_path / "s")
    private_folder(tmp_path / "s").rename(tmp_path / "elsewhere")

    with pytest.raises(RunFolderError, match="Put the private folder back"):
        run(tmp_path / "in", tmp_path / "s")
    assert Store(tmp_path / "s").verify() == []


def test_a_changed_file_is_named_and_its_image_stays(tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "a.png", picture(0))
    run(tmp_path / "in", tmp_path / "s")
    write_png(tmp_path / "in" / "a.png", picture(1, (30, 30)))

    result = run(tmp_path / "in", tmp_path / "s")

    assert (result.stored, result.changed_files) == (1, 1)
    assert "1 files changed" in result.summary()


def test_a_dry_run_gives_the_account_and_leaves_no_trace(tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "a.png", picture(0))
    write_dicom_series(tmp_path / "in" / "ct", np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    (tmp_path / "in" / "x.dat").write_text("no image")

    trial = run(tmp_path / "in", tmp_path / "s", dry_run=True, report=tmp_path / "r" / "trial.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "r"]
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["trial.html"]
    real = run(tmp_path / "in", tmp_path / "s")

    assert (trial.stored, trial.files, trial.reasons) == (real.stored, real.files, real.reasons)
    assert "would be stored" in trial.summary()


def test_a_cap_makes_larger_images_smaller_and_says_so(tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "a.png", picture(0, (64, 32)))
    write_png(tmp_path / "in" / "b.png", picture(1, (16, 16)))
    write_csv(tmp_path / "in" / "m.csv", "path,spacing_mm", "a.png,0.5", "b.png,0.5")

    store = run(tmp_path / "in" / "m.csv", tmp_path / "s", max_side=32).store

    large, small = (store.index.iloc[row] for row in range(2))
    assert (large["height"], large["width"], large["flags"]) == (32, 16, "downscaled")
    assert (large["original_height"], large["original_width"]) == (64, 32)
    assert (large["spacing_row_mm"], large["spacing_column_mm"]) == (1.0, 1.0)
    assert (small["height"], small["width"], small["flags"]) == (16, 16, "")
    blocks = picture(0, (64, 32)).reshape(32, 2, 16, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(store.read(0).pixels, blocks, atol=0.51)


def test_too_little_space_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom_slice(tmp_path / "in" / "a.dcm", np.zeros((8, 8), np.uint16))
    gib = 2**30
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(gib, gib, 2**20))

    with pytest.raises(DataError, match=r"need \d+ MiB, 1 MiB are free"):
        run(tmp_path / "in", tmp_path / "s")


def test_the_table_of_what_was_left_out_is_named_where_it_lies(tmp_path: Path) -> None:
    """The private folder lies beside the salt, where one is named."""
    write_png(tmp_path / "scans" / "a.png", np.arange(64, dtype=np.uint8).reshape(8, 8))
    (tmp_path / "scans" / "b.bin").write_bytes(b"nothing that is known")

    result = run(tmp_path / "scans", tmp_path / "s", salt=tmp_path / "safe" / "salt")

    table = tmp_path / "safe" / "s.private" / "rejected.csv"
    assert table.is_file()
    assert f"{table} says why" in result.outcome()


def test_two_processes_store_the_same_rows_in_the_same_order_as_one(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number in range(70):
        write_png(folder / f"{number:03d}.png", picture(number))
    write_nifti(folder / "v.nii.gz", np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    (folder / "035.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    salt = tmp_path / "salt"
    one = run(folder, tmp_path / "one", salt=salt).store
    two = run(folder, tmp_path / "two", executor="processes", workers=2, salt=salt).store

    assert one.index.equals(two.index)
    assert len(one) == 69 + 5
    assert (one.folder / "rejected.csv").read_text() == (two.folder / "rejected.csv").read_text()


def test_two_sources_of_one_name_do_not_share_image_ids(tmp_path: Path) -> None:
    for hospital in "ab":
        write_png(tmp_path / hospital / "scans" / "1.png", picture(0))

    sources = tuple(tmp_path / hospital / "scans" for hospital in "ab")
    store = ingest(IngestConfig(sources=sources, store=tmp_path / "s")).store

    assert store.index["image_id"].is_unique
    assert store.index["patient_id"].is_unique


def test_image_ids_do_not_depend_on_where_the_folder_lies(tmp_path: Path) -> None:
    for place in "ab":
        write_png(tmp_path / place / "scans" / "1.png", picture(0))

    ids = [
        run(tmp_path / place / "scans", tmp_path / f"s{place}", salt=tmp_path / "salt").store.index[
            "image_id"
        ][0]
        for place in "ab"
    ]

    assert ids[0] == ids[1]


def zeros_nifti(path: Path, mebibytes: int) -> Path:
    """Write a small gzip file that unfolds to one large volume of zeros."""
    header = nib.Nifti1Header()
    header.set_data_shape((1024, 1024, mebibytes))
    header.set_data_dtype("uint8")
    header["magic"], header["vox_offset"] = b"n+1", 352
    first = gzip.compress(header.binaryblock + b"\x00" * 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(first + gzip.compress(b"\x00" * 2**20) * mebibytes)
    return path


@pytest.mark.parametrize(
    ("limit", "reason"),
    [({"file_seconds": 3.0}, "reader-time"), ({"file_memory_gib": 0.3}, "reader-memory")],
)
def test_a_file_beyond_its_limits_is_left_out_alone(
    tmp_path: Path, limit: dict[str, float], reason: str
) -> None:
    for number in range(20):
        write_png(tmp_path / "in" / f"{number:02d}.png", picture(number))
    zeros_nifti(tmp_path / "in" / "10_zeros.nii.gz", 3000)

    result = run(tmp_path / "in", tmp_path / "s", executor="processes", **limit)

    assert result.stored == 20
    assert rejected(tmp_path / "s") == {"10_zeros.nii.gz": reason}
    assert result.store.verify() == []


def test_every_intake_reason_has_a_meaning() -> None:
    assert set(INTAKE_REASONS) == set(IntakeReason)


def test_a_store_given_as_data_is_opened_and_other_data_is_ingested_once(tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "a.png", picture(0))

    made = open_or_ingest([tmp_path / "in"], tmp_path / "s")
    stamp = (made.folder / "manifest.json").stat().st_mtime_ns
    again = open_or_ingest([tmp_path / "in"], tmp_path / "s")
    opened = open_or_ingest([made.folder], tmp_path / "unused")

    assert (again.folder / "manifest.json").stat().st_mtime_ns == stamp
    assert opened.folder == made.folder
    assert not (tmp_path / "unused").exists()
    write_png(tmp_path / "more" / "b.png", picture(1))
    other = open_or_ingest([tmp_path / "in", tmp_path / "more"], tmp_path / "s")
    assert len(other) == 2
    with pytest.raises(DataError, match="is a store and cannot be joined"):
        open_or_ingest([made.folder, tmp_path / "in"], tmp_path / "unused")


def test_a_patient_whom_a_manifest_divides_is_told(tmp_path: Path) -> None:
    rows = [("a", "P1", "train"), ("b", "P1", "test"), ("c", "P2", "train"), ("d", "P3", "")]
    for number, (name, _, _) in enumerate(rows):
        write_png(tmp_path / f"{name}.png", picture(number))
    lines = [f"{name}.png,{patient},{split}" for name, patient, split in rows]
    table = tmp_path / "m.csv"
    write_csv(table, "path,patient_id,split", *lines)

    result = run(table, tmp_path / "store")

    page = (result.folder / "report.html").read_text()
    assert "1 patient has images in several splits" in page


def test_the_reference_layout_is_ingested_with_its_splits_and_fold(tmp_path: Path) -> None:
    folder = tmp_path / "task"
    for number, split in enumerate(["train", "val", "test"]):
        write_png(folder / f"{split}.png", picture(number))
        write_csv(folder / f"{split}_fold2.csv", "image,label", f"{split}.png,{number}")

    store = open_or_ingest([folder], tmp_path / "s", task="classify", fold=2)

    facts = store.index[["split", "label"]].sort_values("label").to_numpy().tolist()
    assert facts == [["train", "0"], ["val", "1"], ["test", "2"]]
    assert store.manifest["fold"] == 2


def test_folders_of_classes_become_labels_and_splits(tmp_path: Path) -> None:
    for number, name in enumerate(["train/ill", "train/well", "test/ill"]):
        write_png(tmp_path / "task" / name / "deep" / "a.png", picture(number))

    rows = open_or_ingest([tmp_path / "task"], tmp_path / "s", task="classify").index

    facts = sorted(zip(rows["split"], rows["label"], strict=True))
    assert facts == [("test", "ill"), ("train", "ill"), ("train", "well")]
    assert rows["image_id"].is_unique
    assert set(rows["group_kind"]) == {"image"}


@pytest.mark.real_data
def test_the_heart_data_is_ingested_with_its_label_maps(test_data: Path, tmp_path: Path) -> None:
    result = run(test_data / "data" / "seg_mr_cardiac_acdc", tmp_path / "s", workers=1)

    rows = result.store.index
    assert (result.stored, result.rejected) == (938, 0)
    assert Counter(rows["split"]) == {"train": 572, "val": 90, "test": 276}
    assert rows["patient_id"].nunique() == 50
    assert result.store.label_values == (0, 1, 2, 3)
    assert set(rows["modality"]) == {"mr"}


@pytest.mark.real_data
def test_every_clinical_file_is_stored_or_left_out_with_a_reason(
    test_data: Path, tmp_path: Path
) -> None:
    result = run(test_data / "data" / "dicom_nifti", tmp_path / "s", workers=1)

    assert result.files == 114
    damaged = {"undecodable", "no-pixels", "truncated"}
    on_purpose = {"not-an-image", "localizer", "secondary-capture", "label-without-image", "copy"}
    assert set(result.reasons) <= damaged | on_purpose
    assert sum(result.reasons.get(reason, 0) for reason in damaged) <= 15
    assert result.store.verify() == []


def test_the_modality_option_cures_a_ct_without_rescale_as_its_message_says(tmp_path: Path) -> None:
    source = tmp_path / "scans"
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    write_dicom_slice(source / "a.dcm", pixels, RescaleSlope=None, RescaleIntercept=None)
    write_png(source / "b.png", picture(0))

    assert run(source, tmp_path / "plain").reasons == {"no-rescale": 1}
    cured = run(source, tmp_path / "cured", modality="xr")

    assert cured.rejected == 0
    assert set(cured.store.index["modality"]) == {"xr"}
