"""The tables of a study's report: on the page, as csv and as LaTeX."""

from pathlib import Path

import pandas as pd

from vismae.core.rundir import write_text
from vismae.evaluation.latex import latex_table
from vismae.evaluation.report import Report
from vismae.workflows.label_study.analysis import flat


class StudyTables:
    """Puts every table into a report and beside it.

    Args:
        report: The page.
        folder: For ``NUMBER_NAME.csv`` and ``.tex``.
    """

    def __init__(self, report: Report, folder: Path) -> None:
        self.report = report
        self._folder = folder
        self._count = 0

    def add(self, name: str, table: pd.DataFrame, caption: str) -> None:
        """Add a table; one without rows is left out.

        Args:
            name: For its files and its LaTeX label.
            table: Its index is left out; an ``Interval`` becomes three columns in the csv.
            caption: What it shows.
        """
        if table.empty:
            return
        self._count += 1
        self.report.table(table, caption)
        stem = f"{self._count:02d}_{_plain(name)}"
        write_text(self._folder / f"{stem}.csv", flat(table).to_csv(index=False))
        text = latex_table(table, caption, f"tab:{_plain(name)}")
        write_text(self._folder / f"{stem}.tex", text)


def _plain(name: str) -> str:
    """Return a name as part of a file name and a LaTeX label."""
    return "".join(letter if letter.isalnum() else "_" for letter in name.strip()).strip("_")
