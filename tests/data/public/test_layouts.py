import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from factories import write_nifti, write_png
from vismae.core.errors import DataError
from vismae.data.public.acdc import read_acdc
from vismae.data.public.amos import read_amos
from vismae.data.public.btcv import ORGANS, SYNAPSE_ORGANS, read_btcv, read_synapse
from vismae.data.public.busi import read_busi
from vismae.data.public.isic import read_isic
from vismae.data.public.layouts import READERS
from vismae.data.public.medmnist import read_medmnist
from vismae.data.public.nnunet import read_nnunet
from vismae.data.public.tasks import TaskRow

VOLUME = np.zeros((4, 4, 2), dtype=np.int16)


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _by_name(rows: object) -> dict[str, TaskRow]:
    found = list(rows)  # type: ignore[call-overload]
    return {row.image.name if isinstance(row.image, Path) else row.image[0]: row for row in found}


def test_acdc_gives_drawn_frames_with_phase_and_pathology(tmp_path: Path) -> None:
    for folder, patient in (("training", "patient001"), ("testing", "patient101")):
        place = tmp_path / "database" / folder / patient
        for frame in ("01", "12"):
            _touch(
                place / f"{patient}_frame{frame}.nii.gz",
                place / f"{patient}_frame{frame}_gt.nii.gz",
            )
        _touch(place / f"{patient}_4d.nii.gz")
        (place / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: DCM\nHeight: 184.0\n")
    (task,) = read_acdc(tmp_path)
    rows = _by_name(task.rows)
    assert set(rows) == {
        f"patient{p}_frame{f}.nii.gz" for p in ("001", "101") for f in ("01", "12")
    }
    row = rows["patient001_frame12.nii.gz"]
    assert row.label_map == row.image.with_name("patient001_frame12_gt.nii.gz")  # type: ignore[union-attr]
    assert (row.patient_id, row.split, row.modality) == ("patient001", "train", "mr")
    assert row.more == {"pathology": "DCM", "phase": "ES"}
    assert rows["patient101_frame01.nii.gz"].split == "test"
    assert task.classes == ("right ventricle", "myocardium", "left ventricle")


def test_synapse_takes_the_published_test_patients_and_eight_organs(tmp_path: Path) -> None:
    numbers = [*range(1, 11), *range(21, 41)]
    for number in numbers:
        _touch(
            tmp_path / "RawData" / "Training" / "img" / f"img{number:04d}.nii.gz",
            tmp_path / "RawData" / "Training" / "label" / f"label{number:04d}.nii.gz",
        )
    (task,) = read_synapse(tmp_path)
    splits = [row.split for row in task.rows]
    assert (splits.count("train"), splits.count("test")) == (18, 12)
    assert task.label_values is not None
    assert set(task.label_values) == set(range(14))
    for value, number in task.label_values.items():
        organ = "background" if value == 0 else ORGANS[value - 1]
        expected = SYNAPSE_ORGANS.index(organ) + 1 if organ in SYNAPSE_ORGANS else 0
        assert number == expected
    assert task.settings == {"preprocessing": {"ct_window_hu": [-125.0, 275.0]}}
    (all_organs,) = read_btcv(tmp_path / "RawData" / "Training")
    assert len(all_organs.classes) == 13
    assert {row.split for row in all_organs.rows} == {None}


def test_btcv_is_read_as_tutorials_arrange_it_too(tmp_path: Path) -> None:
    for number in (1, 5):
        _touch(
            tmp_path / "imagesTr" / f"img{number:04d}.nii.gz",
            tmp_path / "labelsTr" / f"label{number:04d}.nii.gz",
        )
    (task,) = read_synapse(tmp_path)
    found = [(row.patient_id, row.label_map, row.split) for row in task.rows]
    assert found == [
        ("case0001", tmp_path / "labelsTr" / "label0001.nii.gz", "test"),
        ("case0005", tmp_path / "labelsTr" / "label0005.nii.gz", "train"),
    ]


def test_nnunet_names_the_colours_of_one_file_singly(tmp_path: Path) -> None:
    for case in ("img-1", "img-2"):
        _touch(tmp_path / "imagesTr" / f"{case}_0000.png", tmp_path / "labelsTr" / f"{case}.png")
    table = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "road": 1},
        "file_ending": ".png",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(table))
    (task,) = read_nnunet(tmp_path)
    assert (task.in_channels, task.sequences) == (3, ())
    assert [(row.group_id, row.channel, row.more) for row in task.rows] == [
        ("img-1", None, {}),
        ("img-2", None, {}),
    ]
    (grey,) = read_nnunet(tmp_path, channel=0)
    assert grey.in_channels == 1


def test_a_volume_without_its_label_map_is_an_error_that_names_it(tmp_path: Path) -> None:
    _touch(tmp_path / "Training" / "img" / "img0001.nii.gz")
    with pytest.raises(DataError, match=r"label0001.*label map of img0001"):
        read_btcv(tmp_path)


def test_amos_tells_ct_from_mr_by_number_and_tests_on_the_validation_patients(
    tmp_path: Path,
) -> None:
    for ending, number in (("Tr", "0001"), ("Tr", "0507"), ("Va", "0600")):
        _touch(
            tmp_path / f"images{ending}" / f"amos_{number}.nii.gz",
            tmp_path / f"labels{ending}" / f"amos_{number}.nii.gz",
        )
    _touch(tmp_path / "imagesTs" / "amos_0002.nii.gz")
    (task,) = read_amos(tmp_path)
    rows = _by_name(task.rows)
    assert {name[:9]: (row.modality, row.split) for name, row in rows.items()} == {
        "amos_0001": ("ct", "train"),
        "amos_0507": ("mr", "train"),
        "amos_0600": ("mr", "test"),
    }
    assert len(task.classes) == 15


def test_busi_unites_all_lesions_of_an_image(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset_BUSI_with_GT"
    left, right = np.zeros((2, 6, 8), dtype=np.uint8)
    left[1, 1], right[4, 6] = 255, 255
    write_png(folder / "benign" / "benign (4).png", np.full((6, 8), 90, dtype=np.uint8))
    write_png(folder / "benign" / "benign (4)_mask.png", left)
    write_png(folder / "benign" / "benign (4)_mask_1.png", right)
    write_png(folder / "benign" / "benign (40).png", np.full((6, 8), 90, dtype=np.uint8))
    write_png(folder / "benign" / "benign (40)_mask.png", np.zeros((6, 8), dtype=np.uint8))
    segment, classify = read_busi(tmp_path)
    row = _by_name(segment.rows)["benign (4).png"]
    assert callable(row.label_map)
    assert np.argwhere(row.label_map()).tolist() == [[1, 1], [4, 6]]
    assert (row.label, row.patient_id, row.group_id) == ("benign", None, "benign (4)")
    assert row.modality == "us"
    assert classify.classes == ("normal", "benign", "malignant")


def test_a_damaged_drawing_of_busi_is_named(tmp_path: Path) -> None:
    write_png(tmp_path / "benign" / "benign (1).png", np.full((6, 8), 90, dtype=np.uint8))
    drawing = tmp_path / "benign" / "benign (1)_mask.png"
    write_png(drawing, np.zeros((6, 8), dtype=np.uint8))
    drawing.write_bytes(drawing.read_bytes()[:40])
    (row,) = read_busi(tmp_path)[0].rows
    assert callable(row.label_map)
    with pytest.raises(DataError, match=r"benign \(1\)_mask.png cannot be read"):
        row.label_map()


def test_isic_keeps_photographs_of_one_lesion_together(tmp_path: Path) -> None:
    name = "ISIC2018_Task3_Training_GroundTruth"
    _touch(tmp_path / "ISIC2018_Task3_Training_Input" / "ISIC_0000001.jpg")
    (tmp_path / name).mkdir()
    header = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"
    (tmp_path / name / f"{name}.csv").write_text(
        f"{header}ISIC_0000001,0,1.0,0,0,0,0,0\nISIC_0000002,1.0,0,0,0,0,0,0\n"
        "ISIC_0000009,0,0,0,0,0,1,0\n"
    )
    (tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv").write_text(
        "image,lesion_id,diagnosis_confirm_type\n"
        "ISIC_0000001,HAM_7,histopathology\nISIC_0000002,HAM_7,histopathology\n"
    )
    _touch(
        tmp_path / "ISIC2018_Task1-2_Training_Input" / "ISIC_0000003.jpg",
        tmp_path / "ISIC2018_Task1_Training_GroundTruth" / "ISIC_0000003_segmentation.png",
    )
    segment, classify = read_isic(tmp_path)
    assert [(row.label, row.group_id, row.patient_id) for row in classify.rows] == [
        ("NV", "HAM_7", None),
        ("MEL", "HAM_7", None),
        ("DF", "ISIC_0000009", None),
    ]
    assert (segment.kind, segment.in_channels) == ("segment", 3)
    assert [(row.split, row.group_id, row.patient_id) for row in segment.rows] == [
        ("train", "ISIC_0000003", None)
    ]


def test_isic_refuses_an_image_with_two_diagnoses(tmp_path: Path) -> None:
    name = "ISIC2018_Task3_Training_GroundTruth"
    (tmp_path / "ISIC2018_Task3_Training_Input").mkdir()
    (tmp_path / f"{name}.csv").write_text("image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\na,1,1,0,0,0,0,0\n")
    with pytest.raises(DataError, match=r"line 2: 2 diagnoses"):
        read_isic(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [("a,yes,0,0,0,0,0,0", "line 2: .*'yes'.* correct"), ("\xe9,1,0,0,0,0,0,0", "no csv table")],
)
def test_isic_names_the_table_that_cannot_be_read(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "ISIC2018_Task3_Training_Input").mkdir()
    table = tmp_path / "ISIC2018_Task3_Training_GroundTruth.csv"
    table.write_text(f"image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n{row}\n", encoding="latin-1")
    with pytest.raises(DataError, match=f"{table.name}.*{message}"):
        read_isic(tmp_path)


def _medmnist(path: Path, image_shape: tuple[int, ...], labels: np.ndarray, **more: object) -> Path:
    generator = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = generator.integers(
            0, 256, (len(labels), *image_shape), np.uint8
        )
        arrays[f"{split}_labels"] = labels
    np.savez_compressed(path, **{**arrays, **more})  # type: ignore[arg-type]
    return path


def test_medmnist_images_come_out_as_they_were(tmp_path: Path) -> None:
    labels = np.array([[0], [1], [1]], dtype=np.uint8)
    path = _medmnist(tmp_path / "pneumoniamnist.npz", (28, 28), labels)
    (task,) = read_medmnist(path)
    rows = list(task.rows)
    assert [row.label for row in rows[:3]] == ["normal", "pneumonia", "pneumonia"]
    assert [row.split for row in rows] == ["train"] * 3 + ["val"] * 3 + ["test"] * 3
    assert {(row.modality, row.patient_id) for row in rows} == {("xr", None)}
    with np.load(path) as arrays:
        for number, row in enumerate(rows[3:6]):
            assert not isinstance(row.image, Path)
            np.testing.assert_array_equal(row.image[1], arrays["val_images"][number])


def test_images_of_two_medmnist_files_are_never_of_one_group(tmp_path: Path) -> None:
    labels = np.array([[0], [1]], dtype=np.uint8)
    groups = [
        row.group_id
        for name in ("pneumoniamnist", "breastmnist")
        for row in read_medmnist(_medmnist(tmp_path / f"{name}.npz", (8, 8), labels))[0].rows
    ]
    assert len(set(groups)) == len(groups) == 12


def test_medmnist_knows_colour_volumes_and_several_labels(tmp_path: Path) -> None:
    ones = np.array([[0], [1]], dtype=np.uint8)
    (colour,) = read_medmnist(_medmnist(tmp_path / "retinamnist_64.npz", (8, 8, 3), ones))
    assert (colour.in_channels, colour.classes) == (3, ("0", "1"))
    (volumes,) = read_medmnist(_medmnist(tmp_path / "nodulemnist3d.npz", (5, 8, 8), ones))
    rows = list(volumes.rows)
    assert len(rows) == 3 * 2 * 5
    assert [(row.volume_id, row.slice_index) for row in rows[4:6]] == [
        ("nodulemnist3d-train-000000", 4),
        ("nodulemnist3d-train-000001", 0),
    ]
    several = np.zeros((2, 14), dtype=np.uint8)
    several[1, [0, 13]] = 1
    (chest,) = read_medmnist(_medmnist(tmp_path / "chestmnist.npz", (8, 8), several))
    assert chest.multi_label
    assert [row.label for row in chest.rows][:2] == ["", "atelectasis|hernia"]


def test_medmnist_may_lack_images_of_a_split_but_not_for_training(tmp_path: Path) -> None:
    labels = np.array([[0], [1]], dtype=np.uint8)
    none = {
        f"{split}_{what}": np.zeros((0, *shape), np.uint8)
        for split in ("train", "val")
        for what, shape in (("images", (8, 8)), ("labels", (1,)))
    }
    val = {name: array for name, array in none.items() if name.startswith("val")}
    (task,) = read_medmnist(_medmnist(tmp_path / "breastmnist.npz", (8, 8), labels, **val))
    assert [row.split for row in task.rows] == ["train"] * 2 + ["test"] * 2
    with pytest.raises(DataError, match="train_labels is empty"):
        read_medmnist(_medmnist(tmp_path / "octmnist.npz", (8, 8), labels, **none))


def test_medmnist_with_pickled_objects_is_refused(tmp_path: Path) -> None:
    labels = np.array([[0], [1]], dtype=np.uint8)
    objects = np.array([{"a": 1}, {"b": 2}], dtype=object)
    path = _medmnist(tmp_path / "octmnist.npz", (8, 8), labels, train_labels=objects)
    with pytest.raises(DataError, match="Objects are never loaded"):
        read_medmnist(path)


@pytest.mark.parametrize("place", [0.3, 0.5])
def test_a_damaged_medmnist_file_is_named(tmp_path: Path, place: float) -> None:
    labels = np.array([[0], [1]], dtype=np.uint8)
    path = _medmnist(tmp_path / "breastmnist.npz", (64, 64), labels)
    content = bytearray(path.read_bytes())
    start = int(place * len(content))
    content[start : start + 99] = bytes(99)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"breastmnist.npz: \w+_images .*(damaged|cannot be read)"):
        list(read_medmnist(path)[0].rows)


@pytest.mark.parametrize("shape", [(2, -8, 8), (2, 0, 8), (2, 10**9, 10**9)])
def test_a_medmnist_header_that_declares_nonsense_is_refused(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = _medmnist(tmp_path / "octmnist.npz", (8, 8), np.array([[0], [3]], dtype=np.uint8))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, head.getvalue() if name == "train_images.npy" else content)
    with pytest.raises(DataError, match="train_images has the shape"):
        read_medmnist(path)


def test_the_medmnist_volumes_cut_from_scans_are_ct(tmp_path: Path) -> None:
    ones = np.array([[0], [1]], dtype=np.uint8)
    modalities = {
        row.modality
        for name in ("nodulemnist3d", "fracturemnist3d_64", "adrenalmnist3d")
        for row in read_medmnist(_medmnist(tmp_path / f"{name}.npz", (5, 8, 8), ones))[0].rows
    }
    assert modalities == {"ct", None}


def test_medmnist_names_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, images=np.zeros((2, 8, 8), dtype=np.uint8))
    with pytest.raises(DataError, match="train_labels cannot be read"):
        read_medmnist(path)


def _nnunet(root: Path, labels: dict[str, object]) -> Path:
    for case in ("a", "b"):
        for channel in ("0000", "0001"):
            write_nifti(root / "imagesTr" / f"{case}_{channel}.nii.gz", VOLUME)
        write_nifti(root / "labelsTr" / f"{case}.nii.gz", VOLUME)
    (root / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": labels})
    )
    return root


def test_nnunet_takes_one_channel_and_the_published_folds(tmp_path: Path) -> None:
    root = _nnunet(tmp_path, {"background": 0, "edema": 1, "core": 4})
    (root / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    (task,) = read_nnunet(root, fold=0, channel=1)
    rows = _by_name(task.rows)
    assert {name: row.split for name, row in rows.items()} == {
        "a_0001.nii.gz": "train",
        "b_0001.nii.gz": "val",
    }
    assert (task.classes, task.label_values) == (("edema", "core"), {0: 0, 1: 1, 4: 2})
    assert {row.modality for row in rows.values()} == {"mr"}
    with pytest.raises(DataError, match="fold 3 of 1"):
        read_nnunet(root, fold=3, channel=0)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("dataset.json", "[]", "dataset.json is no JSON that can be read .not a dict"),
        ("dataset.json", '{"labels": ["liver"]}', "labels is no table"),
        ("splits_final.json", "{}", "splits_final.json is no JSON that can be read .not a list"),
        ("splits_final.json", '[["a", "b"]]', "fold 0 is no table of train and val"),
    ],
)
def test_nnunet_names_the_table_that_is_none(
    tmp_path: Path, file: str, text: str, message: str
) -> None:
    root = _nnunet(tmp_path, {"background": 0, "edema": 1})
    (root / file).write_text(text)
    with pytest.raises(DataError, match=message):
        read_nnunet(root, fold=0, channel=0)


def test_nnunet_refuses_pixels_that_nobody_annotated(tmp_path: Path) -> None:
    root = _nnunet(tmp_path, {"background": 0, "core": 1, "ignore": 2})
    with pytest.raises(DataError, match=r"the value 2 .* called 'ignore'.* Annotate these pixels"):
        read_nnunet(root)


def test_a_number_that_the_label_map_has_too_is_no_channel(tmp_path: Path) -> None:
    for case in ("word_0000", "word_0002", "word_0030"):
        for folder in ("imagesTr", "labelsTr"):
            _touch(tmp_path / folder / f"{case}.nii.gz")
    table = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}}
    (tmp_path / "dataset.json").write_text(json.dumps(table))
    folds = [{"train": ["word_0000", "word_0002"], "val": ["word_0030"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    (task,) = read_nnunet(tmp_path, fold=0)
    assert [(row.group_id, row.split, row.modality) for row in task.rows] == [
        ("word_0000", "train", "ct"),
        ("word_0002", "train", "ct"),
        ("word_0030", "val", "ct"),
    ]
    with pytest.raises(DataError, match="channel '1' is the name or number of 0 channels"):
        read_nnunet(tmp_path, channel=1)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"liver": 1}}))
    with pytest.raises(DataError, match="no image of channel 1"):
        read_nnunet(tmp_path, channel=1)


def test_one_of_several_channels_is_chosen_or_all_are_sequences(tmp_path: Path) -> None:
    labels: dict[str, object] = {"background": 0, "core": 1}
    numbered = _nnunet(tmp_path / "numbered", labels)
    for root in (numbered, _nnunet(tmp_path / "unnamed", labels)):
        (task,) = read_nnunet(root, channel=1)
        assert [(row.group_id, row.channel) for row in task.rows] == [("a", None), ("b", None)]
        assert (task.sequences, [row.more for row in task.rows]) == ((), [{}, {}])
        (task,) = read_nnunet(root)
        assert task.sequences == ("T1", "FLAIR")
        assert [(row.group_id, row.more["sequence"]) for row in task.rows] == [
            (case, name) for case in ("a", "b") for name in task.sequences
        ]
        (root / "dataset.json").write_text(json.dumps({"labels": labels}))
        assert read_nnunet(root)[0].sequences == ("channel_0", "channel_1")
    alike = {"channel_names": {"0": "noNorm", "1": "nonorm"}, "labels": labels}
    (numbered / "dataset.json").write_text(json.dumps(alike))
    assert read_nnunet(numbered)[0].sequences == ("noNorm_0", "nonorm_1")
    alone = {"channel_names": {"0": "CT"}, "labels": labels}
    (numbered / "dataset.json").write_text(json.dumps(alone))
    with pytest.raises(DataError, match=r"names the channels 0 CT, but imagesTr also .* number 1"):
        read_nnunet(numbered)
    table = {"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}, "labels": labels}
    (numbered / "dataset.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match=r"no image of channel 2 .t1gd.*Choose one .* --channel"):
        read_nnunet(numbered)
    decathlon = tmp_path / "Task01_BrainTumour"
    for case in ("BRATS_001", "BRATS_0002"):
        for folder in ("imagesTr", "labelsTr"):
            _touch(decathlon / folder / f"{case}.nii.gz")
    (decathlon / "dataset.json").write_text(json.dumps(table))
    (task,) = read_nnunet(decathlon)
    assert task.sequences == ("FLAIR", "T1w", "t1gd", "T2w")
    assert [(row.channel, row.more["sequence"]) for row in task.rows] == [
        *enumerate(task.sequences),
        *enumerate(task.sequences),
    ]
    (task,) = read_nnunet(decathlon, channel="T1Gd")
    assert [(row.group_id, row.channel, row.modality) for row in task.rows] == [
        ("BRATS_0002", 2, "mr"),
        ("BRATS_001", 2, "mr"),
    ]


def test_nnunet_refuses_regions_by_name(tmp_path: Path) -> None:
    root = _nnunet(tmp_path, {"background": 0, "whole tumour": [1, 2], "core": 2})
    with pytest.raises(DataError, match=r"'whole tumour' is the region \[1, 2\]. List each value"):
        read_nnunet(root, channel=0)


def test_nnunet_reads_values_written_as_texts_and_floats(tmp_path: Path) -> None:
    root = _nnunet(tmp_path, {"background": "0", "edema": "1", "core": 4.0})
    (task,) = read_nnunet(root, channel=0)
    assert (task.classes, task.label_values) == (("edema", "core"), {0: 0, 1: 1, 4: 2})
    with pytest.raises(DataError, match="'core' is 'four', and neither is a whole number"):
        read_nnunet(_nnunet(tmp_path, {"background": 0, "core": "four"}), channel=0)


@pytest.mark.parametrize("layout", sorted(set(READERS) - {"medmnist"}))
def test_another_folder_is_refused_with_what_was_expected(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DataError, match=r"no folder|neither"):
        READERS[layout](tmp_path)
