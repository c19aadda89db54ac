"""How the runs of a study did on validation patients while they learnt.

Starts are compared after equal steps. A start that is merely faster is ahead after few steps and
no longer after many, so what each gains in the second half of its steps belongs beside the result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vismae.workflows.label_study.plan import Cell

_METRICS = "metrics.csv"
_VALIDATION = "validation "


@dataclass(frozen=True)
class WhileTraining:
    """Validation scores of one task at one label budget, on the way.

    Attributes:
        curves: Start -> steps and the mean over its runs there; runs that were not validated at
            the same steps share those that all have.
        table: Columns start, runs, steps, half way, end, and the lead over the baseline half way
            and at the end: means over runs, the leads paired by run. NaN where a run was not
            validated in its first half, or no run is shared, and for the baseline's own lead.
    """

    curves: Mapping[str, tuple[np.ndarray, np.ndarray]]
    table: pd.DataFrame

    def in_words(self, baseline: str, unit: str, margin: float) -> str:
        """Say what became of each start's lead; nothing where there is none.

        Args:
            baseline: The start that leads are over.
            unit: What a case is.
            margin: Difference of scores that counts: a lead that shrinks by less says nothing.
        """
        said: list[str] = []
        for _, row in self.table.iterrows():
            before, after = float(row["lead half way"]), float(row["lead at the end"])
            if not np.isfinite([before, after]).all():
                continue
            shrank = before > 0 and before - after > margin
            said.append(
                f"'{row['start']}' less '{baseline}' is {before:+.3f} half way and {after:+.3f} at "
                f"the end{', so a part of its lead is one of speed' if shrank else ''}."
            )
        if not said:
            return ""
        return f"On validation {unit}s, at the same steps: {' '.join(said)}"


def while_training(cells: Sequence[Cell], folder: Path, baseline: str) -> WhileTraining | None:
    """Read what runs noted of validation patients.

    Args:
        cells: Finished runs of one task at one label budget; those without a network, or of data
            without validation patients, have noted nothing.
        folder: Of the study.
        baseline: The start that leads are over.

    Returns:
        None where no run has noted anything.
    """
    noted: dict[str, dict[str, pd.Series]] = {}
    for cell in cells:
        series = _validation(cell.folder(folder) / _METRICS)
        if series is not None:
            noted.setdefault(cell.start, {})[cell.run] = series
    if not noted:
        return None
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    rows: list[dict[str, object]] = []
    for start, runs in noted.items():
        joined = pd.DataFrame(runs).dropna()
        curves[start] = joined.index.to_numpy(float), joined.mean(axis=1).to_numpy(float)
        half, end = _half_way(runs), _at_the_end(runs)
        # The baseline has no lead over itself.
        against = noted.get(baseline, {}) if start != baseline else {}
        shared = [run for run in runs if run in against]
        base = {run: against[run] for run in shared}
        rows.append(
            {
                "start": start,
                "runs": len(runs),
                "steps": int(max(series.index[-1] for series in runs.values())),
                "half way": half.mean(),
                "end": end.mean(),
                "lead half way": (half[shared] - _half_way(base)).mean(),
                "lead at the end": (end[shared] - _at_the_end(base)).mean(),
            }
        )
    return WhileTraining(curves, pd.DataFrame(rows))


def _validation(path: Path) -> pd.Series | None:
    """Return the validation score by step; None where the file has none."""
    if not path.is_file():
        return None
    table = pd.read_csv(path).set_index("step")
    named = [name for name in table.columns if name.startswith(_VALIDATION)]
    scores = table[named[0]].dropna() if named else pd.Series(dtype=float)
    return None if scores.empty else scores


def _half_way(runs: Mapping[str, pd.Series]) -> pd.Series:
    """Return the last score of each run in the first half of its steps, NaN where it has none."""
    found = {run: series[series.index <= series.index[-1] / 2] for run, series in runs.items()}
    return pd.Series(
        {run: part.iloc[-1] if len(part) else np.nan for run, part in found.items()}, dtype=float
    )


def _at_the_end(runs: Mapping[str, pd.Series]) -> pd.Series:
    return pd.Series({run: series.iloc[-1] for run, series in runs.items()}, dtype=float)
