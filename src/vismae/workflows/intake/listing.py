"""What sources hold: every file entered into the ledger, and then looked at to see what it is."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from vismae.core.errors import UnreadableFileError
from vismae.core.executor import Executor, Lost, Step
from vismae.data.manifest import FileReference, ManifestRow
from vismae.data.sources import DataSource, Manifest, PlainSource
from vismae.files.dicom_identifiers import read_identifiers
from vismae.files.dicom_quiet import quiet_pydicom
from vismae.files.discover import (
    RejectedFile,
    SourceFile,
    archive_members,
    find_file,
    identify,
    inode,
    walk,
)
from vismae.files.found import FoundFile
from vismae.files.nifti_pair import header_beside
from vismae.files.reasons import Reason
from vismae.files.signatures import Kind
from vismae.workflows.intake.entry_facts import row_to_json
from vismae.workflows.intake.labelled import found_with_label_map
from vismae.workflows.intake.ledger import (
    Identified,
    Ledger,
    Listed,
    Unidentified,
    as_text,
)
from vismae.workflows.intake.named_labels import segment_classes
from vismae.workflows.intake.origin import Place, source_name
from vismae.workflows.intake.overlap import TakenPlaces
from vismae.workflows.intake.remote import RemoteSource, remote_files, reopened
from vismae.workflows.intake.work import NewFiles, Rejection, lost_reason, rejection

_BATCH = 256

logger = logging.getLogger(__name__)


def list_sources(
    ledger: Ledger,
    sources: Sequence[DataSource | RemoteSource],
    own: Iterable[Path] = (),
    taken: TakenPlaces | None = None,
) -> NewFiles:
    """Enter all files of the sources; nothing is opened but tables.

    Args:
        ledger: Takes them in.
        sources: Where to look.
        own: Folders and files of the ingest itself, which may lie within a source.
        taken: Files that came already; made of the sources where it is not given.
    """
    taken = taken or TakenPlaces(ledger, sources)
    apart = frozenset(found for path in own if (found := inode(path)) is not None)
    return ledger.list_files(_files(ledger, sources, apart, taken))


def has_changed(
    ledger: Ledger, sources: Sequence[DataSource | RemoteSource], own: Iterable[Path] = ()
) -> bool:
    """Tell whether sources hold other files than the ledger knows, or say other things of them.

    Args:
        ledger: Of a finished ingest; no file is entered.
        sources: Where to look.
        own: As for ``list_sources``.
    """
    apart = frozenset(found for path in own if (found := inode(path)) is not None)
    entries = ledger.db.execute("SELECT name, size, changed_ns, row, state FROM entry").fetchall()
    known = {os.fsdecode(name): (size, mark, row) for name, size, mark, row, _ in entries}
    archives = [os.fsdecode(name) for name, *_, state in entries if state == "opened"]
    left_out = {os.fsdecode(name) for name, *_, state in entries if state == "rejected"}
    seen: set[str] = set()
    for found in _files(ledger, sources, apart, TakenPlaces(ledger, sources)):
        if isinstance(found, Rejection) or found.rejection is not None:
            continue
        name, facts = found.row.name, row_to_json(found.row)
        marks = ((found.size, found.change_mark), *found.earlier)
        if known.get(name) not in [(*mark, facts) for mark in marks]:
            return True
        seen.add(name)
    members = tuple(f"{name}!" for name in archives)
    return any(not name.startswith(members) for name in known.keys() - seen - left_out)


def _files(
    ledger: Ledger,
    sources: Sequence[DataSource | RemoteSource],
    apart: frozenset[tuple[int, int]],
    taken: TakenPlaces,
) -> Iterator[Listed | Rejection]:
    names: set[str] = set()
    for source in sources:
        if isinstance(source, RemoteSource):
            yield from remote_files(source, ledger.source_number(str(source.address)))
            continue
        # Paths are kept whole, so that they hold in another working directory.
        if isinstance(source, PlainSource):
            image = _absolute(FileReference(source.path))
            unique = source_name(ledger, source.name, Place(image.path, image.path), names)
            row = ManifestRow(unique, image, label=source.label, split=source.split)
            yield from _walked(row, ledger.source_number(unique), apart, taken)
        else:
            place = Place(source.origin.absolute(), source.folder.absolute())
            unique = source_name(ledger, source.folder.resolve().name, place, names)
            yield from _table_files(source, unique, ledger.source_number(unique), apart, taken)
            yield from map(_without_image, source.unpaired)


def _without_image(label_map: Path) -> Rejection:
    message = f"{label_map}: a label map by its name and place, but its image is not there."
    return Rejection(str(label_map), Reason.LABEL_WITHOUT_IMAGE.value, message)


def _walked(
    row: ManifestRow,
    source: int,
    apart: frozenset[tuple[int, int]],
    taken: TakenPlaces | None = None,
) -> Iterator[Listed | Rejection]:
    """Yield the files of a folder or the one file; all of them take over the row.

    Those that are taken are passed over, but for the folder that a table names.
    """
    root = row.image.path
    for found in walk(root, apart):
        if isinstance(found, RejectedFile):
            yield rejection(found)
            continue
        if taken is not None and taken.comes_again(found.path):
            continue
        below = "" if found.path == root else f"/{found.path.relative_to(root).as_posix()}"
        yield _listed(source, replace(row, name=f"{row.name}{below}"), found)


def _listed(source: int, row: ManifestRow, found: FoundFile) -> Listed:
    image = FileReference(found.path, found.member)
    found = found_with_label_map(found, row.label_map)
    return Listed(
        source, replace(row, image=image), found.size, found.change_mark, earlier=found.earlier
    )


def _table_files(
    table: Manifest,
    name: str,
    source: int,
    apart: frozenset[tuple[int, int]],
    taken: TakenPlaces,
) -> Iterator[Listed | Rejection]:
    seen: Counter[str] = Counter()
    for row in table.rows:
        if table.table is None and taken.in_csv(row.image):
            continue
        seen[row.name] += 1
        repeat = "" if seen[row.name] == 1 else f"#{seen[row.name]}"
        row = replace(
            row,
            name=f"{name}/{row.name}{repeat}",
            image=_absolute(row.image),
            label_map=None if row.label_map is None else _absolute(row.label_map),
        )
        if row.image.is_folder:
            # The folder of a series: its files stand in space, not in the table's order.
            yield from _walked(row, source, apart, None if table.table else taken)
            continue
        if apart and row.image.member is None and inode(row.image.path) in apart:
            continue
        try:
            found = find_file(row.image.path, row.image.member)
        except UnreadableFileError as error:
            why = Rejection(row.image.text, str(error.reason), str(error))
            # Of a volume that is a slice between others.
            absent = Listed(source, row, 0, 0, of_table=True, rejection=why)
            yield why if row.volume_id is None else absent
            continue
        found = found_with_label_map(found, row.label_map)
        facts = (found.size, found.change_mark)
        yield Listed(source, row, *facts, of_table=True, earlier=found.earlier)


def _absolute(reference: FileReference) -> FileReference:
    """Return where a file is read from: of the voxels of a NIfTI pair, the header."""
    header = header_beside(reference.path, reference.member)
    path, member = header or (reference.path, reference.member)
    return FileReference(path.absolute(), member)


def identify_files(
    ledger: Ledger, executor: Executor, taken: TakenPlaces | None = None
) -> NewFiles:
    """Look at every file that was listed, and enter archives; returns what these added.

    Members of archives that are taken already are passed over.
    """
    added = NewFiles()
    while True:
        _identify_listed(ledger, executor)
        archives = ledger.archives()
        if not archives:
            return added
        for entry, source, row in archives:
            # It was counted as new when it was listed, but only its members are files to read.
            itself = 0 if ledger.has_members(row.name) else 1
            members = ledger.list_files(_members(row, source, taken), within=entry)
            ledger.close_archive(entry, has_changes=members.changed > 0)
            added += members + NewFiles(new=-itself)


def _identify_listed(ledger: Ledger, executor: Executor) -> None:
    # A batch that was lost leaves its other files listed: they come again in the next round.
    while any(True for _ in ledger.unidentified(1)):
        for outcome in executor.run(identify_batch, ledger.unidentified(_BATCH)):
            if isinstance(outcome, Lost):
                _reject_lost(ledger, outcome)
                continue
            found, rejected = outcome
            ledger.enter_identified(found)
            for entry, why in rejected:
                ledger.reject(entry, why)


def _reject_lost(ledger: Ledger, lost: Lost[list[Unidentified]]) -> None:
    """Leave out the file that took its reader down (the first one if none was begun)."""
    number = int(lost.step or lost.task[0].entry)
    file = next(file for file in lost.task if file.entry == number)
    reason, message = lost_reason(lost)
    name = _name(file)
    ledger.reject(number, Rejection(name, reason.value, f"{name}: {message}"))


def _members(
    row: ManifestRow, source: int, taken: TakenPlaces | None
) -> Iterator[Listed | Rejection]:
    for found in archive_members(row.image.path):
        if isinstance(found, RejectedFile):
            yield rejection(found)
        elif taken is None or not taken.comes_again(*found.place):
            yield _listed(source, replace(row, name=f"{row.name}!{found.member}"), found)


def identify_batch(
    batch: list[Unidentified], step: Step
) -> tuple[list[Identified], list[tuple[int, Rejection]]]:
    """Say what each file is, in a worker; returns the known ones, and those left out."""
    known: list[Identified] = []
    rejected: list[tuple[int, Rejection]] = []
    with quiet_pydicom():
        for file in batch:
            step(str(file.entry))
            try:
                found = _identify(file)
            except UnreadableFileError as error:
                name = _name(file)
                rejected.append((file.entry, Rejection(name, str(error.reason), str(error))))
                continue
            if isinstance(found, RejectedFile):
                rejected.append((file.entry, rejection(found)))
            else:
                known.append(found)
    return known, rejected


def _identify(file: Unidentified) -> Identified | RejectedFile:
    remote = reopened(Path(file.path), file.member)
    found = remote or identify(Path(file.path), file.member)
    if isinstance(found, RejectedFile):
        return found
    if found == "archive":
        return Identified(file.entry, "archive")
    classes = () if file.row is None else segment_classes(file.row, found)
    if found.kind == "dicom":
        return Identified(file.entry, "dicom", read_identifiers(found), classes)
    return Identified(file.entry, found.kind, classes=classes)


def _name(file: Unidentified) -> str:
    return file.path if file.member is None else f"{file.path}!{file.member}"


def reopen(path: bytes, member: bytes | None, kind: str) -> SourceFile:
    """Return a file of the ledger, ready to be opened."""
    place, inside = Path(os.fsdecode(path)), as_text(member)
    return reopened(place, inside) or SourceFile(place, inside, cast(Kind, kind))
