"""A study's report: what it says of runs that are missing."""

from pathlib import Path

import numpy as np
import pandas as pd

from vismae.core.study_config import StudyConfig
from vismae.evaluation.report import Report
from vismae.workflows.label_study import words
from vismae.workflows.label_study.analysis import Found, compare_starts, scores_of_tasks
from vismae.workflows.label_study.plan import Budget, Cell, cells_of
from vismae.workflows.study_report import add_study, write_study_report

PATIENTS = 20
LABELS = {0.1: 5, 1.0: 50}
GAIN = {"scratch": 0.0, "better": 0.02, "lucky": -0.02}
# The labelled patients of the last seed teach little, whatever the start.
SEEDS = {0: 0.8, 1: 0.8, 2: 0.4}


def rows_of(cells: list[Cell]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    patient = rng.normal(0, 0.05, PATIENTS)
    return pd.DataFrame(
        {
            "task": cell.task,
            "start": cell.start,
            "budget": cell.budget.name,
            "fraction": cell.budget.fraction,
            "labelled_patients": LABELS[cell.budget.fraction or 0.0],
            "run": cell.run,
            "unit_of_cases": "patient",
            "patient_id": f"p{number:02d}",
            "class_name": "mean",
            "metric": "dice",
            "unit": "",
            "n_volumes": 1,
            "status": "scored",
            "n_classes": 1,
            "seed": cell.seed,
            "value": SEEDS[cell.seed] + GAIN[cell.start] + patient[number] + rng.normal(0, 0.005),
        }
        for cell in cells
        for number in range(PATIENTS)
    )


def report_on(
    folder: Path,
    done: list[Cell],
    all_cells: list[Cell],
    config: StudyConfig,
    without: tuple[str, ...] = (),
) -> str:
    rows = without_a_score(rows_of(done), *without)
    runs = pd.DataFrame(
        {
            "task": cell.task,
            "start": cell.start,
            "labels": cell.budget.name,
            "fold": cell.fold,
            "seed": cell.seed,
            "state": "finished" if cell in done else "to do",
            "cause": None,
        }
        for cell in all_cells
    )
    (folder / "left_out.csv").write_text("task,labels,reason\n")
    comparison = compare_starts(rows, config)
    write_study_report(Found(config, folder, rows, comparison, {}, done, runs))
    return (folder / "report" / "index.html").read_text()


def made(folder: Path) -> tuple[StudyConfig, list[Cell]]:
    config = StudyConfig.model_validate(
        {
            "out": folder,
            "tasks": {name: {"kind": "segment", "sources": ["x"]} for name in ("heart", "lung")},
            "starts": {name: {} for name in GAIN},
            "baseline": "scratch",
            "label_fractions": list(LABELS),
            "seeds": list(SEEDS),
            "worst_cases": 0,
            "bootstrap": 100,
        }
    )
    budgets = {task: [Budget(fraction=share) for share in LABELS] for task in config.tasks}
    return config, list(cells_of(config, budgets))


def test_a_report_on_the_way_speaks_of_the_runs_there_are(tmp_path: Path) -> None:
    config, cells = made(tmp_path)
    page = report_on(tmp_path, [cell for cell in cells if cell.seed == 0], cells, config)
    assert "There is one run of each cell" in page
    assert "with seed 0;" in page
    assert "24 runs are still to be done" in page
    assert "no run failed" not in page
    page = report_on(
        tmp_path, [cell for cell in cells if (cell.seed, cell.start) != (2, "lucky")], cells, config
    )
    assert "Cells have 2 to 3 runs." in page
    page = report_on(tmp_path, cells, cells, config)
    assert "There are 3 runs of each cell." in page
    assert "with seeds 0, 1, 2;" in page
    assert "Nothing: every task had every label budget, and no run failed." in page


def test_a_start_gains_no_rank_by_a_run_that_it_missed(tmp_path: Path) -> None:
    config, cells = made(tmp_path)
    done = [cell for cell in cells if (cell.seed, cell.start) != (2, "lucky")]
    page = report_on(tmp_path, done, cells, config)
    assert "heart with 10 % of the labels, 2 runs" in page
    table = pd.read_csv(tmp_path / "report" / "tables" / "05_ranking.csv").set_index("start")
    assert table["mean_rank"].to_dict() == {"better": 1.0, "scratch": 2.0, "lucky": 3.0}


def without_a_score(rows: pd.DataFrame, *tasks: str) -> pd.DataFrame:
    """Return the rows as of tasks whose test patients have no class to score."""
    lost = rows["task"].isin(tasks)
    return rows.assign(
        value=rows["value"].where(~lost), status=rows["status"].where(~lost, "absent")
    )


def test_a_task_whose_test_cases_have_no_class_to_score_leaves_the_others_their_report(
    tmp_path: Path,
) -> None:
    config, cells = made(tmp_path)
    page = report_on(tmp_path, cells, cells, config, without=("lung",))
    assert "lung: no test case has a class to score (none of the 20 patients" in page
    assert "heart: Dice against the number of labelled patients" in page


def test_a_study_without_any_score_says_so(tmp_path: Path) -> None:
    config, cells = made(tmp_path)
    page = report_on(tmp_path, cells, cells, config, without=("heart", "lung"))
    assert "heart: no test case has a class to score" in page
    assert "lung: no test case has a class to score" in page


def test_a_study_within_another_report_passes_over_a_task_without_a_score(tmp_path: Path) -> None:
    config, cells = made(tmp_path)
    rows = without_a_score(rows_of(cells), "heart")
    report = Report("Results", "of two tasks")
    add_study(report, config, rows, compare_starts(rows, config))
    report.write(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "heart: no test case has a class to score" in page
    assert "lung: Dice against the number of labelled patients" in page


def test_test_cases_without_a_score_are_not_counted_as_tested(tmp_path: Path) -> None:
    config, cells = made(tmp_path)
    rows = rows_of(cells)
    empty = (rows["task"] == "lung") & rows["patient_id"].isin(["p03", "p07"])
    rows.loc[empty, "value"] = np.nan
    scores = list(scores_of_tasks(rows, config).values())
    said = words.design(config, scores, cells)
    assert "heart: 20 patients, Dice; lung: 18 of 20 patients (the others have no" in said


def test_too_few_test_cases_to_show_anything_are_told(tmp_path: Path) -> None:
    config, cells = made(tmp_path)
    rows = rows_of(cells)
    few = rows[(rows["task"] == "heart") | rows["patient_id"].isin(["p00", "p01", "p02", "p03"])]
    comparison = compare_starts(few, config)
    of_task = {name: comparison[comparison["task"] == name] for name in ("heart", "lung")}
    assert words.too_few(of_task["heart"], comparison) == ""
    # Two tasks, two budgets and two starts beside the baseline: 8 comparisons for Holm.
    assert words.too_few(of_task["lung"], comparison) == (
        "With 4 test patients no difference can be shown here, however large: a permutation over "
        "so few gives no p below 0.12, nor 1 after Holm over 8. At least 9 test patients are "
        "needed."
    )
    assert (of_task["lung"]["p"].dropna() >= 0.125).all()


def test_classes_that_no_test_case_has_are_named(tmp_path: Path) -> None:
    config, cells = made(tmp_path)
    rows = rows_of(cells)
    rows = pd.concat(
        [rows, rows.assign(class_name="wall"), rows.assign(class_name="clot", value=np.nan)]
    )
    scores = scores_of_tasks(rows, config)["heart"]
    of_task = rows[rows["task"] == "heart"]
    said = words.untested_classes(of_task, scores)
    assert said == (
        "No test patient has clot: nothing is said of this class, and Dice is over the others."
    )
    assert words.untested_classes(of_task[of_task["class_name"] != "clot"], scores) == ""
    answers = of_task.assign(metric="probability", truth=of_task["class_name"] == "wall")
    answers = answers[answers["class_name"] != "mean"]
    assert "No test patient has clot" in words.untested_classes(answers, scores)


def test_a_start_without_a_finished_run_was_not_compared(tmp_path: Path) -> None:
    config, cells = made(tmp_path)
    done = [cell for cell in cells if cell.start != "lucky"]
    said = words.design(config, list(scores_of_tasks(rows_of(done), config).values()), done)
    assert said.startswith("2 starts were compared ('scratch', 'better')")
    assert "Of 'lucky' no run is finished" in said
    assert "no run is finished" not in words.design(config, [], cells)


def test_images_that_are_scored_one_by_one_are_counted(tmp_path: Path) -> None:
    config, cells = made(tmp_path)
    rows = rows_of(cells)
    rows = rows[rows["task"] == "heart"]
    scores = scores_of_tasks(rows, config)["heart"]
    answers = rows.assign(metric="probability", class_name="ill", truth=True)
    assert words.scored_by_image(answers, scores) == ""
    assert words.scored_by_image(rows, scores) == ""
    twice = pd.concat([answers, answers[answers["patient_id"] == "p03"]])
    said = words.scored_by_image(twice, scores)
    assert "each of the 21 images of the 20 test patients is scored by itself" in said


def test_classes_that_cannot_have_been_learnt_are_named(tmp_path: Path) -> None:
    config, cells = made(tmp_path)
    scores = scores_of_tasks(rows_of(cells), config)["heart"]
    assert words.unlearnt_classes((), scores) == ""
    said = words.unlearnt_classes(("clot",), scores)
    assert said.startswith("No training patient has clot, so no start can have learnt it")


def test_a_baseline_that_has_learnt_nothing_is_told_at_the_top(tmp_path: Path) -> None:
    config, cells = made(tmp_path)
    rows = rows_of(cells)
    nothing = (rows["start"] == "scratch") & (rows["task"] == "heart")
    rows.loc[nothing, "value"] = 0.0
    scores = scores_of_tasks(rows, config)

    def said(task: str) -> str:
        own = rows[rows["task"] == task]
        return words.baseline_at_chance(own, scores[task], config.baseline)

    assert said("heart").startswith(
        "heart: 'scratch', the baseline, has learnt next to nothing with 100 % of the labels "
        "(Dice 0.000). That others reach its result, or are as good, says nothing of them."
    )
    assert said("lung") == ""


def test_a_classifier_that_guesses_is_compared_with_chance() -> None:
    config = StudyConfig.model_validate(
        {
            "out": "out",
            "tasks": {"shades": {"kind": "classify", "sources": ["x"]}},
            "starts": {"scratch": {}},
            "baseline": "scratch",
        }
    )

    def said(right: float) -> str:
        facts = {
            "task": "shades",
            "start": "scratch",
            "budget": "100 %",
            "fraction": 1.0,
            "labelled_patients": 9,
            "run": "0",
            "unit_of_cases": "patient",
            "metric": "probability",
        }
        rows = pd.DataFrame(
            {
                **facts,
                "patient_id": f"p{number}",
                "class_name": name,
                "truth": name == "ab"[number % 2],
                "value": right if name == "ab"[number % 2] else 1 - right,
            }
            for number in range(8)
            for name in "ab"
        )
        if right == 0.5:  # one class for all
            rows["value"] = np.where(rows["class_name"] == "a", 0.6, 0.4)
        [scores] = scores_of_tasks(rows, config).values()
        return words.baseline_at_chance(rows, scores, "scratch")

    assert "(balanced accuracy 0.500, and guessing has 0.500)" in said(0.5)
    assert said(0.9) == ""
