"""What the weights of a study's starts have learnt of its tasks before the first run.

Looked at beforehand: ``vismae evaluate`` refuses patients that a model has learnt from, but a run
comes there at its end, and the label budgets know nothing of labels that a start has seen earlier.
"""

from pathlib import Path

from vismae.core.config import FinetuneConfig
from vismae.core.errors import DataError, ModelError
from vismae.data.cases import fitting_cases
from vismae.data.fingerprint import FINGERPRINT_COLUMNS, WITHHELD, overlap
from vismae.data.splits import patients_of, read_patients_csv
from vismae.data.store import Store
from vismae.models.weights import CARD_FILE, read_card
from vismae.workflows.case_selection import seen_rows
from vismae.workflows.label_study.tasks import PreparedTask
from vismae.workflows.task_data import divide_task

_NAMED = 5


def require_unseen_tests(
    start: str, init: Path | None, task: PreparedTask, run: FinetuneConfig
) -> None:
    """Refuse weights that have learnt from images of test patients: no run could be scored.

    By the same pixels alone, which are certain. Weights without a ``model.json`` that can be read
    say nothing of what they have learnt from, and are not looked at.

    Args:
        start: Name of the start.
        init: Its weights.
        task: Whose patients.
        run: Settings of a run of the task.

    Raises:
        DataError: Names the patients, and what to do.
    """
    seen, tested = _known(init, task, run, "test")
    if seen:
        named = ", ".join(seen[:_NAMED]) + (" …" if len(seen) > _NAMED else "")
        raise DataError(
            f"Task '{task.name}', start '{start}': {init} has learnt from images of {len(seen)} of "
            f"the {tested} test patients or groups ({named}), so none of its runs could be scored. "
            "Train it anew without them (vismae pretrain leaves out rows whose column split is "
            "test or val), give other weights, or name the tasks that it takes part in "
            f"(starts.{start}.tasks)."
        )


def labels_known(start: str, init: Path | None, task: PreparedTask, run: FinetuneConfig) -> str:
    """Say of how many training patients a start may know the labels; empty where of none.

    See ``require_unseen_tests`` for the arguments.
    """
    known, training = _known(init, task, run, "train", "finetune")
    if not known:
        return ""
    return (
        f"{task.name}: the weights of '{start}' had been fine-tuned before on images of "
        f"{len(known)} of the {training} training patients or groups. If that was with the labels "
        "of this task, its label budgets do not count them, and what is said of labels that "
        f"'{start}' saves does not hold."
    )


def _known(
    init: Path | None, task: PreparedTask, run: FinetuneConfig, split: str, stage: str = ""
) -> tuple[list[str], int]:
    """Return whose images weights have learnt from in stages of a kind, and among how many."""
    if init is None or not (init / CARD_FILE).is_file():
        return [], 0
    try:
        learnt = read_card(init).training
    except ModelError:  # a run says so itself, and the others go on
        return [], 0
    fold, address = next(iter(task.stores.items()))
    store = Store(address)
    sequences = run.model.sequences
    usable = fitting_cases(store, sequences)[0] if sequences else None
    rows, splits = divide_task(store, run.model_copy(update={"fold": fold}), usable)
    unscored = read_patients_csv(task.twins) if task.twins else set[str]()
    patients = set(patients_of(splits, [split])) - unscored
    chosen = rows.index[rows["patient_id"].astype(str).isin(patients)].to_numpy()
    images = store.columns(list(FINGERPRINT_COLUMNS), seen_rows(store, sequences, chosen))
    found = {
        name
        for at, part in learnt.items()
        # What a model had learnt before its last training is kept as "earlier finetune".
        if at.endswith(stage) and not at.endswith(WITHHELD)
        for name in overlap(part, images).same_pixels
    }
    return sorted(found), len(patients)
