"""The plan: which files are read together, in which order, and in which portions.

The order is that of the store's rows and does not depend on the number of workers: single files
as they were listed, then the volumes of tables, then DICOM by patient, series and instance (so
that an archive gives the same rows from a disk and from a server). What is planned later comes
after what was planned before.

A portion is what one worker turns into one part of the store, and what is lost when it dies.
"""

import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby

from vismae.core.errors import DataError
from vismae.files.reasons import Reason
from vismae.files.structure_names import TellingParts, read_telling_parts, without_parts
from vismae.workflows.intake.entry_facts import stored_row
from vismae.workflows.intake.ledger import Ledger
from vismae.workflows.intake.listing import reopen
from vismae.workflows.intake.work import Entry, IntakeReason, LabelFile, Rejection, WorkItem

_PORTIONS_WANTED = 64
_LEAST_PORTION_BYTES = 4 * 2**20
_MOST_PORTION_BYTES = 64 * 2**20
_MOST_PORTION_ITEMS = 1024
# No picture of anything is compressed to less than one part in this: a header that promises more
# is damaged, and must not keep the others from a disk that has room for them.
_MOST_UNFOLDING = 250
# Where the header does not tell the size of the pixels: compressed files unfold about so.
_UNFOLDING = 3
# Class numbers of structures where the same store also has label maps of class numbers.
_STRUCTURES_BESIDE_NUMBERS = 1001
# Files of a series that are asked for the patient, until one can be read.
_HEADERS_TRIED = 5

_DICOM_BYTES = f"max(size, min(pixel_bytes, {_MOST_UNFOLDING} * size))"
_BYTES = f"CASE WHEN kind = 'dicom' THEN {_DICOM_BYTES} ELSE {_UNFOLDING} * size END"
# Each query gives (key, entry, bytes, place) in the order of rows; neighbours of one key are one
# item. Without a place they are counted.
_SINGLE_FILES = f"""SELECT id, id, {_BYTES}, NULL FROM entry
    WHERE state = 'known' AND volume IS NULL AND kind != 'dicom' ORDER BY id"""
# Rows that were left out keep their places in the volume.
_TABLE_VOLUMES = f"""SELECT first, id, bytes, place FROM (
    SELECT id, state, {_BYTES} AS bytes, min(id) OVER of_volume AS first,
        row_number() OVER (of_volume ORDER BY id) - 1 AS place FROM entry
    WHERE volume IS NOT NULL WINDOW of_volume AS (PARTITION BY source, volume))
    WHERE state = 'known' ORDER BY first, id"""
# A series may lie in several sources, but what a table says of it holds for its own files only.
_TABLE = "CASE WHEN source IN (SELECT source FROM entry WHERE row != '{}') THEN source ELSE -1 END"
# So may the parts of a divided multi-frame object, which are read together too.
_DICOM = f"""SELECT
        CASE WHEN uid IS NOT NULL OR (series != '' AND frames = 1)
        THEN {_TABLE} || char(0) || patient || char(0) || series || char(0) || coalesce(uid, '')
        ELSE id END, id, {_BYTES}, NULL
    FROM entry LEFT JOIN concatenation ON concatenation.entry = entry.id
    WHERE state = 'known' AND volume IS NULL AND kind = 'dicom'
    ORDER BY patient, series, {_TABLE}, coalesce(uid, ''), frames > 1, instance, name"""
# One object in several work items: how many files of it stand in earlier ones. (Those within one
# item are counted, and true copies are dropped, when it is read.)
_COUNT_COPIES = """UPDATE entry SET copy = counted.earlier FROM (
        SELECT id AS counted_id, rank() OVER (
            PARTITION BY patient, series, instance ORDER BY item) - 1 AS earlier
        FROM entry WHERE kind = 'dicom' AND instance != '' AND item IS NOT NULL) AS counted
    WHERE id = counted_id AND state = 'known'"""
# Files of which the store has the object from an ingest before, with the same said of it. They are
# settled here and not when they are read, so that an interruption makes no difference.
_FIND_STORED = """INSERT OR REPLACE INTO stored_before SELECT entry.id, min(earlier.id) FROM entry
    JOIN entry AS earlier ON earlier.instance = entry.instance AND earlier.series = entry.series
        AND earlier.patient = entry.patient AND earlier.row = entry.row
    WHERE entry.state = 'known' AND entry.kind = 'dicom' AND entry.instance != ''
        AND earlier.state = 'planned' AND earlier.id IN (SELECT entry FROM image)
    GROUP BY entry.id"""

# Written so that SQLite goes through all files once, and not once for each label object: it takes
# lists (json_each) to be long enough to build an index for, and columns with a plus for no help.
_IMAGES_OF_LABELS = """SELECT label, item, result IS NULL FROM (
        SELECT DISTINCT own.id AS label, +image.item AS item FROM entry AS own
        CROSS JOIN label_object ON label_object.entry = own.id
        {} WHERE own.state = 'label' AND +image.state = 'planned')
    JOIN portion ON item BETWEEN first_item AND last_item"""
# What a label object says of its images, the best first. Programs are known to give one frame of
# reference to many patients.
_SAID_BY_LABELS = (
    "CROSS JOIN json_each(label_object.series) AS named"
    " CROSS JOIN entry AS image ON image.series = named.value",
    "CROSS JOIN json_each(label_object.instances) AS named"
    " CROSS JOIN entry AS image ON image.instance = named.value",
    "CROSS JOIN json_each(json_array(label_object.frame_of_reference)) AS named"
    " CROSS JOIN entry AS image ON image.frame_of_reference = named.value"
    " AND image.patient = own.patient",
)

logger = logging.getLogger(__name__)


def plan(ledger: Ledger) -> None:
    """Put all identified files into work items, and these into portions."""
    with ledger.transaction():
        portions = _Portions(ledger)
        for query in (_SINGLE_FILES, _TABLE_VOLUMES, _DICOM):
            # The rows' order is settled before the first one is marked: "item" decides nothing.
            for _, members in groupby(ledger.db.execute(query), key=lambda row: row[0]):
                portions.add([(entry, int(size), place) for _, entry, size, place in members])
        portions.close()
        ledger.db.execute(_COUNT_COPIES)
        ledger.db.execute(_FIND_STORED)
        ledger.db.execute("UPDATE entry SET state = 'planned' WHERE state = 'known'")
        _attach_label_objects(ledger)
        _number_structures(ledger)


class _Portions:
    """Gathers work items until a portion is full."""

    def __init__(self, ledger: Ledger) -> None:
        self._db = ledger.db
        total = f"SELECT coalesce(sum({_BYTES}), 0) FROM entry WHERE state = 'known'"
        wanted = self._number(total) // _PORTIONS_WANTED
        self._target = min(max(wanted, _LEAST_PORTION_BYTES), _MOST_PORTION_BYTES)
        self._next = self._number("SELECT coalesce(max(last_item), 0) FROM portion") + 1
        self._first, self._bytes = self._next, 0

    def add(self, entries: list[tuple[int, int, int | None]]) -> None:
        """Make one work item of the entries, given with their bytes and, where known, places."""
        self._db.executemany(
            "UPDATE entry SET item = ?, place = ? WHERE id = ?",
            [
                (self._next, counted if place is None else place, entry)
                for counted, (entry, _, place) in enumerate(entries)
            ],
        )
        self._bytes += sum(size for _, size, _ in entries)
        self._next += 1
        if self._bytes >= self._target or self._next - self._first >= _MOST_PORTION_ITEMS:
            self.close()

    def close(self) -> None:
        """End the portion."""
        if self._next > self._first:
            self._db.execute(
                "INSERT INTO portion (first_item, last_item, pixel_bytes) VALUES (?, ?, ?)",
                (self._first, self._next - 1, self._bytes),
            )
        self._first, self._bytes = self._next, 0

    def _number(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])


def _attach_label_objects(ledger: Ledger) -> None:
    """Give segmentations and structure sets to the images they speak of."""
    parts: dict[int, TellingParts] = {}
    waiting = ledger.db.execute(
        "SELECT id, path, member, structures FROM entry"
        " JOIN label_object ON label_object.entry = entry.id"
        " WHERE state = 'label' ORDER BY instance, name"
    ).fetchall()
    found = _images_of_labels(ledger)
    for entry, path, member, names in waiting:
        images = found.get(entry, {})
        if images and all(images.values()):
            ledger.db.executemany(
                "INSERT INTO label_item VALUES (?, ?)", [(item, entry) for item in images]
            )
            ledger.db.execute("UPDATE entry SET state = 'planned' WHERE id = ?", (entry,))
            for item in images:
                if item not in parts:
                    parts[item] = _parts_of(ledger, item)
            told = [parts[item] for item in images]
            _name_structures(ledger, entry, json.loads(names), told)
            continue
        name = os.fsdecode(path) + ("" if member is None else f"!{os.fsdecode(member)}")
        ledger.enter_rejection(entry, _without_images(name, late=bool(images)))


def _parts_of(ledger: Ledger, item: int) -> TellingParts:
    """Return what the images of a work item say of the patient.

    Their headers may name a patient where that of the segmentation is empty. One file of each
    patient is enough, unless it is damaged.
    """
    rows = ledger.db.execute(
        "SELECT source || char(0) || patient, path, member, kind FROM ("
        " SELECT *, row_number() OVER (PARTITION BY source, patient ORDER BY id) AS number"
        " FROM entry WHERE item = ? AND kind = 'dicom') WHERE number <= ?"
        " ORDER BY source, patient, number",
        (item, _HEADERS_TRIED),
    ).fetchall()
    found = TellingParts()
    for _, members in groupby(rows, key=lambda row: row[0]):
        each = (read_telling_parts(reopen(*place)) for _, *place in members)
        found |= next((parts for parts in each if parts != TellingParts()), TellingParts())
    return found


def _name_structures(
    ledger: Ledger, entry: int, names: Iterable[str], told: Iterable[TellingParts]
) -> None:
    """Choose the class name of every structure of a label object, and enter the new ones."""
    of_images = list(told)
    classes: dict[str, str] = {}
    for name in names:
        classes[name] = name
        for parts in of_images:
            classes[name] = without_parts(classes[name], parts)
    ledger.db.execute(
        "UPDATE label_object SET structures = ? WHERE entry = ?", (json.dumps(classes), entry)
    )
    ledger.enter_structures(classes.values())


def _images_of_labels(ledger: Ledger) -> dict[int, dict[int, bool]]:
    """Return entry of a label object -> work item of its images -> whether that is still open."""
    found: dict[int, dict[int, bool]] = {}
    for said in _SAID_BY_LABELS:
        images: defaultdict[int, dict[int, bool]] = defaultdict(dict)
        for label, item, is_open in ledger.db.execute(_IMAGES_OF_LABELS.format(said)):
            images[label][item] = bool(is_open)
        found = images | found
    return found


def _without_images(name: str, late: bool) -> Rejection:
    if late:
        return Rejection(
            name,
            IntakeReason.LABEL_LATE.value,
            f"{name}: the images it speaks of are in the store already. Ingest again with "
            "--overwrite to have images and labels together.",
        )
    return Rejection(
        name,
        Reason.LABEL_WITHOUT_IMAGE.value,
        f"{name}: the images it speaks of are not among the sources. Name their folder too.",
    )


def _number_structures(ledger: Ledger) -> None:
    """Give new structure names the next class numbers, in alphabetical order."""
    new = [
        name
        for (name,) in ledger.db.execute(
            "SELECT name FROM structure WHERE value IS NULL ORDER BY name"
        )
    ]
    if not new:
        return
    numbered = ledger.db.execute(
        """SELECT EXISTS (SELECT 1 FROM entry WHERE row LIKE '%"label_map"%'
            AND id NOT IN (SELECT entry FROM naming_label_map))"""
    ).fetchone()[0]
    start = _STRUCTURES_BESIDE_NUMBERS if numbered else 1
    last = ledger.db.execute("SELECT max(value) FROM structure").fetchone()[0]
    start = start if last is None else last + 1
    if start + len(new) > 2**16:
        raise DataError(
            f"{len(new)} differently named structures were found, more than a label map can tell "
            "apart (65,535). Leave out the structure sets, or rename their structures."
        )
    ledger.db.executemany(
        "UPDATE structure SET value = ? WHERE name = ?",
        [(start + place, name) for place, name in enumerate(new)],
    )


def structures(ledger: Ledger) -> Mapping[str, int]:
    """Return the class number of every structure name."""
    return dict(ledger.db.execute("SELECT name, value FROM structure ORDER BY value"))


def items_of(ledger: Ledger, portion: int) -> Iterator[tuple[int, WorkItem]]:
    """Yield number and content of a portion's work items."""
    rows = ledger.db.execute(
        "SELECT entry.item, entry.id, entry.name, entry.path, entry.member, entry.row, entry.kind,"
        " entry.volume IS NOT NULL, entry.copy, earlier.path, earlier.member, entry.place"
        " FROM entry"
        " JOIN portion ON entry.item BETWEEN first_item AND last_item"
        " LEFT JOIN stored_before ON stored_before.entry = entry.id"
        " LEFT JOIN entry AS earlier ON earlier.id = stored_before.earlier"
        " WHERE portion.id = ? ORDER BY entry.item, entry.place",
        (portion,),
    )
    unused = {
        entry
        for (entry,) in ledger.db.execute(
            "SELECT unused_label_map.entry FROM unused_label_map"
            " JOIN entry ON entry.id = unused_label_map.entry"
            " JOIN portion ON entry.item BETWEEN first_item AND last_item WHERE portion.id = ?",
            (portion,),
        )
    }
    for item, members in groupby(rows, key=lambda row: row[0]):
        entries = []
        of_table = False
        for _, entry, name, path, member, facts, kind, in_volume, copy, *before, place in members:
            row = stored_row(name, path, member, facts)
            if entry in unused:  # its reader did not survive it
                row = replace(row, label_map=None)
            stored = None if before[0] is None else reopen(before[0], before[1], kind)
            entries.append(Entry(reopen(path, member, kind), row, entry, copy, stored, place))
            of_table = of_table or bool(in_volume)
        labels = tuple(_label_files(ledger, item))
        yield item, _item(entries, of_table, labels)


def _label_files(ledger: Ledger, item: int) -> Iterator[LabelFile]:
    rows = ledger.db.execute(
        "SELECT entry.id, path, member, kind, structures FROM label_item"
        " JOIN entry ON label_item.entry = entry.id"
        " JOIN label_object ON label_item.entry = label_object.entry"
        " WHERE label_item.item = ? ORDER BY label_item.rowid",
        (item,),
    )
    for entry, path, member, kind, classes in rows:
        yield LabelFile(reopen(path, member, kind), entry, json.loads(classes))


def _item(entries: list[Entry], of_table: bool, labels: tuple[LabelFile, ...]) -> WorkItem:
    """Return a series, a file, or the rows of a volume in the order of the table or of space."""
    first = entries[0]
    # One picture that came after the others of its volume has a place among them.
    is_late = first.place > 0 and first.file.kind == "raster"
    if not of_table or (len(entries) == 1 and not is_late):
        return WorkItem(tuple(entries), labels=labels)
    if all(entry.row.slice_index is not None for entry in entries):
        entries = sorted(entries, key=lambda entry: entry.row.slice_index or 0)
        return WorkItem(tuple(entries), joined=True, labels=labels)
    by_position = all(entry.file.kind == "dicom" for entry in entries)
    return WorkItem(tuple(entries), joined=not by_position, labels=labels)
