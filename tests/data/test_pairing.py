import json
import logging
from pathlib import Path

import pytest

from vismae.data.pairing import Pairing, find_pairs


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def pairs_of(root: Path) -> dict[str, str | None]:
    found = find_pairs(root)
    assert found is not None
    return {
        image.image.relative_to(root).as_posix(): image.label_map
        and image.label_map.relative_to(root).as_posix()
        for image in found.images
    }


def pairing(root: Path) -> Pairing:
    found = find_pairs(root)
    assert found is not None
    return found


def test_a_decathlon_task_gives_pairs_splits_classes_and_modality(tmp_path: Path) -> None:
    tree(
        tmp_path,
        *("imagesTr/liver_1.nii.gz", "imagesTr/liver_2.nii.gz", "imagesTr/._liver_1.nii.gz"),
        *("labelsTr/liver_1.nii.gz", "labelsTr/liver_9.nii.gz", "imagesTs/liver_3.nii.gz"),
    )
    table = {"labels": {"0": "background", "1": "liver"}, "modality": {"0": "CT"}}
    (tmp_path / "dataset.json").write_text(json.dumps(table))

    assert pairs_of(tmp_path) == {
        "imagesTr/liver_1.nii.gz": "labelsTr/liver_1.nii.gz",
        "imagesTr/liver_2.nii.gz": None,
        "imagesTs/liver_3.nii.gz": None,
    }
    found = pairing(tmp_path)
    assert [image.split for image in found.images] == ["train", "train", "test"]
    assert {image.modality for image in found.images} == {"ct"}
    assert {image.group for image in found.images} == {None}
    assert found.unpaired == [tmp_path / "labelsTr/liver_9.nii.gz"]
    assert found.class_names == {1: "liver"}


def test_channels_of_nnunet_share_label_map_and_group(tmp_path: Path) -> None:
    tree(
        tmp_path / "Dataset001_Brain",
        *("imagesTr/a_0000.nrrd", "imagesTr/a_0001.nrrd", "labelsTr/a.nrrd"),
        *("imagesTs/b_0000.nrrd", "imagesTs/b_0001.nrrd", "labelsTs/b.nrrd"),
    )
    table = {"labels": {"background": 0, "x": 1}, "channel_names": {"0": "T1", "1": "PET"}}
    (tmp_path / "Dataset001_Brain" / "dataset.json").write_text(json.dumps(table))

    found = pairing(tmp_path)

    assert [image.label_map and image.label_map.name for image in found.images] == [
        *("a.nrrd", "a.nrrd", "b.nrrd", "b.nrrd")
    ]
    assert [image.modality for image in found.images] == ["mr", "pet", "mr", "pet"]
    assert [image.group for image in found.images] == [
        *["Dataset001_Brain/imagesTr/a"] * 2,
        *["Dataset001_Brain/imagesTs/b"] * 2,
    ]
    assert {image.group_kind for image in found.images} == {"group"}


@pytest.mark.parametrize("labels", ["labels", "Masks", "annotations", "segmentations"])
def test_images_beside_label_maps_have_equal_relative_names(tmp_path: Path, labels: str) -> None:
    tree(
        tmp_path,
        *("images/train/1.jpg", "images/val/1.jpg", "images/val/2.jpg"),
        *(f"{labels}/train/1.png", f"{labels}/val/1.png"),
    )

    assert pairs_of(tmp_path) == {
        "images/train/1.jpg": f"{labels}/train/1.png",
        "images/val/1.jpg": f"{labels}/val/1.png",
        "images/val/2.jpg": None,
    }
    assert [image.split for image in pairing(tmp_path).images] == ["train", "val", "val"]


def test_split_folders_may_lie_above_the_twins(tmp_path: Path) -> None:
    tree(
        tmp_path,
        *("Training/images/a_0001.png", "Training/masks/a_0001.png"),
        *("test/images/b.png", "test/masks/b_mask.png"),
    )

    found = pairing(tmp_path)

    assert [(image.image.name, image.split, image.group) for image in found.images] == [
        ("a_0001.png", "train", None),
        ("b.png", "test", None),
    ]
    assert all(image.label_map for image in found.images)


def test_neighbours_and_sequences_are_paired_and_the_rest_is_kept(tmp_path: Path) -> None:
    tree(
        tmp_path,
        *("a/x.nii.gz", "a/x_seg.nii.gz", "a/y.nii.gz", "a/z-mask.nii.gz", "a/old.dcm"),
        *("a/notes.txt", "README", "b/b_t1.nii", "b/b_t2.nii", "b/b_seg.nii"),
        *("series/1.dcm", "series/deep/2.dcm", "more.zip", "lone.png"),
    )

    assert pairs_of(tmp_path) == {
        "lone.png": None,
        "a/x.nii.gz": "a/x_seg.nii.gz",
        "a/y.nii.gz": None,
        "b/b_t1.nii": "b/b_seg.nii",
        "b/b_t2.nii": "b/b_seg.nii",
    }
    found = pairing(tmp_path)
    assert found.unpaired == [tmp_path / "a/z-mask.nii.gz"]
    assert {lone.image for lone in found.rest} == {
        tmp_path / name for name in ("a/old.dcm", "series", "more.zip")
    }
    assert {image.group for image in found.images} == {None, "b/b"}


def test_files_that_differ_in_suffix_alone_are_not_lost_or_guessed(tmp_path: Path) -> None:
    tree(
        tmp_path,
        *("images/a.png", "images/a.jpg", "images/b.png"),
        *("labels/a.png", "labels/b.png", "labels/b.tif"),
    )

    assert pairs_of(tmp_path) == {
        "images/a.jpg": "labels/a.png",
        "images/a.png": "labels/a.png",
        "images/b.png": None,
    }
    assert [path.name for path in pairing(tmp_path).unpaired] == ["b.png", "b.tif"]


def test_bids_label_maps_belong_to_the_only_image_with_their_entities(tmp_path: Path) -> None:
    tree(
        tmp_path,
        *("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/func/sub-01_task-rest_bold.nii.gz"),
        *("sub-02/anat/sub-02_T1w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz"),
        "derivatives/seg/sub-01/anat/sub-01_desc-aseg_dseg.nii.gz",
        "derivatives/seg/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
        "derivatives/seg/sub-02/anat/sub-02_dseg.nii.gz",
    )

    assert pairs_of(tmp_path) == {
        "sub-01/anat/sub-01_T1w.nii.gz": (
            "derivatives/seg/sub-01/anat/sub-01_desc-aseg_dseg.nii.gz"
        ),
    }
    found = pairing(tmp_path)
    assert [(found.images[0].group, found.images[0].group_kind)] == [("sub-01", "patient")]
    assert [(image.image, image.group, image.group_kind) for image in found.rest] == [
        (tmp_path / "sub-01/func", "sub-01", "patient"),
        (tmp_path / "sub-02", "sub-02", "patient"),
    ]
    assert [path.name for path in found.unpaired] == ["sub-02_dseg.nii.gz"]


@pytest.mark.parametrize("labels", ["labels", "masks", "labels/final"])
def test_label_maps_may_lie_below_their_images(tmp_path: Path, labels: str) -> None:
    tree(tmp_path, *(f"p1/{name}.nii.gz" for name in ("a", "b", "c")))
    tree(tmp_path, *(f"p1/{labels}/{name}.nii.gz" for name in ("a", "b_mask", "other")))
    tree(tmp_path, f"p1/{labels.split('/')[0]}/original/a.nii.gz", f"p1/{labels}/seg.dcm")

    assert pairs_of(tmp_path) == {
        "p1/a.nii.gz": f"p1/{labels}/a.nii.gz",
        "p1/b.nii.gz": f"p1/{labels}/b_mask.nii.gz",
        "p1/c.nii.gz": None,
    }
    found = pairing(tmp_path)
    assert sorted(path.name for path in found.unpaired) == ["a.nii.gz", "other.nii.gz"]
    assert [lone.image.name for lone in found.rest] == ["seg.dcm"]


def test_dicom_among_the_volumes_of_paired_folders_is_not_lost(tmp_path: Path) -> None:
    tree(tmp_path, "images/a.nii.gz", "images/more/b.dcm", "labels/a.nii.gz", "labels/seg.dcm")

    assert [lone.image.name for lone in pairing(tmp_path).rest] == ["b.dcm", "seg.dcm"]


def test_beside_one_image_each_file_of_a_folder_is_a_structure(tmp_path: Path) -> None:
    tree(tmp_path, "s1/ct.nii.gz", "s1/segmentations/liver.nii.gz", "s1/segmentations/aorta.nii")
    tree(tmp_path, "s2/ct.nii.gz", "s2/segmentations/all.nii.gz")
    tree(tmp_path, "s3/photo.png", "s3/masks/1.png", "s3/masks/2.png")
    tree(tmp_path, "s4/t1.nii.gz", "s4/t2.nii.gz", "s4/labels/x.nii.gz", "s4/labels/y.nii.gz")

    assert pairs_of(tmp_path) == {
        "s1/ct.nii.gz": "s1/segmentations",
        "s2/ct.nii.gz": "s2/segmentations/all.nii.gz",
    }
    rest = [lone.image.name for lone in pairing(tmp_path).rest]
    assert rest == ["s3", "s4"]


def test_two_folders_of_label_maps_are_not_chosen_between(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree(tmp_path, "images/a.png", "labels/a.png", "masks/a.png")

    with caplog.at_level(logging.INFO):
        assert find_pairs(tmp_path) is None

    assert "labels and masks" in caplog.text


def test_folders_without_pairs_have_no_layout(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "a/2_mask.png", "images/3.png", "labels/3.txt")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)

    assert find_pairs(tmp_path) is None


def test_what_was_paired_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree(tmp_path, "x.nii", "x_seg.nii", "y.nii", "z_seg.nii")

    with caplog.at_level(logging.INFO):
        find_pairs(tmp_path)

    assert "1 of 2 images paired with label maps by folder and name, 1 label maps" in caplog.text


def test_of_tables_that_differ_only_the_pixels_that_nobody_annotated_are_kept(
    tmp_path: Path,
) -> None:
    for folder, labels in (("a", {"liver": 1, "ignore": 2}), ("b", {"liver": 1, "spleen": 2})):
        tree(tmp_path / folder, "imagesTr/c_0000.nii.gz", "labelsTr/c.nii.gz")
        (tmp_path / folder / "dataset.json").write_text(json.dumps({"labels": labels}))

    assert pairing(tmp_path).class_names == {2: "ignore"}
