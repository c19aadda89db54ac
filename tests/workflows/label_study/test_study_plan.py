"""What a study runs, and in which order."""

from pathlib import Path
from typing import Any

import pytest

from vismae.core.study_config import StudyConfig
from vismae.workflows.label_study.plan import Budget, Cell, budgets_of, cells_of, with_labels

TENTH, HALF, WHOLE = (Budget(fraction=value) for value in (0.1, 0.5, 1.0))
THREE = Budget(patients=3)


def config(**more: Any) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "out": "out",
            "tasks": {
                "heart": {"kind": "segment", "sources": ["a"]},
                "brain": {"kind": "classify", "sources": ["b"]},
            },
            "starts": {"ours": {"init": "model"}, "scratch": {"init": "none"}},
            "baseline": "scratch",
            "label_fractions": [0.1, 0.5, 1.0],
            "seeds": [0, 1],
            **more,
        }
    )


def test_budgets_are_named_as_people_say_them() -> None:
    names = [budget.name for budget in budgets_of(config(label_patients=[3, 1], seeds=[0]))]
    assert names == ["3 patients", "1 patient", "10 %", "50 %", "100 %"]
    assert THREE.of(12) == 0.25
    assert HALF.of(12) == 0.5


def test_a_stopped_study_has_all_starts_of_the_primary_budget_and_of_all_labels_first() -> None:
    settings = config(primary={"task": "heart", "start": "ours", "fraction": 0.5})
    own = (TENTH, HALF, WHOLE)
    cells = list(cells_of(settings, {"heart": own, "brain": own}))
    assert len(cells) == 2 * 2 * 3 * 2
    assert [cell.seed for cell in cells] == [0] * 12 + [1] * 12
    assert [cell.budget for cell in cells[:12]] == [HALF] * 4 + [WHOLE] * 4 + [TENTH] * 4
    assert {(cell.task, cell.start) for cell in cells[:4]} == {
        (task, start) for task in ("heart", "brain") for start in ("ours", "scratch")
    }


def test_without_a_primary_comparison_the_fewest_labels_come_first() -> None:
    cells = list(cells_of(config(), {"heart": (TENTH, HALF, WHOLE)}))
    assert [cell.budget for cell in cells[:6:2]] == [TENTH, WHOLE, HALF]


def test_folds_are_repetitions_like_seeds() -> None:
    cells = list(cells_of(config(folds=[2, 1]), {"heart": (WHOLE,)}))
    assert [(cell.fold, cell.seed) for cell in cells[::2]] == [(2, 0), (1, 0), (2, 1), (1, 1)]
    assert cells[0].run == "fold2_0"


def test_a_start_takes_part_only_in_the_tasks_it_names() -> None:
    starts = {"ours": {"init": "model", "tasks": ["heart"]}, "scratch": {}}
    cells = cells_of(config(starts=starts), {"heart": (WHOLE,), "brain": (WHOLE,)})
    found = {(cell.task, cell.start) for cell in cells}
    assert found == {("heart", "ours"), ("heart", "scratch"), ("brain", "scratch")}


def test_every_run_has_a_folder_of_its_own() -> None:
    settings = config(folds=[1, 2], label_patients=[3])
    own = (THREE, TENTH, WHOLE)
    cells = list(cells_of(settings, {"heart": own, "brain": own}))
    assert len({cell.folder(Path("out")) for cell in cells}) == len(cells)
    cell = Cell("heart", "ours", THREE, 2, 1)
    assert cell.folder(Path("out")) == Path("out/runs/heart/ours/3_patients/fold2_1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "theirs"}, "baseline is 'theirs', but starts are"),
        ({"starts": {"scratch": {"tasks": ["lung"]}}}, "'lung', but tasks are"),
        ({"primary": {"task": "heart", "start": "scratch", "fraction": 0.1}}, "is the baseline"),
        ({"primary": {"task": "heart", "start": "ours", "fraction": 0.2}}, "is not among"),
        ({"primary": {"task": "heart", "start": "ours"}}, "either fraction or patients"),
        ({"label_fractions": []}, "both empty"),
        ({"starts": {"a/b": {}, "scratch": {}}}, "a/b"),
    ],
)
def test_a_study_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("10 %", "10 % of the labels"),
        ("3 patients", "3 labelled patients"),
        ("3 image groups", "3 labelled image groups"),
    ],
)
def test_a_budget_is_said_in_words(budget: str, said: str) -> None:
    assert with_labels(budget) == said
