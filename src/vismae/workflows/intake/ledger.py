"""The ledger: which files were found, what they are, and what became of them (SQLite).

It lies in ``STORE.private/``, holds the only source paths, and makes an ingest resumable: a file
is listed, then identified, then planned into a work item of a portion, then stored or rejected.
Nothing here is held in memory, so an archive may have any size.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vismae.core.errors import DataError
from vismae.data.manifest import ManifestRow
from vismae.files.dicom_identifiers import DicomIdentifiers
from vismae.files.dicom_labels import LabelObject
from vismae.workflows.intake.entry_facts import row_to_json, stored_row
from vismae.workflows.intake.ledger_tables import LATER_TABLES, TABLES
from vismae.workflows.intake.moved import follow_move
from vismae.workflows.intake.work import NewFiles, Rejection

_VERSION = "2"
_LARGEST = 2**63 - 1
# States of files that may be looked at anew, since the store has nothing of them.
_NOTHING_READ = ("listed", "known", "label", "archive", "opened", "rejected")


@dataclass(frozen=True)
class Listed:
    """A file as a walk or a table names it.

    Attributes:
        source: Number of the source.
        row: What is said of it; ``row.name`` is its stable, unique name.
        size, change_mark: Bytes, and a number that is another one when the content is.
        of_table: A table names this very file, so that ``volume_id`` speaks of it (and not of
            the folder it was found in).
        identifiers: Of a DICOM object that is known without being opened.
        rejection: Why there is no file; the row keeps its place in the volume of its table.
        earlier: Sizes and change_marks under which a ledger may know it that was begun earlier;
            see ``FoundFile``.
    """

    source: int
    row: ManifestRow
    size: int
    change_mark: int
    of_table: bool = False
    identifiers: DicomIdentifiers | None = None
    rejection: Rejection | None = None
    earlier: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Unidentified:
    """An entry of the ledger whose content has not been looked at.

    ``row`` is its table row where that gives it a label map.
    """

    entry: int
    path: str
    member: str | None
    row: ManifestRow | None = None


@dataclass(frozen=True)
class Identified:
    """What a file turned out to be; ``archive`` for one that holds further files.

    ``classes`` are those that its label map names.
    """

    entry: int
    kind: str
    identifiers: DicomIdentifiers = field(default_factory=DicomIdentifiers)
    classes: tuple[str, ...] = ()


class Ledger:
    """The open ledger of one store; every method is one transaction.

    ``plan.py`` and ``progress.py`` work on its tables too.

    Args:
        path: The SQLite file, made if missing, readable for its owner only.

    Raises:
        DataError: It is no ledger, or another version's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        fresh = not path.exists()
        if fresh:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        self.db = sqlite3.connect(path, isolation_level=None)
        try:
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.execute("PRAGMA synchronous=NORMAL")
            if fresh:
                self.db.executescript(TABLES)
                self.set_fact("version", _VERSION)
            self.db.executescript(LATER_TABLES)
            version = self.fact("version")
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{path} is damaged ({error}). Ingest again with --overwrite."
            ) from error
        if version != _VERSION:
            raise DataError(
                f"{path} was written by another version of vismae. Ingest again with --overwrite."
            )

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all that is done inside, or nothing of it."""
        self.db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def fact(self, name: str) -> str | None:
        """Return a named text, or None."""
        found = self.db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return None if found is None else found[0]

    def set_fact(self, name: str, value: str) -> None:
        """Remember a named text."""
        self.db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))

    def source_numbers(self) -> dict[str, int]:
        """Return the names of all sources with their numbers."""
        return json.loads(self.fact("sources") or "{}")

    def source_number(self, name: str) -> int:
        """Return the number of a source, given in the order in which sources are first named."""
        numbers = self.source_numbers()
        number = numbers.setdefault(name, len(numbers))
        self.set_fact("sources", json.dumps(numbers))
        return number

    # Listing

    def list_files(
        self, files: Iterable[Listed | Rejection], within: int | None = None
    ) -> NewFiles:
        """Enter files that are not there yet; one that was left out and has changed comes again.

        Args:
            files: What was found.
            within: Entry of the archive that they are members of; what is left out is itself.
        """
        counts = {"new": 0, "known": 0, "changed": 0}
        with self.transaction():
            for found in files:
                if isinstance(found, Rejection):
                    self.enter_rejection(within, found)
                elif found.rejection is not None:
                    self._list_absent(found, found.rejection)
                else:
                    counts[self._list(found)] += 1
        return NewFiles(**counts)

    def _list_absent(self, found: Listed, why: Rejection) -> None:
        before = self.db.execute(
            "SELECT id, state FROM entry WHERE name = ?", (as_blob(found.row.name),)
        ).fetchone()
        entry, state = before or (self._add(found, 0), "listed")
        # What was read while the file was there stays in the store.
        self.enter_rejection(entry if state in _NOTHING_READ else None, why)

    def _add(self, found: Listed, mark: int) -> int:
        row, image = found.row, found.row.image
        place = (as_blob(row.name), as_blob(image.path), as_blob(image.member))
        added = self.db.execute(
            "INSERT INTO entry (source, name, path, member, size, changed_ns, row, volume,"
            " state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'listed')",
            (found.source, *place, found.size, mark, row_to_json(row), _volume_key(found)),
        )
        return int(added.lastrowid or 0)

    def _list(self, found: Listed) -> str:
        row, image = found.row, found.row.image
        # File systems know times beyond the year 2262, which SQLite's numbers do not.
        mark = max(-_LARGEST, min(found.change_mark, _LARGEST))
        facts = row_to_json(row)
        before = self.db.execute(
            "SELECT id, path, member, size, changed_ns, row, state FROM entry WHERE name = ?",
            (as_blob(row.name),),
        ).fetchone()
        if before is None:
            entry = self._add(found, mark)
            if found.identifiers is not None:
                self._enter_identified(Identified(entry, "dicom", found.identifiers))
            return "new"
        entry, path, member, size_before, mark_before, row_before, state = before
        if (path, member) != (as_blob(image.path), as_blob(image.member)):
            row_before = follow_move(self.db, entry, image)
        if (size_before, mark_before, row_before) == (found.size, mark, facts):
            return "known"
        if (size_before, mark_before) in found.earlier and row_before == facts:
            self.db.execute(
                "UPDATE entry SET size = ?, changed_ns = ? WHERE id = ?", (found.size, mark, entry)
            )
            return "known"
        if state not in _NOTHING_READ:
            return "changed"
        self.db.execute(
            "UPDATE entry SET size = ?, changed_ns = ?, row = ?, volume = ?, state = 'listed',"
            " item = NULL, place = NULL WHERE id = ?",
            (found.size, mark, facts, _volume_key(found), entry),
        )
        for table in ("rejected", "unused_label_map"):
            self.db.execute(f"DELETE FROM {table} WHERE entry = ?", (entry,))
        # The members of an archive are compared one by one when it is entered again.
        return "known" if state == "opened" else "new"

    def forget_rejections(self, reasons: Sequence[str]) -> None:
        """Let files be looked at again that were left out for a reason that may have passed.

        Also drops the rejections of files that were never entered: listing finds them again.
        """
        marks = ", ".join("?" * len(reasons))
        with self.transaction():
            self.db.execute(
                "UPDATE entry SET state = 'listed', item = NULL, place = NULL WHERE id IN"
                f" (SELECT entry FROM rejected WHERE reason IN ({marks}))",
                reasons,
            )
            self.db.execute(
                f"DELETE FROM rejected WHERE reason IN ({marks}) OR entry IS NULL", reasons
            )

    # Identifying

    def unidentified(self, batch: int) -> Iterator[list[Unidentified]]:
        """Yield the files not looked at yet in the order of their entry."""
        last = 0
        while True:
            rows = self.db.execute(
                "SELECT id, path, member, name, row FROM entry WHERE state = 'listed' AND id > ?"
                " ORDER BY id LIMIT ?",
                (last, batch),
            ).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield [
                Unidentified(
                    entry,
                    os.fsdecode(path),
                    None if member is None else os.fsdecode(member),
                    stored_row(name, path, member, row) if '"label_map"' in row else None,
                )
                for entry, path, member, name, row in rows
            ]

    def enter_identified(self, found: Iterable[Identified]) -> None:
        """Remember what files are."""
        with self.transaction():
            for file in found:
                self._enter_identified(file)

    def _enter_identified(self, file: Identified) -> None:
        key = file.identifiers
        state = "known" if key.labels is None else "label"
        self.db.execute(
            "UPDATE entry SET state = ?, kind = ?, patient = ?, study = ?, series = ?,"
            " instance = ?, frame_of_reference = ?, frames = ?, pixel_bytes = ? WHERE id = ?",
            (
                "archive" if file.kind == "archive" else state,
                *(file.kind, key.patient, key.study, key.series, key.instance),
                *(key.frame_of_reference, key.frames, key.pixel_bytes, file.entry),
            ),
        )
        self.db.execute("DELETE FROM concatenation WHERE entry = ?", (file.entry,))
        if key.concatenation:
            part = (file.entry, key.concatenation)
            self.db.execute("INSERT INTO concatenation VALUES (?, ?)", part)
        if key.labels is not None:
            self._enter_labels(file.entry, key.labels)
        self.db.execute("DELETE FROM naming_label_map WHERE entry = ?", (file.entry,))
        if file.classes:
            self.db.execute("INSERT INTO naming_label_map VALUES (?)", (file.entry,))
            self.enter_structures(file.classes)

    def enter_structures(self, names: Iterable[str]) -> None:
        """Enter names of classes that are new; the caller holds the transaction."""
        self.db.executemany(
            "INSERT OR IGNORE INTO structure VALUES (?, NULL)", [(name,) for name in names]
        )

    def _enter_labels(self, entry: int, labels: LabelObject) -> None:
        # Where a series is named, nothing else has to tell the images.
        space = None if labels.series else labels.frame_of_reference
        self.db.execute(
            "INSERT OR REPLACE INTO label_object VALUES (?, ?, ?, ?, ?)",
            (
                *(entry, json.dumps(labels.series), json.dumps(labels.instances), space),
                json.dumps({name: name for name in labels.structures}),
            ),
        )

    def archives(self) -> list[tuple[int, int, ManifestRow]]:
        """Return entry, source and row of the archives that were not entered yet."""
        rows = self.db.execute(
            "SELECT id, source, name, path, member, row FROM entry WHERE state = 'archive'"
            " ORDER BY id"
        )
        return [(entry, source, stored_row(*rest)) for entry, source, *rest in rows]

    def has_members(self, archive: str) -> bool:
        """Tell whether files of the archive of this name were listed, now or earlier."""
        first, beyond = as_blob(f"{archive}!"), as_blob(f'{archive}"')
        found = self.db.execute(
            "SELECT 1 FROM entry WHERE name >= ? AND name < ? LIMIT 1", (first, beyond)
        )
        return found.fetchone() is not None

    def close_archive(self, entry: int, has_changes: bool) -> None:
        """Remember that an archive's members are listed, unless it was left out itself.

        One with members that changed after they were stored is entered each time, so that they
        are counted each time.
        """
        self.db.execute(
            "UPDATE entry SET state = 'opened', changed_ns = iif(?, -1, changed_ns)"
            " WHERE id = ? AND state = 'archive'",
            (has_changes, entry),
        )

    def reject(self, entry: int | None, found: Rejection) -> None:
        """Leave a file out before anything was planned for it."""
        with self.transaction():
            self.enter_rejection(entry, found)

    def enter_rejection(self, entry: int | None, found: Rejection) -> None:
        """Leave a file out; the caller holds the transaction."""
        self.db.execute(
            "INSERT INTO rejected VALUES (?, ?, ?, ?)",
            (entry, as_blob(found.path), found.reason, _message_blob(found.message)),
        )
        if entry is not None:
            self.db.execute("UPDATE entry SET state = 'rejected' WHERE id = ?", (entry,))

    def enter_unused_label_map(self, entry: int, found: Rejection) -> None:
        """Leave out the label map of an entry, which stays; the caller holds the transaction."""
        self.db.execute(
            "INSERT INTO unused_label_map VALUES (?, ?, ?, ?)",
            (entry, as_blob(found.path), found.reason, _message_blob(found.message)),
        )


def as_blob(text: str | Path | None) -> bytes | None:
    """Return text as the bytes a file system means; names need not be UTF-8."""
    return None if text is None else os.fsencode(text)


def _message_blob(message: str) -> bytes:
    """Return a message with the bytes of its paths; it may quote a header, which holds anything."""
    try:
        return os.fsencode(message)
    except UnicodeEncodeError:
        return message.encode("utf-8", "backslashreplace")


def as_text(blob: bytes | None) -> str | None:
    """Undo ``as_blob``."""
    return None if blob is None else os.fsdecode(blob)


def _volume_key(found: Listed) -> str | None:
    """Return what rows of one volume share; the patient belongs to it (``ED`` of two patients)."""
    if found.row.volume_id is None or not found.of_table:
        return None
    return json.dumps([found.row.volume_id, found.row.patient_id])
