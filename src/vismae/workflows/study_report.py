"""What a study found, on one page, as csv and as LaTeX.

``report/index.html`` needs nothing else; ``report/tables/`` holds every table of it twice, as csv
(limits as columns) and as LaTeX. The page shows images of patients unless ``worst_cases`` is 0.
"""

import shutil
from collections.abc import Sequence

import numpy as np
import pandas as pd

from vismae.core.settings import to_yaml
from vismae.core.study_config import StudyConfig
from vismae.data.splits import read_patients_csv
from vismae.evaluation.ranking import rank_starts, ranking_stability
from vismae.evaluation.report import Report
from vismae.evaluation.study_comparison import label_use
from vismae.evaluation.study_figures import ranking_figure
from vismae.workflows.label_study import words
from vismae.workflows.label_study.analysis import Found, scores_of_tasks
from vismae.workflows.label_study.plan import with_labels
from vismae.workflows.label_study.study_tables import StudyTables
from vismae.workflows.label_study.task_section import (
    TaskSection,
    comparison_caption,
    comparison_table,
    draw_curves,
    focus_budget,
)

_DOMAINS = (
    ("in", "In-domain", "Modality and organ of this task were in the pre-training."),
    ("out", "Out-of-domain", "The modality or the organ of this task was not in the pre-training."),
    (None, "", ""),
)


def write_study_report(found: Found) -> None:
    """Write ``report/index.html`` and ``report/tables/``; tables of an earlier report go."""
    shutil.rmtree(found.folder / "report" / "tables", ignore_errors=True)
    _Page(found).write()


def add_study(
    report: Report, config: StudyConfig, rows: pd.DataFrame, comparison: pd.DataFrame
) -> None:
    """Add a study's curves and comparisons to another report, a section for each task."""
    for name, scores in scores_of_tasks(rows, config).items():
        part = comparison[comparison["task"] == name]
        report.section(f"Task: {name}")
        if part.empty:
            report.text(words.nothing_scored(scores))
            continue
        draw_curves(report, scores, part)
        report.table(comparison_table(part), comparison_caption(scores, config))
        report.text(words.too_few(part, comparison))
    report.text(words.caution(comparison))


class _Page:
    """The report, section by section."""

    def __init__(self, found: Found) -> None:
        self.found, self.config = found, found.config
        self.scores = scores_of_tasks(found.rows, found.config)
        self.report = Report(
            "Label-efficiency study", f"starts compared with '{found.config.baseline}'"
        )
        self.tables = StudyTables(self.report, found.folder / "report" / "tables")
        self.use = {
            name: label_use(
                scores,
                self.config.baseline,
                self._qualities(name),
                self.config.margin,
                self.config.bootstrap,
            )
            for name, scores in self.scores.items()
        }

    def write(self) -> None:
        """Write the page and its tables."""
        self._top()
        self._in_words()
        for domain, title, explanation in _DOMAINS:
            names = [n for n in self.scores if self.config.tasks[n].domain == domain]
            for name in names:
                self.report.section(f"{title}: {name}" if title else name)
                self.report.text(explanation)
                TaskSection(self.found, self.scores[name], self.use[name], self.tables).add()
            self._ranking(names, title)
        self._left_out()
        self.report.section("How the numbers are made")
        self.report.text(words.METHODS)
        self._settings()
        self.report.write(self.found.folder / "report" / "index.html")

    def _qualities(self, task: str) -> Sequence[float]:
        own = self.config.tasks[task].qualities
        return self.config.qualities if own is None else own

    def _top(self) -> None:
        report, runs = self.report, self.found.runs
        states = runs["state"].value_counts()
        finished, failed = int(states.get("finished", 0)), int(states.get("failed", 0))
        report.fact("runs", f"{finished} of {len(runs)}")
        report.fact("tasks", str(len(self.scores)))
        report.fact("starts", str(len({cell.start for cell in self.found.cells})))
        report.fact("seeds", str(len({cell.seed for cell in self.found.cells})))
        if failed:
            report.warn(f"Runs that failed: {failed}; the section on what was left out says why.")
        for sentence in self.found.labels_known:
            report.warn(sentence)
        for name, scores in self.scores.items():
            rows = self.found.rows[self.found.rows["task"] == name]
            if said := words.baseline_at_chance(rows, scores, self.config.baseline):
                report.warn(said)
        if finished + failed < len(runs):
            report.warn(
                f"{len(runs) - finished - failed} runs are still to be done: this is a report on "
                "the way. Starts are compared on the runs that both have."
            )

    def _in_words(self) -> None:
        self.report.section("Result in words")
        self.report.text(words.primary(self.config, self.found.comparison))
        for name, scores in self.scores.items():
            for sentence in words.claims(self.use[name], self.config, scores):
                self.report.text(f"{name}: {sentence}")
        self.report.section("What was compared")
        scores = list(self.scores.values())
        self.report.text(words.design(self.config, scores, self.found.cells))
        self.report.text(words.caution(self.found.comparison))

    def _ranking(self, names: Sequence[str], title: str) -> None:
        """Rank the starts that every task of a domain has."""
        starts = [s for s in self.config.starts if all(s in self.scores[n].starts for n in names)]
        if not names or len(starts) < 2 or (len(starts) == 2 and len(names) == 1):
            return
        budgets = {name: focus_budget(self.config, self.scores[name]) for name in names}
        values = {name: self.scores[name].shared(starts, at) for name, at in budgets.items()}
        finite = {name: found for name, found in values.items() if found.shape[1]}
        if not finite:
            return
        stability = ranking_stability(finite, starts, n=self.config.bootstrap)
        means = np.array([np.nanmean(v, axis=(1, 2)) for v in finite.values()])
        ranking = rank_starts(means, starts)
        self.report.section(f"{title} ranking" if title else "Ranking")
        at = ", ".join(
            f"{name} with {with_labels(budgets[name])}, {words.runs_of(found.shape[1])}"
            for name, found in finite.items()
        )
        self.report.figure(
            ranking_figure(stability, ranking),
            f"Mean rank over {len(finite)} task{'' if len(finite) == 1 else 's'} ({at}, those that "
            "all starts have) with 95 % intervals when runs and test patients are drawn anew. "
            f"{words.critical_difference(ranking)}",
        )
        self.tables.add(f"{title} ranking", stability, words.stability(ranking))

    def _left_out(self) -> None:
        self.report.section("What was left out")
        left_out = pd.read_csv(self.found.folder / "left_out.csv")
        failed = self.found.runs[self.found.runs["state"] == "failed"]
        twins = {name: task.twins for name, task in self.found.tasks.items() if task.twins}
        unused = {name: task.unused for name, task in self.found.tasks.items() if task.unused}
        if (
            left_out.empty
            and not twins
            and not unused
            and (self.found.runs["state"] == "finished").all()
        ):
            self.report.text("Nothing: every task had every label budget, and no run failed.")
        for name, said in unused.items():
            self.report.text(f"{name}: in no run are {' and '.join(said)}.")
        for name, table in twins.items():
            self.report.text(
                f"{name}: {len(read_patients_csv(table))} test patients or groups, of whom an "
                "image is also one of a training or validation patient; no run is scored on them."
            )
        to_do = int((self.found.runs["state"] == "to do").sum())
        if to_do:
            self.report.text(f"Not there yet: {to_do} runs are still to be done.")
        self.tables.add(
            "left out",
            left_out,
            "Label budgets that a task does not have: less than one patient, more than there are, "
            "no image of a class in one of the draws, or the same patients as another budget.",
        )
        self.tables.add(
            "failed",
            failed[["task", "start", "labels", "fold", "seed", "cause"]],
            "Failed runs. Starts are compared on the runs that both have.",
        )

    def _settings(self) -> None:
        self.report.section("Settings")
        self.report.code(to_yaml(self.config), "The study")
        first = {(cell.task, cell.start): cell for cell in reversed(self.found.cells)}
        for cell in reversed(first.values()):
            path = cell.folder(self.found.folder) / "config.yaml"
            if path.is_file():
                title = f"Every setting of a run: {cell}"
                self.report.code(path.read_text(encoding="utf-8"), title)
