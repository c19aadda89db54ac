import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from vismae.core.errors import DataError
from vismae.core.types import Spacing
from vismae.data.manifest import FileReference, ManifestRow
from vismae.workflows.intake.ledger import Identified, Ledger, Listed
from vismae.workflows.intake.plan import items_of, plan
from vismae.workflows.intake.work import Rejection


def listed(name: str, size: int = 10, **row: object) -> Listed:
    image = FileReference(Path("/data") / name)
    return Listed(0, ManifestRow(name, image, **row), size, 1)  # type: ignore[arg-type]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def identify_all(ledger: Ledger) -> None:
    for batch in ledger.unidentified(100):
        ledger.enter_identified([Identified(file.entry, "raster") for file in batch])


def test_the_ledger_is_readable_for_its_owner_alone(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.set_fact("a", "b")
        modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert {stat.S_IMODE(mode) for mode in modes.values()} == {0o600}


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.set_fact("version", "1")
    with pytest.raises(DataError, match=r"another version of vismae.*--overwrite"):
        Ledger(tmp_path / "ledger.sqlite")


def test_files_are_listed_once_and_changes_of_stored_ones_are_counted(ledger: Ledger) -> None:
    first = ledger.list_files([listed("a"), listed("b")])
    identify_all(ledger)
    plan(ledger)
    again = ledger.list_files([listed("a"), listed("b", size=11), listed("c")])

    assert (first.new, first.known, first.changed) == (2, 0, 0)
    assert (again.new, again.known, again.changed) == (1, 1, 1)


def test_a_mended_file_that_was_left_out_is_looked_at_again(ledger: Ledger) -> None:
    ledger.list_files([listed("a")])
    [[file]] = list(ledger.unidentified(10))
    ledger.reject(file.entry, Rejection("/data/a", "truncated", "ends too early"))
    assert list(ledger.unidentified(10)) == []

    same = ledger.list_files([listed("a")])
    mended = ledger.list_files([listed("a", size=99)])

    assert (same.known, mended.new) == (1, 1)
    assert [len(batch) for batch in ledger.unidentified(10)] == [1]


def test_reasons_that_may_have_passed_are_forgotten_alone(ledger: Ledger) -> None:
    ledger.list_files([listed("a"), listed("b")])
    [files] = list(ledger.unidentified(10))
    ledger.reject(files[0].entry, Rejection("/data/a", "unreadable", "no permission"))
    ledger.reject(files[1].entry, Rejection("/data/b", "truncated", "ends too early"))

    ledger.forget_rejections(["unreadable"])

    assert [[file.path for file in batch] for batch in ledger.unidentified(10)] == [["/data/a"]]


def test_a_listing_that_fails_leaves_nothing_behind(ledger: Ledger) -> None:
    def files():
        yield listed("a")
        raise DataError("the table has a bad line")

    with pytest.raises(DataError, match="bad line"):
        ledger.list_files(files())
    assert list(ledger.unidentified(10)) == []


def test_everything_a_table_says_comes_back(ledger: Ledger) -> None:
    row = ManifestRow(
        name="src/caf\udce9.png",
        image=FileReference(Path("/d/caf\udce9.zip"), "in/caf\udce9.png"),
        label_map=FileReference(Path("/d/m.zip"), "m.png"),
        label="a|b",
        patient_id="P1",
        group_kind="patient",
        volume_id="V",
        slice_index=3,
        spacing=Spacing(None, 0.5, 0.25),
        modality="CT",
        split="train",
        extra={"site": "north"},
    )
    ledger.list_files([Listed(0, row, 5, 1, of_table=True)])
    identify_all(ledger)
    plan(ledger)

    [(_, item)] = list(items_of(ledger, 1))

    assert item.entries[0].row == row
    assert item.entries[0].file.name == "/d/caf\udce9.zip!in/caf\udce9.png"


def test_another_versions_ledger_is_refused(tmp_path: Path) -> None:
    Ledger(tmp_path / "l").set_fact("version", "99")
    with pytest.raises(DataError, match="another version"):
        Ledger(tmp_path / "l")
    (tmp_path / "m").write_bytes(b"this is no database, but long enough to look at" * 9)
    with pytest.raises(DataError, match="damaged"):
        Ledger(tmp_path / "m")


def test_a_transaction_is_all_or_nothing(ledger: Ledger) -> None:
    def write_half() -> None:
        with ledger.transaction():
            ledger.set_fact("kept", "no")
            ledger.db.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(sqlite3.Error):
        write_half()
    assert ledger.fact("kept") is None


def test_sources_keep_their_numbers(ledger: Ledger) -> None:
    assert [ledger.source_number(name) for name in ("b", "a", "b")] == [0, 1, 0]


def test_rows_are_compared_with_what_the_table_said_before(ledger: Ledger) -> None:
    ledger.list_files([listed("a", label="x")])
    identify_all(ledger)
    plan(ledger)

    found = listed("a", label="x")
    assert ledger.list_files([found]).known == 1
    relabelled = replace(found, row=replace(found.row, label="y"))
    assert ledger.list_files([relabelled]).changed == 1
