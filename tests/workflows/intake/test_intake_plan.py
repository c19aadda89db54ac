import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from vismae.data.manifest import FileReference, ManifestRow
from vismae.files.dicom_identifiers import DicomIdentifiers
from vismae.files.dicom_labels import LabelObject
from vismae.workflows.intake.ledger import Identified, Ledger, Listed
from vismae.workflows.intake.plan import items_of, plan, structures
from vismae.workflows.intake.results import rejected_by_reason


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def enter(
    ledger: Ledger, names: Sequence[str], kind: str = "raster", **row: object
) -> dict[str, int]:
    """List files of one kind; return their entries."""
    ledger.list_files(
        Listed(
            0,
            ManifestRow(name, FileReference(Path("/data") / name), **row),  # type: ignore[arg-type]
            20_000,
            1,
            of_table=bool(row),
        )
        for name in names
    )
    entries = {
        Path(file.path).name: file.entry for batch in ledger.unidentified(100) for file in batch
    }
    if kind != "dicom":
        ledger.enter_identified([Identified(entry, kind) for entry in entries.values()])
    return entries


def enter_dicom(ledger: Ledger, name: str, **identifiers: object) -> None:
    entries = enter(ledger, [name], "dicom")
    found = DicomIdentifiers(**identifiers)  # type: ignore[arg-type]
    ledger.enter_identified([Identified(entries[name], "dicom", found)])


def planned(ledger: Ledger) -> list[list[str]]:
    """Return the file names of every work item, in the order of the store's rows."""
    portions = [number for (number,) in ledger.db.execute("SELECT id FROM portion ORDER BY id")]
    return [
        [Path(entry.file.path).name for entry in item.entries]
        for portion in portions
        for _, item in items_of(ledger, portion)
    ]


def finish_portions(ledger: Ledger) -> None:
    ledger.db.execute("UPDATE portion SET result = ?", (json.dumps({}),))


def test_single_files_keep_their_order_and_dicom_is_ordered_by_its_identifiers(
    ledger: Ledger,
) -> None:
    enter_dicom(ledger, "z", patient="A", series="1.2", instance="1.2.2")
    enter_dicom(ledger, "y", patient="B", series="1.1", instance="1.1.1")
    enter(ledger, ["b", "a"])
    enter_dicom(ledger, "x", patient="A", series="1.2", instance="1.2.1")
    enter_dicom(ledger, "cine", patient="A", series="1.2", instance="1.2.0", frames=30)
    enter_dicom(ledger, "lone", patient="A")

    plan(ledger)

    assert planned(ledger) == [["b"], ["a"], ["lone"], ["x", "z"], ["cine"], ["y"]]


def test_the_parts_of_a_divided_object_are_read_together(ledger: Ledger) -> None:
    of_series = {"patient": "A", "series": "1.2"}
    for name, uid, frames in (("a2", "9.1", 30), ("b1", "9.2", 30), ("a1", "9.1", 1)):
        parts = {"concatenation": uid, "frames": frames, "instance": f"5.{name}"}
        enter_dicom(ledger, name, **of_series, **parts)
    enter_dicom(ledger, "slice2", **of_series, instance="4.2")
    enter_dicom(ledger, "slice1", **of_series, instance="4.1")
    enter_dicom(ledger, "other", patient="B", series="1.2", concatenation="9.1", frames=30)

    plan(ledger)

    assert planned(ledger) == [["slice1", "slice2"], ["a1", "a2"], ["b1"], ["other"]]


def test_rows_of_a_volume_are_read_together_and_patients_are_never_mixed(ledger: Ledger) -> None:
    enter(ledger, ["p1"], volume_id="ED", patient_id="1")
    enter(ledger, ["alone"])
    enter(ledger, ["q1"], volume_id="ED", patient_id="2")
    enter(ledger, ["p2"], volume_id="ED", patient_id="1")

    plan(ledger)

    assert planned(ledger) == [["alone"], ["p1", "p2"], ["q1"]]


def test_what_comes_later_stands_behind_what_was_planned_before(ledger: Ledger) -> None:
    enter(ledger, ["m"])
    plan(ledger)
    finish_portions(ledger)
    enter(ledger, ["a"])
    plan(ledger)

    assert planned(ledger) == [["m"], ["a"]]


def test_portions_end_at_their_size_but_never_within_a_series(ledger: Ledger) -> None:
    for number in range(40):
        enter_dicom(
            ledger,
            f"{number:02d}",
            patient=f"{number // 4:02d}",
            series="1",
            instance=f"{number:02d}",
            pixel_bytes=2 * 2**20,
        )

    plan(ledger)

    rows = ledger.db.execute("SELECT first_item, last_item, pixel_bytes FROM portion").fetchall()
    assert [size for *_, size in rows] == [8 * 2**20] * 10
    assert [len(item) for item in planned(ledger)] == [4] * 10


def test_one_object_in_two_places_has_two_names(ledger: Ledger) -> None:
    for name in ("first", "second"):
        enter_dicom(ledger, name, patient="A", series="1", instance="1.1", frames=9)

    plan(ledger)

    items = [item for _, item in items_of(ledger, 1)]
    assert [item.entries[0].copy for item in items] == [0, 1]


def seg(series: str, *names: str) -> LabelObject:
    return LabelObject("seg", (series,), None, names)


def test_label_objects_go_to_the_series_they_speak_of(ledger: Ledger) -> None:
    enter_dicom(ledger, "image", patient="A", series="1", instance="1.1")
    enter_dicom(ledger, "other", patient="A", series="2", instance="2.1")
    enter_dicom(ledger, "labels", patient="A", instance="9", labels=seg("1", "liver", "aorta"))
    enter_dicom(ledger, "lost", patient="A", instance="8", labels=seg("77", "tumour"))

    plan(ledger)

    items = {
        item.entries[0].file.path.name: [label.file.path.name for label in item.labels]
        for _, item in items_of(ledger, 1)
    }
    assert items == {"image": ["labels"], "other": []}
    assert rejected_by_reason(ledger) == {"label-without-image": 1}
    assert structures(ledger) == {"aorta": 1, "liver": 2}


def test_labels_that_come_after_their_images_are_left_out_and_numbers_stay(ledger: Ledger) -> None:
    enter_dicom(ledger, "image", patient="A", series="1", instance="1.1")
    enter_dicom(ledger, "labels", patient="A", instance="9", labels=seg("1", "liver"))
    plan(ledger)
    finish_portions(ledger)
    enter_dicom(ledger, "late", patient="A", instance="10", labels=seg("1", "aorta"))
    plan(ledger)

    assert rejected_by_reason(ledger) == {"label-late": 1}
    assert structures(ledger) == {"liver": 1}

    enter_dicom(ledger, "new", patient="A", series="2", instance="2.1")
    enter_dicom(ledger, "labels 2", patient="A", instance="11", labels=seg("2", "aorta", "liver"))
    plan(ledger)

    assert structures(ledger) == {"liver": 1, "aorta": 2}


def test_a_series_over_several_sources_is_read_in_one_go(ledger: Ledger) -> None:
    for source, name in enumerate(["x", "y", "z"]):
        row = ManifestRow(f"{source}/{name}", FileReference(Path("/data") / name))
        found = DicomIdentifiers(patient="A", series="1", instance=f"1.{source}")
        ledger.list_files([Listed(source, row, 100, 1, identifiers=found)])

    plan(ledger)

    assert planned(ledger) == [["x", "y", "z"]]


def test_what_a_table_says_of_a_series_is_kept_apart_from_the_same_series_in_a_folder(
    ledger: Ledger,
) -> None:
    for number, (source, label) in enumerate([(0, None), (0, "ill"), (1, None), (2, None)]):
        name = f"{source}/{number}"
        row = ManifestRow(name, FileReference(Path("/data") / name), label=label)
        found = DicomIdentifiers(patient="A", series="1", instance=f"1.{number}")
        ledger.list_files([Listed(source, row, 100, 1, identifiers=found)])

    plan(ledger)

    assert planned(ledger) == [["2", "3"], ["0", "1"]]


def test_an_object_that_came_before_is_counted_and_named(ledger: Ledger) -> None:
    enter_dicom(ledger, "first", patient="A", series="1", instance="1.1")
    plan(ledger)
    finish_portions(ledger)
    ledger.db.execute("INSERT INTO image SELECT 'id', id FROM entry")
    enter_dicom(ledger, "second", patient="A", series="1", instance="1.1")
    enter_dicom(ledger, "third", patient="A", series="1", instance="1.2")

    plan(ledger)

    [(_, item)] = list(items_of(ledger, 2))
    found = [(entry.copy, entry.stored and entry.stored.path.name) for entry in item.entries]
    assert found == [(1, "first"), (0, None)]
