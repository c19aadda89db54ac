"""Several sequences of a case in a study and in ``vismae select``: a case counts once, whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import vismae
from cases_on_disk import SEQUENCES, VOXELS, case_volumes, write_cases
from factories import write_nifti
from models_on_disk import SMALL_CONTRACT, write_mae, write_segmenter
from stores import SMALL_RUN
from vismae.core.config import EvaluateConfig, FinetuneConfig
from vismae.core.errors import DataError, SettingError
from vismae.core.settings import build_config
from vismae.core.study_config import StudyConfig
from vismae.core.types import Modality, PixelUnit
from vismae.data.fingerprint import FINGERPRINT_COLUMNS, fingerprint
from vismae.data.store import Store
from vismae.inference.embedder import stored_slices
from vismae.inference.ensemble import load_ensemble
from vismae.inference.slices import canvas_batches
from vismae.inference.uncertainty import image_uncertainty
from vismae.models.weights import load_model
from vismae.workflows.evaluate import evaluate
from vismae.workflows.label_study.tasks import prepare_task
from vismae.workflows.study import StudyResult, study

SPLITS = (*["train"] * 7, *["val"] * 2, *["test"] * 4)
TOGETHER = {**SMALL_RUN, "model.sequences": SEQUENCES, "trainer.max_steps": 1}
CONTRACT = SMALL_CONTRACT.model_copy(
    update={"sequences": SEQUENCES, "pixel_units": {Modality.MR: (PixelUnit.ARBITRARY,)}}
)


def config(out: Path, table: Path, kind: str = "segment", **more: Any) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "out": out,
            "tasks": {"squares": {"kind": kind, "sources": [table]}},
            "starts": {"scratch": {}},
            "baseline": "scratch",
            "label_fractions": [0.5, 1.0],
            "seeds": [0],
            "settings": TOGETHER,
            "bootstrap": 100,
            "executor": "here",
            **more,
        }
    )


def with_sites(table: Path) -> Path:
    """The manifest with a column site, filled where FLAIR is alone."""
    first, *lines = table.read_text().split()
    sites = ["xy"[number // 2 % 2] if "FLAIR" in line else "" for number, line in enumerate(lines)]
    rows = [f"{line},{site}" for line, site in zip(lines, sites, strict=True)]
    table.write_text("\n".join([f"{first},site", *rows]) + "\n")
    return table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases whose label stands on FLAIR; P0 lacks T1, P12 repeats the FLAIR of P1 in training."""
    manifest = write_cases(tmp_path_factory.mktemp("cases"), SPLITS, label_on=(1,))
    (manifest.parent / "P0_0000.nii.gz").unlink()
    write_nifti(manifest.parent / "P12_0001.nii.gz", case_volumes(1)[1], VOXELS)
    return with_sites(manifest)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Store:
    """The cases of ``table`` as a store that says which sequence an image is."""
    folder = tmp_path_factory.mktemp("sequences") / "store"
    return vismae.ingest(table, store=folder, executor="here", keep_column=["sequence"]).store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, table: Path, pretrained: Path) -> StudyResult:
    settings = config(
        tmp_path_factory.mktemp("study") / "out",
        table,
        starts={"scratch": {"trivial": True}, "ours": {"init": pretrained}},
        keep_models=True,
    )
    return study(settings)


def test_a_case_counts_once_and_a_run_sees_all_of_it(made: StudyResult) -> None:
    assert (made.runs, made.to_do) == (4, 0)
    # Six whole training cases; three of the four test cases, one of which is a twin.
    assert sorted(set(made.comparison["labelled_patients"])) == [3, 6]
    assert set(made.comparison["cases"]) == {3}
    scores = pd.read_parquet(made.folder / "scores.parquet")
    assert set(scores["patient_id"]) == {"P9", "P10", "P11"}
    assert set(scores["unit_of_cases"]) == {"image group"}
    dice = scores[(scores["metric"] == "dice") & (scores["class_name"] == "mean")]
    assert dice.groupby(["start", "budget"])["patient_id"].nunique().eq(3).all()
    [path, *_] = (made.folder / "runs").rglob("ours/1/0/model")
    contract = load_model(path).preprocessing
    assert contract is not None
    assert contract.sequences == SEQUENCES


def test_what_is_left_out_is_told(made: StudyResult) -> None:
    folder = made.folder / "tasks" / "squares"
    left_out = pd.read_csv(folder / "cases_left_out.csv")
    assert left_out[["patient_id", "reason"]].to_numpy().tolist() == [["P0", "lacks T1"]]
    assert pd.read_csv(folder / "twins.csv")["patient_id"].tolist() == ["P12"]
    # The site is told by the sequence without a picture of its own.
    patients = pd.read_parquet(folder / "patients.parquet").set_index("patient_id")
    assert patients["site"].to_dict() == {"P9": "y", "P10": "x", "P11": "y"}
    page = (made.folder / "report" / "index.html").read_text()
    assert "3 images of other sequences or of cases without all of T1, FLAIR on the same" in page
    assert "without a label map" not in page
    assert "1 test patients or groups, of whom an image is also one of" in page


def test_classes_of_cases_are_compared_and_guessed_from_both_sequences(
    table: Path, tmp_path: Path
) -> None:
    starts = {"scratch": {}, "forest": {"trivial": True}}
    asked = {"starts": starts, "label_fractions": [1.0], "worst_cases": 2}
    result = study(config(tmp_path / "out", table, "classify", **asked))
    scores = pd.read_parquet(result.folder / "scores.parquet")
    assert len(scores) == 3 * 2 * 2  # three cases, two classes, two starts
    assert (
        "lowest probability of their class" in (result.folder / "report" / "index.html").read_text()
    )


def test_a_start_that_chooses_its_cases_looks_at_both_sequences(
    table: Path, tmp_path: Path
) -> None:
    starts = {"chosen": {"select": "hybrid"}}
    result = study(config(tmp_path / "out", table, starts=starts, baseline="chosen"))
    assert (result.runs, result.to_do) == (2, 0)
    at = result.folder / "runs" / "squares" / "chosen" / "1"
    chosen = pd.read_csv(at / "0_selection" / "selection.csv")
    assert len(chosen) == 3
    assert (chosen["images"] == 3).all()
    assert np.isfinite(chosen["uncertainty"]).all()
    first = pd.read_csv(at.with_name("0.5") / "0" / "training_patients.csv")["patient_id"]
    assert not set(chosen["patient_id"]) & set(first)


def test_starts_and_weights_that_want_other_sequences_are_refused_at_once(
    table: Path, tmp_path: Path
) -> None:
    starts = {"scratch": {}, "one": {"settings": {"model.sequences": ["T1"]}}}
    with pytest.raises(SettingError, match=r"differ in model\.sequences \('scratch': T1, FLAIR; "):
        study(config(tmp_path / "a", table, starts=starts))
    weights = write_segmenter(tmp_path / "model", preprocessing=CONTRACT)
    starts = {"scratch": {}, "knows": {"init": weights}}
    single = {**SMALL_RUN, "trainer.max_steps": 1}
    with pytest.raises(SettingError, match=r"^Start 'knows', task 'squares': .*sees the sequences"):
        study(config(tmp_path / "b", table, starts=starts, settings=single))
    assert not (tmp_path / "b" / "stores").exists()


def test_sequences_that_were_exchanged_are_a_change_of_the_data(tmp_path: Path) -> None:
    table = write_cases(tmp_path / "cases", ("train", "train", "val", "test"))
    settings, out = config(tmp_path / "out", table, label_fractions=[1.0]), tmp_path / "out"
    options = {**TOGETHER, "task.kind": "segment", "data.sources": [table], "out": out}
    run = build_config(FinetuneConfig, "finetune", options=options)
    prepare_task(settings, "squares", out, {None: run})
    finished = out / "runs" / "squares" / "scratch" / "1" / "0" / "scores.parquet"
    finished.parent.mkdir(parents=True)
    finished.touch()
    assert len(prepare_task(settings, "squares", out, {None: run}).budgets) == 1
    text = table.read_text()
    for line in [line for line in text.split() if line.startswith("P1_")]:
        other = line.replace("T1", "?").replace("FLAIR", "T1").replace("?", "FLAIR")
        text = text.replace(line, other)
    table.write_text(text)
    with pytest.raises(
        DataError, match=r"sequence of 6 images \(patient or group P1, such as '(T1|FLAIR)'"
    ):
        prepare_task(settings, "squares", out, {None: run})


def test_weights_that_know_one_sequence_of_a_test_case_are_refused(
    store: Store, tmp_path: Path
) -> None:
    facts = store.columns([*FINGERPRINT_COLUMNS, "extra_sequence"])
    # The last case with all sequences but one; the last is a twin, whom no run is scored on.
    of_case = facts[facts["patient_id"] == facts["patient_id"].iloc[-7]]
    learnt = {"pretrain": fingerprint(of_case[of_case["extra_sequence"] == "FLAIR"])}
    weights = write_mae(tmp_path / "model", training=learnt)
    starts = {"scratch": {}, "knows": {"init": weights}}
    with pytest.raises(DataError, match=r"images of 1 of the 3 test patients or groups"):
        study(config(tmp_path / "out", store.folder, starts=starts))
    # A score of what was fine-tuned from them is refused likewise.
    tuned = write_segmenter(
        tmp_path / "tuned", preprocessing=CONTRACT, training=learnt, modalities=(Modality.MR,)
    )
    asked = {"model": tuned, "out": tmp_path / "s", "data": {"sources": [store.folder]}}
    with pytest.raises(DataError, match=r"1 of 4 patients .* were in the pre-training data"):
        evaluate(EvaluateConfig.model_validate(asked))


def test_cases_are_ranked_by_all_their_sequences_and_shown_by_the_first(
    store: Store, tmp_path: Path
) -> None:
    model = write_segmenter(tmp_path / "model", preprocessing=CONTRACT, modalities=(Modality.MR,))
    asked: dict[str, Any] = {"model": model, "store": store.folder, "device": "cpu"}
    result = vismae.select(out=tmp_path / "out", n=99, ignore_labels=True, **asked)
    found = pd.read_csv(tmp_path / "out" / "selection.csv")
    # Six whole training cases.
    assert (result.strategy, result.candidates, len(found)) == ("hybrid", 6, 6)
    assert set(found["images"]) == {3}
    shown = store.columns(["extra_sequence"], found["shown_row"].to_numpy())
    assert set(shown["extra_sequence"].astype(str)) == {"T1"}
    assert np.isfinite(found["uncertainty"]).all()
    # The mean over all slices of the entropy that the network has of both sequences.
    ensemble = load_ensemble([model], torch.device("cpu"))
    facts = store.columns(["patient_id", "extra_sequence"])
    best = facts[facts["patient_id"] == found["patient_id"][0]]
    rows = best.index[best["extra_sequence"] == "T1"].to_numpy()
    slices = list(stored_slices(store, rows, CONTRACT))
    assert slices[0].image.shape[0] == 2
    [(_, images)] = canvas_batches(iter(slices), CONTRACT, 16)
    unsure = image_uncertainty(ensemble.scores(images), multi_label=False)
    assert float(unsure.mean()) == pytest.approx(found["uncertainty"][0], abs=1e-5)
    assert pd.read_csv(tmp_path / "out" / "cases_left_out.csv")["reason"].tolist() == ["lacks T1"]
    assert Image.open(tmp_path / "out" / "contact_sheet.png").size[0] > 100
    with pytest.raises(DataError, match="nobody is left"):
        vismae.select(out=tmp_path / "none", **asked)


def test_a_store_that_does_not_say_which_sequence_an_image_is_cannot_be_ranked(
    discs: Path, tmp_path: Path
) -> None:
    model = write_segmenter(tmp_path / "model", preprocessing=CONTRACT, modalities=(Modality.MR,))
    with pytest.raises(DataError, match="ingest it with --keep-column sequence"):
        vismae.select(model=model, store=discs, out=tmp_path / "none", device="cpu")
