"""Entries of the ledger brought up to where their files lie now."""

import json
import os
import sqlite3
from pathlib import Path

from vismae.data.manifest import FileReference


def follow_move(db: sqlite3.Connection, entry: int, now: FileReference) -> str:
    """Write down where the file of an entry lies now, with its label map and archive members.

    The messages of what was left out of it follow too.

    Args:
        db: The open ledger, within a transaction.
        entry: Number of the entry.
        now: Where the file was found.

    Returns:
        The entry's table row, whose label map went along with the file.
    """
    name, path, row = db.execute(
        "SELECT name, path, row FROM entry WHERE id = ?", (entry,)
    ).fetchone()
    before = Path(os.fsdecode(path))
    facts = json.loads(row)
    if "label_map" in facts:
        beside, member = facts["label_map"]
        moved = str(moved_beside(Path(beside), before, now.path))
        facts["label_map"] = [moved, member]
        row = json.dumps(facts, sort_keys=True)
        _rename(db, "unused_label_map", entry, os.fsencode(beside), os.fsencode(moved))
    new_path = os.fsencode(now.path)
    inside = None if now.member is None else os.fsencode(now.member)
    db.execute(
        "UPDATE entry SET path = ?, member = ?, row = ? WHERE id = ?",
        (new_path, inside, row, entry),
    )
    # Members bear the archive's name and a "!", which the quotation mark follows in the order.
    members = db.execute(
        "SELECT id FROM entry WHERE name > ? AND name < ? AND path = ?",
        (name + b"!", name + b'"', path),
    ).fetchall()
    db.executemany("UPDATE entry SET path = ? WHERE id = ?", [(new_path, of) for (of,) in members])
    for (of,) in [(entry,), *members]:
        _rename(db, "rejected", of, path, new_path)
    return row


def _rename(db: sqlite3.Connection, table: str, entry: int, before: bytes, now: bytes) -> None:
    left_out = db.execute(
        f"SELECT rowid, path, message FROM {table} WHERE entry = ?", (entry,)
    ).fetchall()
    db.executemany(
        f"UPDATE {table} SET path = ?, message = ? WHERE rowid = ?",
        [
            (place.replace(before, now, 1), message.replace(before, now, 1), number)
            for number, place, message in left_out
        ],
    )


def moved_beside(path: Path, before: Path, now: Path) -> Path:
    """Return where a path lies after ``before`` became ``now`` along with all around it.

    The parts that both end with are taken for what was moved; a path outside of it stays.
    """
    shared = 0
    for old, new in zip(reversed(before.parts), reversed(now.parts), strict=False):
        if old != new:
            break
        shared += 1
    above = before.parts[: len(before.parts) - shared]
    if path.parts[: len(above)] != above:
        return path
    return Path(*now.parts[: len(now.parts) - shared], *path.parts[len(above) :])
