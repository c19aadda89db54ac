"""The section of one task in a study's report."""

import numpy as np
import pandas as pd

from vismae.core.config import EvaluateConfig
from vismae.core.study_config import StudyConfig
from vismae.evaluation.coverage import coverage_note
from vismae.evaluation.figures import label_efficiency_figure, training_curves
from vismae.evaluation.report import Report
from vismae.evaluation.statistics import mean_of_defined
from vismae.evaluation.study_comparison import LabelUse
from vismae.evaluation.study_groups import aurocs_by_class, by_class, by_group
from vismae.evaluation.study_scores import TaskScores
from vismae.workflows.label_study import words
from vismae.workflows.label_study.analysis import Found
from vismae.workflows.label_study.pictures import worst_cases
from vismae.workflows.label_study.plan import primary_budget, with_labels
from vismae.workflows.label_study.study_tables import StudyTables
from vismae.workflows.label_study.while_training import while_training


def draw_curves(report: Report, scores: TaskScores, part: pd.DataFrame) -> None:
    """Add the label curves of a task to a report."""
    curves = pd.DataFrame(
        {
            "arm": part["start"],
            "labels": part["labelled_patients"],
            "estimate": [interval.estimate for interval in part["score"]],
            "low": [interval.low for interval in part["score"]],
            "high": [interval.high for interval in part["score"]],
        }
    )
    points = pd.DataFrame(
        {"arm": start, "labels": round(float(scores.labels[place])), "value": float(value)}
        for start in scores.starts
        for place in range(len(scores.budgets))
        for value in mean_of_defined(scores.of(start)[place].T)
        if np.isfinite(value)
    )
    report.figure(
        label_efficiency_figure(
            curves, scores.metric, points=points, x_label=f"{scores.unit}s with labels"
        ),
        f"{scores.task}: {scores.metric} against the number of labelled {scores.unit}s. Bands: "
        f"95 % intervals over runs and test {scores.unit}s; dots: single runs.",
    )


def comparison_table(part: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a comparison as a page shows them."""
    adjusted = np.where(part["primary"], part["p"], part["p_holm"])
    return pd.DataFrame(
        {
            "labels": part["budget"],
            "labelled": part["labelled_patients"],
            "start": part["start"],
            "runs": part["runs"],
            "n": part["cases"],
            "score": part["score"],
            "difference": part["difference"],
            "p": part["p"],
            "p (Holm)": part["p_holm"],
            "": [
                f"{words.verdict(difference, p)}{' (primary)' if named else ''}"
                for difference, p, named in zip(
                    part["difference"], adjusted, part["primary"], strict=True
                )
            ],
        }
    )


def comparison_caption(scores: TaskScores, config: StudyConfig) -> str:
    """Say what the columns of ``comparison_table`` are."""
    return (
        f"{scores.task}, {scores.metric}: mean over runs and test {scores.unit}s [95 % interval "
        f"over both]; labelled and n: {scores.unit}s to learn from and to test; difference from "
        f"'{config.baseline}', paired by run and {scores.unit}; p of a paired permutation over "
        f"{scores.unit}s, and after Holm over all comparisons of the study but the primary one. "
        "'better' and 'worse' need both: an interval without 0 and an adjusted p below 0.05."
    )


def focus_budget(config: StudyConfig, scores: TaskScores) -> str:
    """Return the label budget that details are shown at: the primary, else the smallest."""
    budget = primary_budget(config)
    named = None if budget is None else budget.name
    return named if named in scores.budgets else scores.budgets[0]


class TaskSection:
    """Curves, comparisons, labels saved, classes, groups and worst cases of one task.

    Args:
        found: The study.
        scores: Of the task.
        use: What every start makes of labels.
        tables: Where the tables go.
    """

    def __init__(
        self, found: Found, scores: TaskScores, use: list[LabelUse], tables: StudyTables
    ) -> None:
        self.found, self.config = found, found.config
        self.scores, self.use, self.tables = scores, use, tables
        self.name, self.unit = scores.task, scores.unit
        self.focus = focus_budget(found.config, scores)
        self._rows = found.rows[found.rows["task"] == self.name]

    def add(self) -> None:
        """Add everything to the report."""
        part = self.found.comparison[self.found.comparison["task"] == self.name]
        if part.empty:
            self.tables.report.text(words.nothing_scored(self.scores))
            return
        draw_curves(self.tables.report, self.scores, part)
        caption = comparison_caption(self.scores, self.config)
        self.tables.add(f"{self.name} comparison", comparison_table(part), caption)
        self.tables.report.text(words.too_few(part, self.found.comparison))
        self.tables.report.text(words.scored_by_image(self._rows, self.scores))
        if self.name in self.found.tasks:
            unlearnt = self.found.tasks[self.name].unlearnt
            self.tables.report.text(words.unlearnt_classes(unlearnt, self.scores))
        self.tables.report.text(words.untested_classes(self._rows, self.scores))
        self._label_use()
        for budget in dict.fromkeys((self.focus, self.scores.budgets[-1])):
            self._while_training(budget)
            self._classes(budget)
        self._groups()
        self._worst()

    def _label_use(self) -> None:
        if not self.use:
            return
        unit, baseline = self.unit, self.config.baseline
        self.tables.add(
            f"{self.name} labels",
            pd.DataFrame([self._use_row(one) for one in self.use]),
            f"{self.name}: area under the label curve (mean {self.scores.metric} over log labels), "
            f"its difference from '{baseline}', and labelled {unit}s needed, from a power law "
            f"fitted to the curve [95 % intervals over runs and {unit}s]. 'as good': the fewest "
            f"labels shown not to be worse by {self.config.margin:g} than '{baseline}' with "
            f"{with_labels(self.scores.budgets[-1])}, tested from many labels to few at 5 %. "
            f"{coverage_note(self.use[0].runs, len(self.scores.patients))}",
        )
        self.tables.report.text(words.forecasts(self.use))

    def _use_row(self, one: LabelUse) -> dict[str, object]:
        relative = one.relative
        return {
            "start": one.start,
            "runs": one.runs,
            "area": one.area,
            "difference": one.area_difference,
            "labels for the baseline's result": "" if relative is None else relative.share_text(),
            "as good": "" if relative is None else one.fewest_as_good() or "not shown",
            **{
                f"labelled for {quality:g}": needed.text() for quality, needed in one.needed.items()
            },
        }

    def _while_training(self, budget: str) -> None:
        cells = [
            cell
            for cell in self.found.cells
            if cell.task == self.name and cell.budget.name == budget
        ]
        learnt = while_training(cells, self.found.folder, self.config.baseline)
        if learnt is None:
            return
        # A curve of one point is none.
        if any(len(steps) > 1 for steps, _ in learnt.curves.values()):
            self.tables.report.figure(
                training_curves(learnt.curves, f"validation {self.scores.metric}"),
                f"{self.name}, {with_labels(budget)}: {self.scores.metric} on validation "
                f"{self.unit}s while training, mean over runs.",
            )
        self.tables.add(
            f"{self.name} while training {budget}",
            learnt.table,
            f"{self.name}, {with_labels(budget)}: {self.scores.metric} on validation {self.unit}s "
            "half way through the steps and at their end, mean over runs; lead over "
            f"'{self.config.baseline}', paired by run. What is tested are the best weights on the "
            "way, which need not be the last.",
        )
        self.tables.report.text(
            learnt.in_words(self.config.baseline, self.unit, self.config.margin)
        )

    def _classes(self, budget: str) -> None:
        config, starts = self.config, list(self.scores.starts)
        if config.baseline not in starts:
            return
        if config.tasks[self.name].kind == "segment":
            table = by_class(self._rows, starts, config.baseline, budget, config.bootstrap)
            tolerance = EvaluateConfig.model_fields["nsd_tolerance"].default
            caption = (
                f"{self.name}, every class with {with_labels(budget)}: mean over runs and "
                f"{self.unit}s with a value [95 % interval over both]; n of these {self.unit}s. "
                f"Surface Dice is within {tolerance:g} mm, or pixels where no spacing is known. "
                "For HD95 less is better; where a class is missed wholly it has none, so look at "
                "its n too. Differences of single classes are not adjusted for their number."
            )
        else:
            table = aurocs_by_class(self._rows, starts, config.baseline, budget)
            caption = (
                f"{self.name}, AUROC of every class against the rest with {with_labels(budget)}: "
                f"mean over runs [95 % interval over {self.unit}s, DeLong]; n {self.unit}s, so "
                "many of them with the class (positive); p of DeLong's paired test, and after Holm "
                "over this table (two classes, whose AUROC is the same, count once)."
            )
        self.tables.add(f"{self.name} classes {budget}", table, caption)

    def _groups(self) -> None:
        path = self.found.folder / "tasks" / self.name / "patients.parquet"
        if not path.is_file():
            return
        patients = pd.read_parquet(path).set_index("patient_id")
        classifies = self.config.tasks[self.name].kind == "classify"
        over = "; balanced accuracy over the classes that the group has" if classifies else ""
        for column in patients.columns:
            if patients[column].nunique() < 2 and column != "modality":
                continue
            table = by_group(
                self._rows,
                self.scores.starts,
                self.config.tasks[self.name].kind,
                patients[column],
                self.config.baseline,
                self.focus,
                self.config.bootstrap,
            )
            self.tables.add(
                f"{self.name} by {column}",
                table.rename(columns={"group": column}),
                f"{self.name} by {column}, {self.scores.metric} with {with_labels(self.focus)}: "
                f"mean over runs and {self.unit}s of the group [95 % interval over both]; n "
                f"{self.unit}s{over}. Groups were not planned for: small ones say little, and none "
                "is adjusted for their number.",
            )

    def _worst(self) -> None:
        cell = next(
            (
                cell
                for cell in self.found.cells
                if cell.task == self.name and cell.budget.name == self.focus
            ),
            None,
        )
        if cell is None or not self.config.worst_cases:
            return
        cases = worst_cases(
            self.found.tasks[self.name],
            self.scores,
            self._rows,
            cell,
            self.found.folder,
            self.config.worst_cases,
        )
        if cases is None:
            return
        what, shown = "probability of their class", "The next table has it for every start."
        if self.config.tasks[self.name].kind == "segment":
            what = "Dice"
            shown = (
                "One row each: annotation, then what every start predicted in its first run, with "
                "its mean Dice."
            )
        self.tables.report.figure(
            cases.picture,
            f"{self.name}: the test {self.unit}s with the lowest {what} (mean over starts and "
            f"runs) with {with_labels(self.focus)}. {shown}",
        )
        self.tables.add(
            f"{self.name} worst", cases.table, f"{self.name}: their {what}, mean over runs."
        )
