import json
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

import vismae
from cases_on_disk import VOXELS, case_volumes
from factories import write_nifti, write_png
from vismae.core.errors import SettingError
from vismae.data.store import Store
from vismae.models.weights import load_model


def test_a_converted_volume_task_trains_and_keeps_its_test_patients(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for folder, patients in (("training", range(1, 6)), ("testing", range(101, 103))):
        for number in patients:
            name = f"patient{number:03d}"
            label_map = np.zeros((32, 32, 2), dtype=np.uint8)
            label_map[8:16, 8:16], label_map[16:24, 8:16], label_map[8:16, 16:24] = 1, 2, 3
            pixels = (label_map * 200 + generator.integers(0, 60, label_map.shape)).astype(np.int16)
            place = tmp_path / "acdc" / folder / name
            write_nifti(place / f"{name}_frame01.nii.gz", pixels)
            write_nifti(place / f"{name}_frame01_gt.nii.gz", label_map)
            (place / "Info.cfg").write_text("ED: 1\nES: 9\nGroup: NOR\n")
    result = vismae.convert("acdc", tmp_path / "acdc", out=tmp_path / "task")
    (task,) = result.tasks
    assert (task.images, task.patients) == (7, 7)
    assert task.splits == {"test": 2, "train": 5}
    settings = yaml.safe_load(task.config.read_text())
    assert settings["task"]["classes"] == ["right ventricle", "myocardium", "left ventricle"]
    vismae.finetune(
        "segment",
        config=task.config,
        out=tmp_path / "run",
        model={"size": "nano"},
        trainer={"max_steps": 1},
        **{"data.image_size": 32, "data.batch_size": 2, "data.workers": 0},
    )
    splits = (tmp_path / "run" / "splits.csv").read_text()
    assert splits.count("test") == 2


def test_some_patients_of_a_data_set_keep_the_numbers_of_its_classes(tmp_path: Path) -> None:
    # Of AMOS22 many MR patients have neither bladder nor prostate.
    label_map = np.zeros((16, 16, 2), dtype=np.uint8)
    label_map[:8], label_map[8:12] = 1, 15
    for number in ("0507", "0508"):
        for folder in ("imagesTr", "labelsTr"):
            write_nifti(tmp_path / "amos22" / folder / f"amos_{number}.nii.gz", label_map)
    (task,) = vismae.convert("amos22", tmp_path / "amos22", out=tmp_path / "a task").tasks
    settings = yaml.safe_load(task.config.read_text())
    assert settings["task"]["label_values"] == {value: value for value in range(16)}
    assert len(settings["task"]["classes"]) == 15


def test_the_next_command_can_be_pasted_as_it_is(tmp_path: Path) -> None:
    write_png(tmp_path / "busi" / "benign" / "benign (1).png", np.full((16, 16), 99, np.uint8))
    write_png(tmp_path / "busi" / "benign" / "benign (1)_mask.png", np.zeros((16, 16), np.uint8))
    result = vismae.convert("busi", tmp_path / "busi", out=tmp_path / "my task")
    assert str(tmp_path / "my task" / "segment" / "task.yaml") in shlex.split(result.summary())


def test_converted_images_of_an_array_can_be_ingested(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        arrays[f"{split}_images"] = generator.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    np.savez_compressed(tmp_path / "breastmnist.npz", **arrays)
    (task,) = vismae.convert("medmnist", tmp_path / "breastmnist.npz", out=tmp_path / "task").tasks
    vismae.ingest(task.config.parent / "manifest.csv", store=tmp_path / "store", executor="here")
    store = Store(tmp_path / "store")
    index = store.columns(["label", "split", "group_kind"])
    assert set(index["group_kind"]) == {"group"}
    assert index["label"].size == task.patients == 8
    assert index["label"].value_counts().to_dict() == {"malignant": 4, "normal or benign": 4}
    first = index.index[index["split"] == "test"][0]
    np.testing.assert_array_equal(store.read(int(first)).pixels, arrays["test_images"][0])


def test_two_tasks_of_one_data_set_lie_side_by_side(tmp_path: Path) -> None:
    for name in ("benign", "malignant", "normal"):
        lesion = np.zeros((16, 16), dtype=np.uint8)
        lesion[4:8, 4:8] = 0 if name == "normal" else 255
        write_png(tmp_path / "busi" / name / f"{name} (1).png", np.full((16, 16), 99, np.uint8))
        write_png(tmp_path / "busi" / name / f"{name} (1)_mask.png", lesion)
    result = vismae.convert("busi", tmp_path / "busi", out=tmp_path / "task")
    assert [task.kind for task in result.tasks] == ["segment", "classify"]
    assert "vismae finetune classify" in result.summary()
    manifest = (tmp_path / "task" / "classify" / "manifest.csv").read_text()
    assert "../../busi/benign/benign (1).png" in manifest
    assert len(list((tmp_path / "task" / "segment" / "label_maps").iterdir())) == 3


@pytest.mark.parametrize("layout", ["decathlon", "nnunet"])
def test_one_channel_of_several_is_trained_on_and_predicted(layout: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    flair = {}
    for case in ("case_001", "case_002", "case_003"):
        channels = generator.integers(0, 900, (32, 24, 3, 4)).astype(np.int16)
        flair[case] = channels[..., 1]
        label_map = np.zeros(channels.shape[:3], dtype=np.uint8)
        label_map[8:20, 6:15] = 1
        write_nifti(tmp_path / "in" / "labelsTr" / f"{case}.nii.gz", label_map)
        images = tmp_path / "in" / "imagesTr"
        if layout == "decathlon":
            write_nifti(images / f"{case}.nii.gz", channels)
        else:
            for number in range(4):
                write_nifti(images / f"{case}_{number:04d}.nii.gz", channels[..., number])
    table = {
        "modality": {"0": "T1w", "1": "FLAIR", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "tumour"},
    }
    (tmp_path / "in" / "dataset.json").write_text(json.dumps(table))
    (task,) = vismae.convert(
        "nnunet", tmp_path / "in", out=tmp_path / "task", channel="flair"
    ).tasks
    assert task.images == 3
    run = vismae.finetune(
        "segment",
        config=task.config,
        out=tmp_path / "run",
        model={"size": "nano"},
        trainer={"max_steps": 1},
        **{"data.image_size": 32, "data.batch_size": 2, "data.workers": 0},
    )
    store = Store(next((tmp_path / "run").glob("**/manifest.json")).parent)
    assert len(store) == 9
    kept = {store.read(row).pixels.tobytes() for row in range(len(store))}
    wanted = [volume[:, :, number] for volume in flair.values() for number in range(3)]
    turned = {view.tobytes() for part in wanted for view in (part.T, part.T[::-1, ::-1])}
    turned |= {view.tobytes() for part in wanted for view in (part.T[::-1], part.T[:, ::-1])}
    assert kept <= turned
    manifest = task.config.parent / "manifest.csv"
    result = vismae.predict(model=run.model, inputs=manifest, out=tmp_path / "out", device="cpu")
    assert (result.predicted, result.failures) == (3, ())
    for [path] in result.outputs.values():
        assert nib.Nifti1Image.from_filename(path).shape == (32, 24, 3)


def test_a_link_is_referred_to_by_its_own_name(tmp_path: Path) -> None:
    write_png(tmp_path / "kept" / "4f1c.png", np.full((16, 16), 99, np.uint8))
    write_png(tmp_path / "kept" / "9a2e.png", np.zeros((16, 16), np.uint8))
    (tmp_path / "busi" / "benign").mkdir(parents=True)
    for name, kept in (("benign (1).png", "4f1c.png"), ("benign (1)_mask.png", "9a2e.png")):
        (tmp_path / "busi" / "benign" / name).symlink_to(tmp_path / "kept" / kept)
    vismae.convert("busi", tmp_path / "busi", out=tmp_path / "task")
    manifest = (tmp_path / "task" / "segment" / "manifest.csv").read_text()
    assert "../../busi/benign/benign (1).png" in manifest
    assert "4f1c" not in manifest


def test_settings_of_another_layout_are_refused(tmp_path: Path) -> None:
    (tmp_path / "busi").mkdir()
    with pytest.raises(SettingError, match="belong to the layout nnunet"):
        vismae.convert("busi", tmp_path / "busi", out=tmp_path / "task", fold=1)


@pytest.mark.parametrize("layout", ["decathlon", "nnunet"])
def test_all_channels_become_sequences_that_are_trained_on_and_predicted(
    layout: str, tmp_path: Path
) -> None:
    images, labels = tmp_path / "in" / "imagesTr", tmp_path / "in" / "labelsTr"
    for number in range(4):
        *volumes, label_map = case_volumes(number)
        case = f"case_{number}x"
        write_nifti(labels / f"{case}.nii.gz", label_map, VOXELS)
        if layout == "decathlon":
            write_nifti(images / f"{case}.nii.gz", np.stack(volumes, axis=-1), VOXELS)
            continue
        for place, volume in enumerate(volumes):
            write_nifti(images / f"{case}_{place:04d}.nii.gz", volume, VOXELS)
    table = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "both": 1}}
    (tmp_path / "in" / "dataset.json").write_text(json.dumps(table))
    (task,) = vismae.convert("nnunet", tmp_path / "in", out=tmp_path / "task").tasks
    assert (task.images, task.patients, task.splits) == (4, 4, {"to be decided": 4})
    run = vismae.finetune(
        "segment",
        config=task.config,
        out=tmp_path / "run",
        model={"size": "nano"},
        trainer={"max_steps": 1},
        **{"data.image_size": 32, "data.batch_size": 2, "data.workers": 0},
    )
    contract = load_model(run.model).preprocessing
    assert contract is not None
    assert (contract.sequences, contract.input_channels) == (("T1", "FLAIR"), 2)
    manifest = task.config.parent / "manifest.csv"
    result = vismae.predict(model=run.model, inputs=manifest, out=tmp_path / "out", device="cpu")
    assert (result.predicted, result.failures) == (4, ())
    for number, [path] in enumerate(result.outputs.values()):
        assert path.name == f"case_{number}x.nii.gz"
        written = nib.Nifti1Image.from_filename(path)
        assert written.shape == (32, 28, 3)
        assert np.allclose(written.affine, VOXELS)
