"""What became of portions: results kept in the ledger, and the tables written from it."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vismae.core.errors import DataError
from vismae.core.intake_account import IntakeAccount
from vismae.data.store_format import MANIFEST_NAME, read_manifest
from vismae.data.store_part_writer import Part, part_path
from vismae.workflows.intake.identity import Identity
from vismae.workflows.intake.ledger import Ledger
from vismae.workflows.intake.portion import PortionResult, PortionTask
from vismae.workflows.intake.work import Entry, LabelFile, Rejection, meanings

SOURCES_NAME = "sources.csv"
PRIVATE_REJECTED_NAME = "rejected.csv"
_LEFT_OUT = (
    "SELECT path, reason, message FROM rejected"
    " UNION ALL SELECT path, reason, message FROM unused_label_map"
)


def open_portions(ledger: Ledger) -> list[tuple[int, int]]:
    """Return number and pixel bytes of the portions that still have to be read."""
    return list(
        ledger.db.execute("SELECT id, pixel_bytes FROM portion WHERE result IS NULL ORDER BY id")
    )


def enter_result(ledger: Ledger, task: PortionTask, result: PortionResult) -> None:
    """Remember a portion as done, with what was left out of it."""
    entries = {entry.file.name: entry.number for _, item in task.items for entry in item.entries}
    kept = {
        "part": None if result.part is None else asdict(result.part),
        "account": result.account.to_json(),
    }
    with ledger.transaction():
        ledger.db.execute(
            "UPDATE portion SET result = ? WHERE id = ?", (json.dumps(kept), result.number)
        )
        ledger.db.executemany("INSERT INTO image VALUES (?, ?)", result.images)
        for found in result.rejected:
            ledger.enter_rejection(entries.get(found.path), found)
        for entry, why in result.label_maps:
            ledger.enter_unused_label_map(entry, why)
        for label, why_not in result.labels:
            _enter_label(ledger, label, why_not)


def _enter_label(ledger: Ledger, entry: int, why_not: Rejection | None) -> None:
    """Leave a label file out unless it was drawn on one of its images, in this portion or not."""
    if why_not is None:
        ledger.db.execute("DELETE FROM rejected WHERE entry = ?", (entry,))
        ledger.db.execute("UPDATE entry SET state = 'drawn' WHERE id = ?", (entry,))
        return
    (state,) = ledger.db.execute("SELECT state FROM entry WHERE id = ?", (entry,)).fetchone()
    if state == "planned":
        ledger.enter_rejection(entry, why_not)


def reject_files(
    ledger: Ledger, files: Sequence[Entry | LabelFile], reason: str, message: str
) -> None:
    """Leave out files of a work item because its reader did not survive them."""
    with ledger.transaction():
        for found in files:
            name = found.file.name
            ledger.enter_rejection(found.number, Rejection(name, reason, f"{name}: {message}"))
            ledger.db.execute("UPDATE entry SET item = NULL WHERE id = ?", (found.number,))
            ledger.db.execute("DELETE FROM label_item WHERE entry = ?", (found.number,))


def leave_out_label_maps(
    ledger: Ledger, entries: Sequence[Entry], reason: str, message: str
) -> None:
    """Leave out the label maps of images because their reader did not survive them."""
    with ledger.transaction():
        for entry in entries:
            if (reference := entry.row.label_map) is not None:
                why = Rejection(reference.text, reason, f"{reference.text}: {message}")
                ledger.enter_unused_label_map(entry.number, why)


def reopen_lost_parts(ledger: Ledger, store: Path) -> int:
    """Let portions be read again whose part is neither in the store nor waiting to come in.

    Returns:
        How many.

    Raises:
        DataError: A shard of the finished store is gone.
    """
    stored: set[str] = set()
    if (store / MANIFEST_NAME).is_file():
        stored = {shard["file"] for shard in read_manifest(store)["shards"]}
    for file in sorted(stored):
        if not (store / file).is_file():
            raise DataError(
                f"{store / file} is gone. Put it back from a copy, or ingest again with "
                "--overwrite."
            )
    lost = [number for number, result in _results(ledger) if _is_lost(result, store, stored)]
    with ledger.transaction():
        for number in lost:
            items = "item BETWEEN (SELECT first_item FROM portion WHERE id = ?)"
            items += " AND (SELECT last_item FROM portion WHERE id = ?)"
            of_portion = f"(SELECT id FROM entry WHERE {items})"
            for table in ("image", "rejected", "unused_label_map"):
                ledger.db.execute(
                    f"DELETE FROM {table} WHERE entry IN {of_portion}", (number, number)
                )
            ledger.db.execute(f"UPDATE entry SET state = 'planned' WHERE {items}", (number, number))
            ledger.db.execute("UPDATE portion SET result = NULL WHERE id = ?", (number,))
    return len(lost)


def _is_lost(result: dict[str, Any], store: Path, stored: set[str]) -> bool:
    if result["part"] is None:
        return False
    shards = {shard["file"] for shard in result["part"]["shards"]}
    if shards & stored:
        return False
    index = part_path(store, result["part"]["name"])
    return not (index.is_file() and all((store / file).is_file() for file in shards))


def parts(ledger: Ledger) -> Iterator[Part]:
    """Yield the parts of the store in the order of its rows."""
    for _, result in _results(ledger):
        if result["part"] is not None:
            yield Part.from_json(result["part"])


def account(ledger: Ledger) -> IntakeAccount:
    """Return what came in and what did not, over all portions."""
    total = IntakeAccount()
    for _, result in _results(ledger):
        total = total + IntakeAccount.from_json(result["account"])
    files = ledger.db.execute(
        "SELECT count(*), coalesce(sum(size), 0) FROM entry WHERE state != 'opened'"
    ).fetchone()
    # Label maps are files too, but only those that are not used are counted by themselves.
    (unlisted,) = ledger.db.execute(
        "SELECT (SELECT count(*) FROM rejected WHERE entry IS NULL)"
        " + (SELECT count(DISTINCT path) FROM unused_label_map)"
    ).fetchone()
    return total.with_files(files[0] + unlisted, files[1], rejected_by_reason(ledger))


def rejected_by_reason(ledger: Ledger) -> dict[str, int]:
    """Return reason code -> files left out, the commonest first."""
    rows = ledger.db.execute(
        f"SELECT reason, count(DISTINCT path) AS files FROM ({_LEFT_OUT}) GROUP BY reason"
        " ORDER BY files DESC, reason"
    )
    return dict(rows)


def write_rejected(ledger: Ledger, public: Path, private: Path, identity: Identity) -> None:
    """Write what was left out: without paths into the store, with them into the private folder."""
    with (
        _table(public, ["file", "reason", "meaning"], 0o644) as open_table,
        _table(private, ["file", "path", "reason", "message"], 0o600) as secret_table,
    ):
        meaning = meanings()
        rows = ledger.db.execute(
            f"SELECT DISTINCT path, reason, message FROM ({_LEFT_OUT}) ORDER BY path, reason"
        )
        for path, reason, message in rows:
            file = identity.pseudonym("file", os.fsdecode(path))
            open_table.writerow([file, reason, meaning[reason]])
            secret_table.writerow([file, os.fsdecode(path), reason, os.fsdecode(message)])


def write_sources(ledger: Ledger, path: Path) -> None:
    """Write which file every image came from."""
    with _table(path, ["image_id", "source"], 0o600) as table:
        rows = ledger.db.execute(
            "SELECT image_id, path, member FROM image JOIN entry ON entry = id ORDER BY image.rowid"
        )
        for image_id, file, member in rows:
            inside = "" if member is None else f"!{os.fsdecode(member)}"
            table.writerow([image_id, os.fsdecode(file) + inside])


@contextmanager
def _table(path: Path, columns: Sequence[str], mode: int) -> Iterator[Any]:
    """Write a csv table that takes its place only when it is whole."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    # Names that are not UTF-8 keep their bytes.
    with os.fdopen(descriptor, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        yield writer
    unfinished.replace(path)


def _results(ledger: Ledger) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = ledger.db.execute(
        "SELECT id, result FROM portion WHERE result IS NOT NULL ORDER BY id"
    ).fetchall()
    for number, result in rows:
        yield number, json.loads(result)
