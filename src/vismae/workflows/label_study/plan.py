"""What a study runs, in which order, and which label budgets it leaves out.

One run (``Cell``) is a task, a start, a label budget, a fold and a seed. The order makes a study
that is stopped useful: everything of the first fold and seed comes first, in it the budget of the
primary comparison, then all labels, then the rest from few to many.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vismae.core.study_config import StudyConfig

SCORES = "scores.parquet"
"""In a run's folder: the run is finished, and these are its scores."""


@dataclass(frozen=True)
class Budget:
    """How many labels: a share of the training patients, or a number of them.

    Attributes:
        fraction: Share, 0 to 1.
        patients: Number; one of the two is None.
    """

    fraction: float | None = None
    patients: int | None = None

    @property
    def name(self) -> str:
        """What a report calls it, such as ``10 %`` or ``3 patients``."""
        if self.fraction is not None:
            return f"{100 * self.fraction:g} %"
        return "1 patient" if self.patients == 1 else f"{self.patients} patients"

    @property
    def folder(self) -> str:
        """Name of the folder of its runs."""
        return f"{self.fraction:g}" if self.fraction is not None else f"{self.patients}_patients"

    def of(self, training_patients: int) -> float:
        """Return it as a share of the training patients; above 1 if there are not as many."""
        if self.fraction is not None:
            return self.fraction
        return (self.patients or 0) / training_patients


@dataclass(frozen=True)
class Cell:
    """One run of a study; ``fold`` is None where the data's own split is kept."""

    task: str
    start: str
    budget: Budget
    fold: int | None
    seed: int

    @property
    def run(self) -> str:
        """Name of fold and seed: what runs of different starts share."""
        return f"{self.seed}" if self.fold is None else f"fold{self.fold}_{self.seed}"

    def folder(self, out: Path) -> Path:
        """Return where the run lies."""
        return out / "runs" / self.task / self.start / self.budget.folder / self.run

    def scores(self, out: Path) -> Path:
        """Return the file that is there when the run is finished, and never before."""
        return self.folder(out) / SCORES

    def __str__(self) -> str:
        """Return what a log line says of it."""
        fold = "" if self.fold is None else f", fold {self.fold}"
        return f"{self.task}, {self.start}, {with_labels(self.budget.name)}{fold}, seed {self.seed}"


def with_labels(budget: str) -> str:
    """Return a budget's name in a sentence: ``10 % of the labels``, ``3 labelled patients``."""
    if budget.endswith("%"):
        return f"{budget} of the labels"
    number, patients = budget.split(maxsplit=1)
    return f"{number} labelled {patients}"


def folds_of(config: StudyConfig) -> tuple[int | None, ...]:
    """Return the folds of a study; None alone stands for the data's own split."""
    return config.folds or (None,)


def budgets_of(config: StudyConfig) -> tuple[Budget, ...]:
    """Return all label budgets that a study names, in its order, each once.

    That of the primary comparison comes first: of two that give the same patients the first is
    kept.
    """
    first = primary_budget(config)
    fractions = (Budget(fraction=value) for value in config.label_fractions)
    numbers = (Budget(patients=value) for value in config.label_patients)
    named = (*numbers, *fractions)
    return tuple(dict.fromkeys(named if first is None else (first, *named)))


def primary_budget(config: StudyConfig) -> Budget | None:
    """Return the budget of the primary comparison; None where none is named."""
    primary = config.primary
    return None if primary is None else Budget(primary.fraction, primary.patients)


def cells_of(config: StudyConfig, budgets: Mapping[str, Sequence[Budget]]) -> Iterator[Cell]:
    """Yield every run in the order in which they are to be done.

    Args:
        config: The study.
        budgets: Task -> the budgets it can have, rising.
    """
    first = primary_budget(config)
    for seed in dict.fromkeys(config.seeds):
        for fold in dict.fromkeys(folds_of(config)):
            longest = max(map(len, budgets.values()), default=0)
            for place in range(longest):
                for task, own in budgets.items():
                    order = _most_useful_first(own, first)
                    if place < len(order):
                        for start in config.starts:
                            if config.takes_part(start, task):
                                yield Cell(task, start, order[place], fold, seed)


def _most_useful_first(budgets: Sequence[Budget], first: Budget | None) -> list[Budget]:
    """Put the primary budget (else the smallest) first and the largest second."""
    front = [budget for budget in budgets if budget == first] or budgets[:1]
    return list(dict.fromkeys([*front, *budgets[-1:], *budgets]))


def before(config: StudyConfig, cell: Cell, budgets: Sequence[Budget]) -> Cell | None:
    """Return the run whose model chooses the labelled patients of a run; None where chance does.

    Args:
        config: The study.
        cell: A run.
        budgets: Those of its task, rising.
    """
    place = list(budgets).index(cell.budget)
    if config.starts[cell.start].select is None or place == 0:
        return None
    return replace(cell, budget=budgets[place - 1])
