"""A small study end to end, and its comparison against a hand computation."""

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from factories import SMALL_ARCHIVE
from stores import SMALL_RUN, classification_store, disc, record
from troublesome_tasks import wait_until
from vismae.core.errors import RunFolderError, SettingError, TrainingError
from vismae.core.settings import build_config, to_yaml
from vismae.core.study_config import StudyConfig, StudyPrimary
from vismae.core.types import Modality
from vismae.data.store import StoreWriter
from vismae.files.phantom_archive import write_phantom_archive
from vismae.workflows.label_study import starts
from vismae.workflows.label_study.analysis import compare_starts
from vismae.workflows.study import StudyResult, study


def config(out: Path, tasks: dict[str, Any], init: Path, **more: Any) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "out": out,
            "tasks": tasks,
            "starts": {"scratch": {"init": "none"}, "pretrained": {"init": init}},
            "baseline": "scratch",
            "label_fractions": [0.3, 1.0],
            "seeds": [0, 1],
            "settings": {**SMALL_RUN, "trainer.max_steps": 2, "optimizer.lr": 3e-3},
            "bootstrap": 100,
            "executor": "here",
            **more,
        }
    )


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, discs: Path, shades: Path, pretrained: Path
) -> tuple[StudyConfig, StudyResult]:
    tasks = {
        "discs": {"kind": "segment", "sources": [discs]},
        "shades": {"kind": "classify", "sources": [shades]},
    }
    settings = config(tmp_path_factory.mktemp("study") / "out", tasks, pretrained)
    return settings, study(settings)


def scores_of(result: StudyResult) -> pd.DataFrame:
    return pd.read_parquet(result.folder / "scores.parquet")


def test_every_cell_is_run_and_compared(made: tuple[StudyConfig, StudyResult]) -> None:
    _, result = made
    assert result.runs == 16
    assert len(list((result.folder / "runs").rglob("scores.parquet"))) == 16
    table = result.comparison
    assert len(table) == 8
    assert (table["runs"] == 2).all()
    assert set(table["metric"]) == {"Dice", "balanced accuracy"}
    small = table[table["fraction"] == 0.3].set_index(["task", "start"])["labelled_patients"]
    assert small["discs", "scratch"] == small["discs", "pretrained"] == 2
    assert pd.read_csv(result.folder / "comparison.csv").shape[0] == 8
    # A study has many runs; their models go when they are scored.
    assert not list(result.folder.rglob("model.safetensors"))
    assert not list(result.folder.rglob("*.ckpt"))


def test_the_report_says_who_was_compared_and_shows_the_worst(
    made: tuple[StudyConfig, StudyResult],
) -> None:
    folder = made[1].folder / "report"
    page = (folder / "index.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "No primary comparison was named" in page
    assert "discs: 2 patients, Dice; shades: 3 patients, balanced accuracy" in page
    assert "with seeds 0, 1" in page
    assert (
        "&#39;pretrained&#39; reaches the result of" in page or "does not reach the result" in page
    )
    assert "Every setting of a run: discs, scratch" in page
    # One row for each of the two test patients, one column for the annotation and each start.
    assert "the test patients with the lowest Dice" in page
    for stem in ("01_discs_comparison", "02_discs_labels"):
        assert (folder / "tables" / f"{stem}.csv").is_file()
        assert r"\toprule" in (folder / "tables" / f"{stem}.tex").read_text()
    comparison = pd.read_csv(folder / "tables" / "01_discs_comparison.csv")
    assert {"score", "score_low", "score_high", "p (Holm)"} <= set(comparison.columns)


def test_all_runs_of_a_task_share_their_test_patients(
    made: tuple[StudyConfig, StudyResult],
) -> None:
    scores = scores_of(made[1])
    for task, count in (("discs", 2), ("shades", 3)):
        runs = scores[scores["task"] == task].groupby(["start", "fraction", "seed"])
        tested = {frozenset(run["patient_id"]) for _, run in runs}
        assert len(tested) == 1
        assert len(next(iter(tested))) == count


def test_the_comparison_is_the_mean_over_patients_and_runs(
    made: tuple[StudyConfig, StudyResult],
) -> None:
    _, result = made
    scores = scores_of(result)
    dice = scores[(scores["metric"] == "dice") & (scores["class_name"] == "mean")]
    expected = dice.groupby(["fraction", "start"])["value"].mean()
    table = result.comparison[result.comparison["task"] == "discs"]
    for row in table.to_dict("records"):
        own = expected[row["fraction"], row["start"]]
        base = expected[row["fraction"], "scratch"]
        assert row["score"].estimate == pytest.approx(own)
        if row["start"] == "pretrained":
            assert row["difference"].estimate == pytest.approx(own - base)
        else:
            assert np.isnan(row["difference"].estimate)


def test_a_resumed_study_runs_only_what_is_missing_and_finds_the_same(
    made: tuple[StudyConfig, StudyResult],
) -> None:
    settings, result = made
    files = sorted((result.folder / "runs").rglob("scores.parquet"))
    before = {path: path.stat().st_mtime_ns for path in files[1:]}
    missing = pd.read_parquet(files[0])
    files[0].unlink()
    again = study(settings.model_copy(update={"resume": True}))
    assert {path: path.stat().st_mtime_ns for path in files[1:]} == before
    # The same cell gives the very same scores.
    pd.testing.assert_frame_equal(
        pd.read_parquet(files[0]).drop(columns="seconds"), missing.drop(columns="seconds")
    )
    assert again.comparison.to_string() == result.comparison.to_string()


def test_a_study_is_not_resumed_with_other_settings(
    made: tuple[StudyConfig, StudyResult],
) -> None:
    settings, _ = made
    changed = {**settings.settings, "optimizer.lr": 1.0}
    with pytest.raises(RunFolderError, match=r"settings\.optimizer\.lr was 0\.003, now 1\.0"):
        study(settings.model_copy(update={"resume": True, "settings": changed}))


def test_settings_are_checked_before_the_first_run(
    shades: Path, pretrained: Path, tmp_path: Path
) -> None:
    tasks = {"shades": {"kind": "classify", "sources": [shades]}}
    wrong = config(tmp_path / "a", tasks, pretrained, settings={"optimizer.lr_rate": 1})
    with pytest.raises(SettingError, match=r"optimizer\.lr_rate.*Did you mean optimizer\.lr"):
        study(wrong)
    starts = {"scratch": {}, "other": {"classify": {"trainer.ema": 0.9}}}
    wrong = config(tmp_path / "a", tasks, pretrained, starts=starts)
    said = r"^Start 'other', task 'shades': trainer\.ema is not a .*\(in starts\.other\.classify\)$"
    with pytest.raises(SettingError, match=said):
        study(wrong)
    starts = {"scratch": {}, "other": {"pretrain": {"data.source": "x"}}}
    wrong = config(tmp_path / "a", tasks, pretrained, starts=starts)
    with pytest.raises(SettingError, match=r"^starts\.other\.pretrain: data\.source is not a"):
        study(wrong)
    several = config(tmp_path / "b", tasks, pretrained, settings={"task.multi_label": True})
    with pytest.raises(SettingError, match="several classes per image"):
        study(several)
    starts = {"scratch": {}, "CT": {"settings": {"data.modality": ["CT"]}}}
    unlike = config(tmp_path / "c", tasks, pretrained, starts=starts)
    with pytest.raises(
        SettingError, match=r"data\.modality \('scratch': not set; 'CT': ct\)\. Set"
    ):
        study(unlike)
    assert not list(tmp_path.rglob("checkpoints"))


@pytest.mark.slow
def test_runs_side_by_side_find_what_runs_one_by_one_find(pretrained: Path, tmp_path: Path) -> None:
    store = classification_store(tmp_path / "store", patients=12, seed=3).folder
    tasks = {"shades": {"kind": "classify", "sources": [store]}}
    less = {"label_fractions": [1.0], "seeds": [0]}
    one = study(config(tmp_path / "one", tasks, pretrained, **less))
    two = study(
        config(tmp_path / "two", tasks, pretrained, **less, executor="processes", workers=2)
    )
    assert np.allclose(scores_of(one)["value"], scores_of(two)["value"], atol=1e-5)


def probability_rows(start: str, seed: int, cases: list[tuple[str, str, str]]) -> list[dict]:
    """Rows of a classifier that calls each (patient, class) the third word."""
    return [
        {
            "task": "t",
            "start": start,
            "budget": "100 %",
            "fraction": 1.0,
            "run": str(seed),
            "labelled_patients": 5,
            "unit_of_cases": "patient",
            "patient_id": patient,
            "class_name": name,
            "metric": "probability",
            "value": 0.9 if called == name else 0.1,
            "truth": truth == name,
        }
        for name in ("cyst", "tumour")
        for patient, truth, called in cases
    ]


def compared(tmp_path: Path, rows: list[dict]) -> pd.DataFrame:
    tasks = {"t": {"kind": "classify", "sources": [tmp_path]}}
    return compare_starts(pd.DataFrame(rows), config(tmp_path, tasks, tmp_path)).set_index("start")


def test_classification_is_compared_by_balanced_accuracy(tmp_path: Path) -> None:
    # Four cysts, three of them right; two tumours, one of them right: (3/4 + 1/2) / 2.
    cases = [(f"c{n}", "cyst", "cyst" if n else "tumour") for n in range(4)]
    cases += [("t0", "tumour", "tumour"), ("t1", "tumour", "cyst")]
    # The other start also finds the second tumour, in one of its two runs.
    better = [*cases[:5], ("t1", "tumour", "tumour")]
    table = compared(
        tmp_path,
        [
            *probability_rows("scratch", 0, cases),
            *probability_rows("scratch", 1, cases),
            *probability_rows("pretrained", 0, cases),
            *probability_rows("pretrained", 1, better),
        ],
    )
    assert table.loc["scratch", "score"].estimate == pytest.approx(0.625)
    assert table.loc["pretrained", "score"].estimate == pytest.approx((0.625 + 0.875) / 2)
    assert table.loc["pretrained", "difference"].estimate == pytest.approx(0.125)
    assert table.loc["scratch", "cases"] == 6
    assert table.loc["pretrained", "score"].low < 0.75 < table.loc["pretrained", "score"].high <= 1


def test_images_of_a_patient_of_both_classes_stay_together(tmp_path: Path) -> None:
    # Patient a has an image of each class; cysts: 2 of 3 right, tumours: 0 of 1.
    cases = [
        ("a", "cyst", "cyst"),
        ("a", "tumour", "cyst"),
        ("b", "cyst", "tumour"),
        ("b", "cyst", "cyst"),
    ]
    rows = [*probability_rows("scratch", 0, cases), *probability_rows("pretrained", 0, cases)]
    table = compared(tmp_path, rows)
    assert table.loc["scratch", "score"].estimate == pytest.approx((2 / 3 + 0) / 2)
    assert table.loc["scratch", "cases"] == 2
    assert table.loc["scratch", "score"].n == 2


def test_a_failing_run_is_listed_with_its_cause_and_the_others_go_on(
    shades: Path, pretrained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = {"shades": {"kind": "classify", "sources": [shades]}}
    starts = {"scratch": {"init": "none"}, "gone": {"init": tmp_path / "no_such_model"}}
    (tmp_path / "no_such_model").write_text("no weights")
    less = {"label_fractions": [1.0], "seeds": [0], "starts": starts}
    settings = config(tmp_path / "out", tasks, pretrained, **less)
    with pytest.raises(TrainingError, match=r"1 of 2 runs failed.*gone.*no_such_model.*--resume"):
        study(settings)
    assert len([line for line in caplog.messages if " failed: " in line]) == 1
    runs = pd.read_csv(tmp_path / "out" / "runs.csv").set_index("start")
    assert runs.loc["scratch", "state"] == "finished"
    assert runs.loc["gone", "state"] == "failed"
    assert "no_such_model" in runs.loc["gone", "cause"]
    page = tmp_path / "out" / "report" / "index.html"
    assert page.is_file()
    # A report that is written anew knows of it.
    page.unlink()
    told = study(settings.model_copy(update={"resume": True, "only_report": True}))
    assert (told.runs, told.to_do) == (1, 1)
    again = pd.read_csv(tmp_path / "out" / "runs.csv")
    pd.testing.assert_frame_equal(again.set_index("start"), runs)
    assert "no run failed" not in page.read_text()
    assert "no_such_model" in page.read_text()
    # With the cause mended, only the failed run is left.
    (tmp_path / "no_such_model").unlink()
    shutil.copytree(pretrained, tmp_path / "no_such_model")
    again = study(settings.model_copy(update={"resume": True}))
    assert (again.runs, again.to_do) == (2, 0)
    assert (pd.read_csv(tmp_path / "out" / "runs.csv")["state"] == "finished").all()


def test_weights_that_are_not_there_are_refused_before_the_first_run(
    shades: Path, pretrained: Path, tmp_path: Path
) -> None:
    tasks = {"shades": {"kind": "classify", "sources": [shades]}}
    starts = {"scratch": {"init": "none"}, "typo": {"init_for": {"shades": tmp_path / "modle"}}}
    settings = config(tmp_path / "out", tasks, pretrained, starts=starts)
    with pytest.raises(SettingError, match=r"'typo', task 'shades'.*modle does not exist"):
        study(settings)
    # Not even the images are looked at, which may take hours.
    assert not (tmp_path / "out" / "tasks").exists()


STUDY = """
import sys
from pathlib import Path
import vismae
vismae.study(config=Path(sys.argv[1]), resume=True)
"""


def test_a_killed_study_goes_on_where_it_was_and_half_a_run_never_counts(
    shades: Path, pretrained: Path, tmp_path: Path
) -> None:
    tasks = {"shades": {"kind": "classify", "sources": [shades]}}
    out = tmp_path / "out"
    less = {"label_fractions": [1.0], "seeds": [0, 1], "executor": "processes"}
    settings = config(out, tasks, pretrained, **less)
    file = tmp_path / "study.yaml"
    file.write_text(to_yaml(settings))
    killed = subprocess.Popen(
        [sys.executable, "-c", STUDY, str(file)], stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        # The first run is finished, the second is under way.
        assert wait_until(lambda: len(list(out.rglob("training_patients.csv"))) >= 2, 300)
    finally:
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait(20)
    finished = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("scores.parquet")}
    assert 1 <= len(finished) < 4
    result = study(settings.model_copy(update={"resume": True, "executor": "here"}))
    assert result.runs == 4
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    whole = study(config(tmp_path / "whole", tasks, pretrained, **{**less, "executor": "here"}))
    drop = ["seconds"]
    pd.testing.assert_frame_equal(
        scores_of(result).drop(columns=drop), scores_of(whole).drop(columns=drop)
    )


def test_a_report_can_be_had_of_what_is_finished(
    made: tuple[StudyConfig, StudyResult], tmp_path: Path
) -> None:
    settings, result = made
    copy = tmp_path / "copy"
    shutil.copytree(result.folder, copy)
    for path in (copy / "runs").rglob("scores.parquet"):
        if path.parent.name == "1" and path.parent.parent.name == "1":
            path.unlink()
    # More seeds are asked for than there are; what only one start has is not compared.
    part = study(
        settings.model_copy(
            update={"out": copy, "resume": True, "only_report": True, "seeds": (0, 1, 2)}
        )
    )
    assert (part.runs, part.to_do) == (12, 12)
    assert pd.read_csv(copy / "runs.csv")["state"].value_counts().to_dict() == {
        "finished": 12,
        "to do": 12,
    }
    empty = settings.model_copy(update={"out": tmp_path / "empty", "only_report": True})
    with pytest.raises(TrainingError, match="nothing to report"):
        study(empty)


def test_starts_of_a_task_must_be_tested_on_the_same(
    shades: Path, pretrained: Path, tmp_path: Path
) -> None:
    tasks = {"shades": {"kind": "classify", "sources": [shades]}}
    starts = {"scratch": {}, "other": {"settings": {"task.classes": ["dark", "bright"]}}}
    with pytest.raises(SettingError, match=r"differ in task\.classes"):
        study(config(tmp_path / "a", tasks, pretrained, starts=starts))
    starts = {"scratch": {"tasks": ["shades"]}}
    more = {**tasks, "nobody's": tasks["shades"]}
    with pytest.raises(SettingError, match="No start takes part in task 'nobody's'"):
        study(config(tmp_path / "b", more, pretrained, starts=starts))


def test_a_start_may_have_other_weights_for_each_task(
    discs: Path, shades: Path, pretrained: Path, tmp_path: Path
) -> None:
    tasks = {
        "discs": {"kind": "segment", "sources": [discs]},
        "shades": {"kind": "classify", "sources": [shades]},
    }
    starts: dict[str, Any] = {"scratch": {}, "own": {"init_for": {"shades": pretrained}}}
    given = config(
        tmp_path / "out", tasks, pretrained, starts=starts, label_fractions=[1.0], seeds=[0]
    )
    result = study(given)
    assert result.runs == 4
    runs = [yaml.safe_load(path.read_text()) for path in tmp_path.rglob("runs/**/config.yaml")]
    began = {(run["task"]["kind"], run["init"]) for run in runs}
    assert began == {("segment", None), ("classify", None), ("classify", str(pretrained))}

    starts["own"] = {"init_for": {"shade": pretrained}}
    with pytest.raises(ValidationError, match=r"starts\.own\.init_for is 'shade'"):
        config(tmp_path / "b", tasks, pretrained, starts=starts)
    starts["own"] = {"init_for": {"shades": pretrained}, "pretrain": {"trainer.max_steps": 1}}
    with pytest.raises(ValidationError, match="init_for and pretrain"):
        config(tmp_path / "b", tasks, pretrained, starts=starts)


def test_the_primary_comparison_cannot_be_named_afterwards(
    made: tuple[StudyConfig, StudyResult],
) -> None:
    settings = made[0]
    primary = StudyPrimary(task="discs", start="pretrained", fraction=0.3)
    later = settings.model_copy(update={"resume": True, "primary": primary})
    with pytest.raises(RunFolderError, match="primary was None, now something else"):
        study(later)


def test_a_start_may_choose_its_patients_and_a_restart_goes_on_with_its_models(
    tmp_path: Path, shades: Path, pretrained: Path
) -> None:
    tasks = {"shades": {"kind": "classify", "sources": [shades]}}
    starts = {
        "chance": {"init": pretrained},
        "chosen": {"init": pretrained, "select": "core-set"},
    }
    settings = config(
        tmp_path / "out",
        tasks,
        pretrained,
        starts=starts,
        baseline="chance",
        label_fractions=[0.3, 0.6, 1.0],
        seeds=[0],
    )
    result = study(settings)
    assert result.runs == 6

    def patients(start: str, labels: str) -> set[str]:
        folder = result.folder / "runs" / "shades" / start / labels / "0"
        return set(pd.read_csv(folder / "training_patients.csv")["patient_id"])

    for labels in ("0.3", "0.6", "1"):
        assert len(patients("chosen", labels)) == len(patients("chance", labels))
    assert patients("chosen", "0.3") == patients("chance", "0.3")
    assert patients("chosen", "0.3") < patients("chosen", "0.6") < patients("chosen", "1")
    assert patients("chosen", "1") == patients("chance", "1")
    selection = result.folder / "runs/shades/chosen/0.6/0_selection/selection.csv"
    assert set(pd.read_csv(selection)["patient_id"]) == patients("chosen", "0.6") - patients(
        "chosen", "0.3"
    )
    (result.folder / "runs/shades/chosen/1/0/scores.parquet").unlink()
    again = study(settings.model_copy(update={"resume": True}))
    assert again.runs == 6
    # The patients of 60 % were chosen by the model of 30 %, and need not hold those of 45 %.
    between = settings.model_copy(update={"resume": True, "label_fractions": (0.3, 0.45, 0.6, 1.0)})
    with pytest.raises(RunFolderError, match=r"chosen before 45 % was among the label budgets"):
        study(between)


def test_patients_of_a_modality_that_none_of_the_fewest_had_may_be_chosen(
    tmp_path: Path, pretrained: Path
) -> None:
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "store") as writer:
        for number in range(10):
            pixels = rng.integers(0, 255, (32, 32), dtype=np.uint8)
            facts = record(f"i{number}", pixels, modality=(Modality.MR, Modality.US)[number % 2])
            writer.add(facts, pixels, disc((32, 32), (16, 16), 5))
    settings = config(
        tmp_path / "out",
        {"both": {"kind": "segment", "sources": [tmp_path / "store"]}},
        pretrained,
        starts={"trivial": {"trivial": True}, "chosen": {"init": pretrained, "select": "core-set"}},
        baseline="trivial",
        label_fractions=[1.0],
        label_patients=[1],
        seeds=[0],
    )
    runs = study(settings).folder / "runs" / "both"
    trained = [
        set(pd.read_csv(runs / start / "1" / "0" / "training_patients.csv")["patient_id"])
        for start in ("trivial", "chosen")
    ]
    assert len(trained[0]) == 7
    assert trained[1] == trained[0]


def test_the_toy_study_makes_its_own_images_and_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        starts, "write_phantom_archive", partial(write_phantom_archive, **SMALL_ARCHIVE)
    )
    toy = build_config(
        StudyConfig,
        "study",
        file=Path(__file__).parents[2] / "configs" / "study_toy.yaml",
        options={"out": tmp_path / "out"},
    )
    few = {"trainer.max_steps": 2, "data.image_size": 32}
    own = toy.starts["pre-trained"]
    own = own.model_copy(update={"pretrain": {**own.pretrain, **few}})
    less = toy.model_copy(
        update={
            "tasks": {"organs in MR": toy.tasks["organs in MR"]},
            "starts": {**toy.starts, "pre-trained": own},
            "primary": toy.primary and toy.primary.model_copy(update={"fraction": 0.5}),
            "label_fractions": (0.5, 1.0),
            "seeds": (0,),
            "settings": {**toy.settings, **few, "trainer.validate_every": 2},
            "executor": "here",
            "bootstrap": 100,
        }
    )
    result = study(less)
    assert result.runs == 4
    page = (result.folder / "report" / "index.html").read_text()
    assert "Primary comparison, named before the runs" in page
    assert "In-domain: organs in MR" in page
    made = (result.folder / "pretrained" / "pre-trained" / "model" / "model.json").stat()
    # Made once: the second time nothing is left to do.
    again = study(less.model_copy(update={"resume": True}))
    assert again.runs == 4
    after = (result.folder / "pretrained" / "pre-trained" / "model" / "model.json").stat()
    assert made.st_mtime_ns == after.st_mtime_ns
    unknown = {"t": {"kind": "segment", "sources": ["phantom:everything"]}}
    with pytest.raises(SettingError, match="no part of the phantom archive"):
        study(config(tmp_path / "b", unknown, tmp_path))
