from pathlib import Path

import pytest

from vismae.core.errors import DataError
from vismae.data.manifest import FileReference
from vismae.data.sources import DataSource, Manifest, PlainSource, resolve_data


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def only_manifest(found: list[DataSource]) -> Manifest:
    (source,) = found
    assert isinstance(source, Manifest)
    return source


def reference_layout(folder: Path, *folds: int) -> Path:
    for fold in folds:
        for split, image in (("train", "a"), ("val", "b"), ("test", "c")):
            write(folder / f"{split}_fold{fold}.csv", "image,mask", f"{image}{fold}.png,m.png")
    return folder


def test_a_csv_and_a_folder_holding_manifest_csv_are_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "manifest.csv", "path,label", "a.png,x")

    named, found = (only_manifest(resolve_data([source])) for source in (path, tmp_path))
    assert named.folder == found.folder
    assert [row.label for row in named.rows] == ["x"]
    assert list(named.rows) == list(found.rows)


def test_folders_files_and_archives_are_taken_as_they_are(tmp_path: Path) -> None:
    file = write(tmp_path / "scans" / "a.png", "")

    found = resolve_data([file.parent, file])

    assert found == [PlainSource(file.parent, "scans"), PlainSource(file, "a.png")]


def test_the_reference_layout_gives_each_row_the_split_of_its_file(tmp_path: Path) -> None:
    found = only_manifest(resolve_data([reference_layout(tmp_path, 1, 2)], "segment", fold=2))

    assert {row.name: row.split for row in found.rows} == {
        "a2.png": "train",
        "b2.png": "val",
        "c2.png": "test",
    }
    assert found.fold == 2


def test_without_a_fold_the_lowest_is_taken(tmp_path: Path) -> None:
    found = only_manifest(resolve_data([reference_layout(tmp_path, 2, 1)]))
    assert found.fold == 1


def test_a_fold_that_is_not_there_is_divided_anew_only_where_there_is_no_other_choice(
    tmp_path: Path,
) -> None:
    found = only_manifest(resolve_data([reference_layout(tmp_path / "one", 1)], fold=3))
    assert found.fold is None
    assert {row.split for row in found.rows} == {"train", "val", "test"}

    with pytest.raises(DataError, match="fold 3 is not there, found the folds 1, 2"):
        resolve_data([reference_layout(tmp_path / "two", 1, 2)], fold=3)


def test_folders_of_classes_give_labels_to_classification_only(tmp_path: Path) -> None:
    for name in ("ill/1.png", "well/2.png", ".git/x"):
        write(tmp_path / "scans" / name, "")
    root = tmp_path / "scans"

    assert resolve_data([root], "classify") == [
        PlainSource(root / "ill", "scans/ill", "ill"),
        PlainSource(root / "well", "scans/well", "well"),
    ]
    assert resolve_data([root]) == [PlainSource(root, "scans")]


def test_class_folders_may_lie_within_split_folders(tmp_path: Path) -> None:
    for name in ("train/ill/1.png", "Val/ill/2.png", "test/well/3.png"):
        write(tmp_path / name, "")

    found = resolve_data([tmp_path], "classify")

    assert [(s.label, s.split) for s in found if isinstance(s, PlainSource)] == [
        ("ill", "val"),
        ("well", "test"),
        ("ill", "train"),
    ]


@pytest.mark.parametrize(
    ("task", "message"), [("segment", "No image has a label map"), ("classify", "has a label")]
)
def test_a_task_without_its_annotation_is_an_error_that_says_what_to_give(
    tmp_path: Path, task: str, message: str
) -> None:
    path = write(tmp_path / "m.csv", "path", "a.png")
    with pytest.raises(DataError, match=message):
        resolve_data([path], task)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        resolve_data([write(tmp_path / "x" / "a.png", "").parent], task)  # type: ignore[arg-type]


def test_a_source_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        resolve_data([tmp_path / "none"])
    with pytest.raises(DataError, match="No data was named"):
        resolve_data([])


def test_a_folder_of_images_and_label_maps_is_a_manifest(tmp_path: Path) -> None:
    for name in ("imagesTr/a.nii", "imagesTr/b.nii", "labelsTr/a.nii", "labelsTr/c.nii", "d/1.dcm"):
        write(tmp_path / name, "")
    write(tmp_path / "dataset.json", '{"labels": {"1": "liver"}, "modality": {"0": "CT"}}')

    found = only_manifest(resolve_data([tmp_path], "segment"))

    rows = {row.name: row for row in found.rows}
    assert set(rows) == {"imagesTr/a.nii", "imagesTr/b.nii", "d"}
    assert rows["imagesTr/a.nii"].label_map == FileReference(tmp_path / "labelsTr/a.nii")
    assert rows["imagesTr/b.nii"].label_map is None
    assert (rows["imagesTr/a.nii"].split, rows["imagesTr/a.nii"].modality) == ("train", "ct")
    assert rows["d"].image == FileReference(tmp_path / "d")
    assert found.unpaired == (tmp_path / "labelsTr/c.nii",)
    assert found.class_names == {1: "liver"}
