"""Several sequences as channels through every command: learnt, scored and predicted as cases."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from pydicom import dcmread
from pydicom.uid import generate_uid

import vismae
from cases_on_disk import SEQUENCES, VOXELS, case_volumes, write_cases
from factories import write_dicom_series, write_nifti
from models_on_disk import SMALL_CONTRACT, write_segmenter
from vismae.core.config import EvaluateConfig, FinetuneConfig
from vismae.core.errors import DataError, SettingError
from vismae.core.types import Modality, PixelUnit
from vismae.data.loaders import SliceReader
from vismae.data.store import Store
from vismae.inference.predictor import Predictor
from vismae.models import HybridUNet
from vismae.models.weights import load_model
from vismae.workflows.evaluate import EvaluateResult, evaluate
from vismae.workflows.finetune import FinetuneResult, finetune

MakeConfig = Callable[..., FinetuneConfig]

TOGETHER = {"model.sequences": SEQUENCES, "model.network": "hybrid"}
BRIEF = {**TOGETHER, "trainer.max_steps": 1}
STILL = {**BRIEF, "optimizer.lr": 1e-12}
SPLITS = (*["train"] * 8, *["val"] * 2, *["test"] * 2)
LONG = {"trainer.max_steps": 24, "data.batch_size": 8, "optimizer.lr": 8e-3}
CONTRACT = SMALL_CONTRACT.model_copy(
    update={"sequences": SEQUENCES, "pixel_units": {Modality.MR: (PixelUnit.ARBITRARY,)}}
)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of twelve cases."""
    return write_cases(tmp_path_factory.mktemp("cases"), SPLITS)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two sequences that knows MR images."""
    folder = tmp_path_factory.mktemp("sequences") / "model"
    return write_segmenter(folder, preprocessing=CONTRACT, modalities=(Modality.MR,))


def scores_of(model: Path, data: Path, out: Path, **settings: Any) -> EvaluateResult:
    return evaluate(
        EvaluateConfig.model_validate(
            {
                "model": model,
                "out": out,
                "data": {"sources": [data]},
                "bootstrap": 100,
                "device": "cpu",
                **settings,
            }
        )
    )


def test_two_sequences_show_what_one_cannot(
    cases: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    def run(name: str, sequences: tuple[str, ...]) -> FinetuneResult:
        settings = {**TOGETHER, **LONG, "model.sequences": sequences}
        return finetune(finetune_config("segment", tmp_path / name, cases, **settings))

    both, one = run("both", SEQUENCES), run("one", SEQUENCES[:1])
    # What T1 shows is right in one half of its squares.
    assert one.validation < 0.75
    assert both.validation > one.validation + 0.15
    scored = scores_of(both.model, cases, tmp_path / "scores")
    assert scored.primary.n == 2
    assert scored.primary.estimate > 0.75
    table = pd.read_csv(scored.folder / "cases_left_out.csv")
    assert list(table.columns) == ["patient_id", "case_id", "reason"]
    assert table.empty


def test_each_channel_is_scaled_as_an_image_of_its_own_and_comes_in_the_order_asked_for(
    cases: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {**BRIEF, "model.sequences": ["flair", "t1"]}
    run = finetune(finetune_config("segment", tmp_path / "run", cases, **settings))
    contract = load_model(run.model).preprocessing
    assert contract is not None
    assert (contract.sequences, contract.in_channels) == (("flair", "t1"), 1)
    store = Store(tmp_path / "run" / "store")
    pairs, alone = SliceReader(store, contract), SliceReader(store, SMALL_CONTRACT)
    facts = store.columns(["extra_sequence", "patient_id", "slice_index"])
    row = int(facts.index[facts["extra_sequence"] == "T1"][4])
    same = facts[["patient_id", "slice_index"]] == facts.loc[row, ["patient_id", "slice_index"]]
    other = int(facts.index[same.all(axis=1) & (facts["extra_sequence"] == "FLAIR")][0])
    seen = pairs.read_input(row)[0]
    assert torch.equal(seen, torch.cat([alone.read(other)[0], alone.read(row)[0]]))
    assert torch.equal(seen, pairs.read_input(other)[0])
    assert not torch.allclose(seen[0], seen[1], atol=0.2)


def test_a_start_of_one_channel_is_spread_over_the_sequences(
    pretrained: Path, cases: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    run = finetune(finetune_config("segment", tmp_path / "a", cases, **STILL, init=pretrained))
    model = load_model(run.model)
    assert isinstance(model, HybridUNet)
    stem = model.encoder.patch_embed.proj.weight
    source = load_model(pretrained).state_dict()["encoder.patch_embed.proj.weight"]
    assert torch.allclose(stem, source.expand_as(stem) / 2, atol=1e-6)
    again = {**STILL, "init": run.model, "model.sequences": SEQUENCES[::-1]}
    turned = load_model(finetune(finetune_config("segment", tmp_path / "b", cases, **again)).model)
    assert turned.preprocessing is not None
    assert turned.preprocessing.sequences == SEQUENCES[::-1]
    # Masked pre-training sees single images; what follows sees the sequences again.
    first = {**STILL, "init": run.model, "task_pretrain_steps": 1}
    trained = load_model(finetune(finetune_config("segment", tmp_path / "d", cases, **first)).model)
    assert trained.preprocessing is not None
    assert trained.preprocessing.sequences == SEQUENCES
    single = {**STILL, "init": run.model, "model.sequences": ()}
    with pytest.raises(SettingError, match=r"sees the sequences T1, FLAIR together, but"):
        finetune(finetune_config("segment", tmp_path / "c", cases, **single))


def test_neighbouring_slices_come_with_all_their_sequences(
    pretrained: Path, cases: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {**STILL, "model.neighbours": 1, "init": pretrained}
    model = load_model(
        finetune(finetune_config("segment", tmp_path / "a", cases, **settings)).model
    )
    assert isinstance(model, HybridUNet)
    stem = model.encoder.patch_embed.proj.weight
    assert stem.shape[1] == 6
    assert torch.allclose(stem[:, 2], stem[:, 3])
    assert stem[:, 2].abs().max() > 1e-3
    assert not stem[:, [0, 1, 4, 5]].abs().max() > 1e-6
    more = {**STILL, "init": tmp_path / "a" / "model", "model.neighbours": 2}
    with pytest.raises(SettingError, match=r"With model.sequences leave it out"):
        finetune(finetune_config("segment", tmp_path / "b", cases, **more))


@pytest.mark.parametrize("label_on", [(0,), (1,)])
def test_the_label_of_a_case_may_stand_on_one_of_its_rows(
    label_on: tuple[int, ...], finetune_config: MakeConfig, tmp_path: Path
) -> None:
    table = write_cases(tmp_path / "cases", ("train", "train", "val", "test"), label_on)
    for kind, network in (("segment", "hybrid"), ("classify", "swin")):
        settings = {**BRIEF, "model.network": network}
        run = finetune(finetune_config(kind, tmp_path / kind, table, **settings))
        log = (tmp_path / kind / "log.txt").read_text()
        assert "6 training images of 2 patients or groups" in log
        assert "without a label" not in log
        card = load_model(run.model).card
        assert card is not None
        # Evaluation must know the pixels of every sequence that was learnt from.
        assert card.training["finetune"].images == 3 * 2 * 3
    scored = scores_of(tmp_path / "segment" / "model", table, tmp_path / "scores")
    assert scored.primary.n == 1


def test_cases_that_do_not_fit_are_left_out_by_name_and_number(
    finetune_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = write_cases(tmp_path, (*["train"] * 6, "val", "test"))
    lines = table.read_text().splitlines()
    wrong = {
        "P0": "lacks FLAIR",
        "P1": "has of FLAIR, beside T1, another place",
        "P2": "has of FLAIR, beside T1, 28×32 pixels on 2 slices, not 28×32 pixels on 3",
        "P3": "has 2 images of T1; tell cases",
    }
    lines.remove(next(line for line in lines if line.startswith("P0_0001")))
    volume = case_volumes(1)[1]
    write_nifti(tmp_path / "P1_0001.nii.gz", volume, VOXELS + 2.0 * np.eye(4, k=3))
    write_nifti(tmp_path / "P2_0001.nii.gz", volume[..., :2], VOXELS)
    write_nifti(tmp_path / "L2.nii.gz", (volume[..., :2] > 700).astype(np.uint8), VOXELS)
    # A label map that does not lie on its image is a matter of ingest.
    for name, label_map in (("P1_0001", "L1.nii.gz"), ("P2_0000", "L2.nii.gz")):
        lines = [line.replace(label_map, "") if name in line else line for line in lines]
    lines.append(next(line for line in lines if line.startswith("P3_0000")))
    table.write_text("\n".join(lines) + "\n")
    run = finetune(finetune_config("segment", tmp_path / "run", table, **BRIEF))
    found = pd.read_csv(tmp_path / "run" / "cases_left_out.csv").set_index("patient_id")["reason"]
    assert {name: text[: len(wrong[name])] for name, text in found.items()} == wrong
    assert "4 cases without all of T1, FLAIR" in caplog.text
    assert "P0 lacks FLAIR" in caplog.text
    assert set(pd.read_csv(tmp_path / "run" / "splits.csv")["patient_id"]) == {
        "P4",
        "P5",
        "P6",
        "P7",
    }
    with caplog.at_level("INFO"):
        scores_of(run.model, table, tmp_path / "scores", split="train", allow_training_rows=True)
    assert "Scored are 6 images of 2 image groups" in caplog.text
    few = tmp_path / "few.csv"
    few.write_text("\n".join(line for line in lines if "FLAIR" not in line or "P0" in line))
    with pytest.raises(
        DataError, match="no image is of the sequence FLAIR; column sequence has T1"
    ):
        finetune(finetune_config("segment", tmp_path / "none", few, **BRIEF))
    few.write_text("\n".join(line for line in lines if line[:2] in ("pa", "P0", "P1")))
    with pytest.raises(
        DataError, match=r"no case has the sequences T1, FLAIR .*P0 lacks FLAIR; P1"
    ):
        finetune(finetune_config("segment", tmp_path / "none", few, **BRIEF, overwrite=True))


def test_a_case_is_told_by_its_id_and_one_patient_is_never_divided(
    finetune_config: MakeConfig, tmp_path: Path
) -> None:
    table = write_cases(tmp_path, ("",) * 8)
    lines = [
        f"{line},{line[:2] if line[0] == 'P' else 'case_id'}" for line in table.read_text().split()
    ]
    ids = {f",P{number},": f",patient{number // 2}," for number in range(8)}
    for case, patient in ids.items():
        lines = [line.replace(case, patient) for line in lines]
    table.write_text("\n".join(lines))
    finetune(finetune_config("segment", tmp_path / "run", table, **BRIEF))
    splits = pd.read_csv(tmp_path / "run" / "splits.csv")
    assert sorted(splits["patient_id"]) == [f"patient{number}" for number in range(4)]
    assert pd.read_csv(tmp_path / "run" / "cases_left_out.csv").empty
    store = Store(tmp_path / "run" / "store")
    assert store.columns(["extra_case_id"])["extra_case_id"].nunique() == 8


def test_a_store_says_which_sequence_an_image_is_only_where_asked(
    cases: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    plain = vismae.ingest(cases, store=tmp_path / "plain", executor="here")
    assert not any(name.startswith("extra") for name in plain.store.column_names)
    with pytest.raises(DataError, match=r"ingest it with --keep-column sequence"):
        finetune(finetune_config("segment", tmp_path / "run", tmp_path / "plain", **BRIEF))
    kept = vismae.ingest(cases, store=tmp_path / "kept", executor="here", keep_column=["sequence"])
    ids = kept.store.columns(["extra_sequence", "patient_id"])
    assert set(ids["extra_sequence"]) == set(SEQUENCES)
    assert not set(ids["patient_id"]) & {f"P{number}" for number in range(12)}
    finetune(finetune_config("segment", tmp_path / "run2", tmp_path / "kept", **BRIEF))
    without = tmp_path / "without.csv"
    without.write_text("path,label_map\na.nii.gz,b.nii.gz\n")
    with pytest.raises(DataError, match="no column sequence says which sequence"):
        finetune(finetune_config("segment", tmp_path / "run3", without, **BRIEF))


def test_a_folder_and_a_manifest_are_predicted_alike_and_as_the_rows_of_a_store(
    segmenter: Path, cases: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for place in sorted(cases.parent.glob("P*.nii.gz")):
        (folder / place.name).write_bytes(place.read_bytes())
    results = [
        vismae.predict(model=segmenter, inputs=source, out=out, device="cpu", modality="mr")
        for source, out in ((folder, tmp_path / "a"), (cases, tmp_path / "b"))
    ]
    maps = {}
    for result in results:
        assert (result.predicted, result.failures) == (12, ())
        names = sorted(path.name for [path] in result.outputs.values())
        assert names == sorted(f"P{number}.nii.gz" for number in range(12))
        for name in names:
            found = nib.Nifti1Image.from_filename(result.folder / name)
            assert np.allclose(found.affine, VOXELS)
            values = np.asarray(found.dataobj)
            assert len(np.unique(values)) == 3
            assert np.array_equal(maps.setdefault(name, values), values)
    store = vismae.ingest(
        cases, store=tmp_path / "store", executor="here", keep_column=["sequence"]
    ).store
    facts = store.columns(["extra_sequence", "patient_id", "slice_index"])
    first = facts[facts["extra_sequence"] == "T1"]
    counts = {
        patient: sum(
            (labels == 1).sum()
            for _, labels in Predictor(load_model(segmenter), CONTRACT).label_maps(
                store, rows.index.to_numpy()
            )
        )
        for patient, rows in first.groupby("patient_id", observed=True)
    }
    assert sorted(counts.values()) == sorted((values == 1).sum() for values in maps.values())
    (cases.parent / "note.txt").write_text("no image")
    both = [path for path in cases.parent.iterdir() if path.name[0] != "L"]
    together = vismae.predict(
        model=segmenter, inputs=both, out=tmp_path / "c", device="cpu", modality="mr"
    )
    assert (together.predicted, [Path(item.source).name for item in together.failures]) == (
        12,
        ["note.txt"],
    )
    again = vismae.predict(
        model=segmenter, inputs=folder, out=tmp_path / "a", device="cpu", modality="mr", resume=True
    )
    assert (again.predicted, again.skipped) == (0, 12)
    write_nifti(folder / "P3_0001.nii.gz", case_volumes(40)[1], VOXELS)
    changed = vismae.predict(
        model=segmenter, inputs=folder, out=tmp_path / "a", device="cpu", modality="mr", resume=True
    )
    assert (changed.predicted, changed.skipped) == (1, 11)


def test_a_bad_case_is_told_and_the_others_are_predicted(segmenter: Path, tmp_path: Path) -> None:
    table = write_cases(tmp_path / "in", ("",) * 4)
    folder = table.parent
    (folder / "P0_0001.nii.gz").unlink()
    write_nifti(folder / "P1_0001.nii.gz", case_volumes(1)[1], VOXELS @ np.diag([2, 1, 1, 1.0]))
    write_nifti(folder / "P2_0002.nii.gz", case_volumes(1)[1], VOXELS)
    settings = {"model": segmenter, "device": "cpu", "modality": "mr"}
    listed = vismae.predict(inputs=table, out=tmp_path / "listed", **settings)
    assert listed.predicted == 2  # of P2 the table names no third sequence
    reasons = {Path(item.source).name: item.message for item in listed.failed}
    assert "no such file" in reasons["P0_0001.nii.gz"]
    assert "another place: its corners lie up to" in reasons["P1_0000.nii.gz"]
    table.unlink()
    for place in folder.glob("L*"):
        place.unlink()
    write_nifti(folder / "alone.nii.gz", case_volumes(1)[1], VOXELS)
    found = vismae.predict(inputs=folder, out=tmp_path / "found", **settings)
    assert [path.name for [path] in found.outputs.values()] == ["P3.nii.gz"]
    reasons = {Path(item.source).name: item.message for item in found.failed}
    assert "case P0 lacks FLAIR" in reasons["P0_0000.nii.gz"]
    assert "resample them to those of the first" in reasons["P1_0000.nii.gz"]
    assert "case P2 also has number 0002" in reasons["P2_0000.nii.gz"]
    assert "case_0000.nii.gz is T1, case_0001.nii.gz is FLAIR" in reasons["alone.nii.gz"]
    assert len(reasons) == 4


def test_a_classifier_of_cases_is_scored_and_gives_one_answer_a_case(
    cases: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {**BRIEF, "model.network": "swin"}
    run = finetune(finetune_config("classify", tmp_path / "run", cases, **settings))
    scored = scores_of(run.model, cases, tmp_path / "scores")
    assert (scored.unit, scored.primary.n) == ("image group", 2)
    asked: dict[str, Any] = {"model": run.model, "inputs": cases, "device": "cpu"}
    result = vismae.predict(out=tmp_path / "out", **asked)
    assert (result.predicted, result.failures) == (12, ())
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert (table["level"] == "volume").sum() == 12


def test_series_of_dicom_are_a_case_where_a_manifest_says_so(
    segmenter: Path, tmp_path: Path
) -> None:
    study, place = generate_uid(), generate_uid()
    lines = ["path,patient_id,case_id,sequence"]
    for sequence, volume in zip(SEQUENCES, case_volumes(0), strict=False):
        write_dicom_series(
            tmp_path / sequence,
            volume.transpose(2, 1, 0).astype(np.uint16),
            Modality="MR",
            StudyInstanceUID=study,
            FrameOfReferenceUID=place,
            SliceThickness=5.0,
        )
        lines.append(f"{sequence},P1,first,{sequence}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    asked: dict[str, Any] = {"model": segmenter, "inputs": tmp_path / "manifest.csv"}
    result = vismae.predict(out=tmp_path / "out", device="cpu", **asked)
    assert (result.predicted, result.failures) == (1, ())
    [(path,)] = result.outputs.values()
    assert path == tmp_path / "out" / "P1" / "first.dcm"
    first = {dcmread(file).SOPInstanceUID for file in (tmp_path / "T1").iterdir()}
    [series] = dcmread(path).ReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == first
    # The folder alone does not say which series is which.
    alone = vismae.predict(
        model=segmenter, inputs=tmp_path / "T1", out=tmp_path / "b", device="cpu"
    )
    assert "which sequence it is its name does not say" in alone.failed[0].message


def test_what_gives_one_image_at_a_time_refuses_such_a_model_at_once(
    segmenter: Path, cases: Path, tmp_path: Path
) -> None:
    sees = r"model sees the sequences T1, FLAIR of a case together, as channels\. "
    asked: dict[str, Any] = {"model": segmenter, "device": "cpu", "out": tmp_path / "out"}
    server = "dicomweb+http://127.0.0.1:9/dicom"
    with pytest.raises(SettingError, match=sees + "Which series of a server"):
        vismae.predict(inputs=server, query={"PatientID": "1"}, **asked)
    with pytest.raises(SettingError, match=sees + "Use the model it was started from"):
        vismae.embed(inputs=cases, **asked)
    with pytest.raises(SettingError, match=sees + "The page and the server take one image"):
        vismae.serve(model=segmenter, port=0, device="cpu", stop_after=1.0)
