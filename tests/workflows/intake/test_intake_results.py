from pathlib import Path

import pytest

from vismae.data.manifest import FileReference, ManifestRow
from vismae.files.dicom_identifiers import DicomIdentifiers
from vismae.files.dicom_labels import LabelObject
from vismae.workflows.intake.identity import Identity
from vismae.workflows.intake.ledger import Ledger, Listed
from vismae.workflows.intake.plan import items_of, plan
from vismae.workflows.intake.portion import PartSettings, PortionResult, PortionTask
from vismae.workflows.intake.records import ReadSettings
from vismae.workflows.intake.results import enter_result, rejected_by_reason
from vismae.workflows.intake.work import Rejection

BESIDE = Rejection("/data/labels", "label-geometry", "it lies beside them")


def two_portions_of_one_label(ledger: Ledger, folder: Path) -> tuple[list[PortionTask], int]:
    """Plan two series, each a portion, with a label file that speaks of both."""
    found = {
        "one": DicomIdentifiers("A", series="1", instance="1.1", pixel_bytes=2**26),
        "two": DicomIdentifiers("A", series="2", instance="2.1", pixel_bytes=2**26),
        "labels": DicomIdentifiers(
            "A", instance="9", labels=LabelObject("seg", ("1", "2"), None, ("liver",))
        ),
    }
    for name, identifiers in found.items():
        row = ManifestRow(name, FileReference(Path("/data") / name))
        ledger.list_files([Listed(0, row, 2**26, 1, identifiers=identifiers)])
    plan(ledger)
    read = ReadSettings(Identity(b"salt"))
    tasks = [
        PortionTask(number, tuple(items_of(ledger, number)), read, PartSettings(folder))
        for number in (1, 2)
    ]
    return tasks, tasks[0].items[0][1].labels[0].number


@pytest.mark.parametrize(
    ("outcomes", "left_out"),
    [
        ((BESIDE, None), {}),
        ((None, BESIDE), {}),
        ((None, None), {}),
        ((BESIDE, BESIDE), {"label-geometry": 1}),
    ],
)
def test_labels_are_left_out_only_if_they_fit_none_of_their_series(
    tmp_path: Path, outcomes: tuple[Rejection | None, ...], left_out: dict[str, int]
) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        tasks, label = two_portions_of_one_label(ledger, tmp_path)

        for task, outcome in zip(tasks, outcomes, strict=True):
            enter_result(ledger, task, PortionResult(task.number, None, labels=[(label, outcome)]))

        assert rejected_by_reason(ledger) == left_out
        rows = ledger.db.execute("SELECT entry FROM rejected").fetchall()
        assert rows == [(label,)] * len(left_out)
