"""What is to be read: one file, one DICOM series, or the rows of one volume at a time."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from vismae.core.errors import UnreadableFileError
from vismae.data.manifest import FileReference, ManifestRow
from vismae.data.sources import DataSource, Manifest, PlainSource
from vismae.files.discover import RejectedFile, SourceFile, discover, group_series, source_file


class IntakeReason(StrEnum):
    """Reason codes of ``rejected.csv`` that arise only where files are put together.

    Those of single files are in ``files.reasons``.
    """

    LABEL_SHAPE = "label-shape"
    LABEL_VALUES = "label-values"
    NOT_STORABLE = "not-storable"
    READER_DIED = "reader-died"


INTAKE_REASONS: dict[IntakeReason, str] = {
    IntakeReason.LABEL_SHAPE: "A label map has another size than its image.",
    IntakeReason.LABEL_VALUES: "A label map holds values outside 0 to 65535.",
    IntakeReason.NOT_STORABLE: "Pixel values do not fit the types that a store keeps.",
    IntakeReason.READER_DIED: "The process that read the file died; memory or a decoder's fault.",
}


@dataclass(frozen=True)
class Entry:
    """A file to read and what its table says of it; ``row.name`` is its stable name."""

    file: SourceFile
    row: ManifestRow


@dataclass(frozen=True)
class WorkItem:
    """What is read in one go.

    Attributes:
        entries: One file, the files of a DICOM series, or the files of one volume.
        joined: The files are slices of one volume because the table says so; each is read by
            itself.
    """

    entries: tuple[Entry, ...]
    joined: bool = False


@dataclass(frozen=True)
class Rejection:
    """One line of ``rejected.csv``."""

    path: str
    reason: str
    message: str


def find_work(sources: Sequence[DataSource]) -> Iterator[WorkItem | Rejection]:
    """List what is to be read, source by source.

    Within a manifest single files come first in the order of its rows, then volumes, then DICOM
    series. Headers of DICOM files are read to find their series.
    """
    taken: Counter[str] = Counter()
    for source in sources:
        name = source.name if isinstance(source, PlainSource) else source.folder.resolve().name
        taken[name] += 1
        # Two folders may both be called images; ids come from names and must differ.
        unique = name if taken[name] == 1 else f"{name}-{taken[name]}"
        if isinstance(source, PlainSource):
            row = ManifestRow(
                unique, FileReference(source.path), label=source.label, split=source.split
            )
            yield from _find_plain(row)
        else:
            yield from _find_rows(source, unique)


def _find_plain(row: ManifestRow) -> Iterator[WorkItem | Rejection]:
    """List the files of a folder, an archive or a file; all of them take over the row."""
    root = row.image.path
    entries: dict[SourceFile, Entry] = {}
    for found in discover(root):
        if isinstance(found, RejectedFile):
            yield rejection(found)
            continue
        below = "" if found.path == root else f"/{found.path.relative_to(root).as_posix()}"
        member = "" if found.member is None else f"!{found.member}"
        entries[found] = Entry(found, replace(row, name=f"{row.name}{below}{member}"))
    for group in group_series(entries):
        yield WorkItem(tuple(entries[file] for file in group.files))


def _find_rows(manifest: Manifest, source_name: str) -> Iterator[WorkItem | Rejection]:
    seen: Counter[str] = Counter()
    volumes: dict[str, list[Entry]] = {}
    dicom: dict[SourceFile, Entry] = {}
    for row in manifest.rows:
        seen[row.name] += 1
        repeat = "" if seen[row.name] == 1 else f"#{seen[row.name]}"
        row = replace(row, name=f"{source_name}/{row.name}{repeat}")
        if row.image.member is None and row.image.path.is_dir():
            yield from _find_plain(row)
            continue
        try:
            file = source_file(row.image.path, row.image.member)
        except UnreadableFileError as error:
            yield Rejection(reference_text(row.image), str(error.reason), str(error))
            continue
        entry = Entry(file, row)
        if row.volume_id is not None:
            volumes.setdefault(row.volume_id, []).append(entry)
        elif file.kind == "dicom" and file not in dicom:
            dicom[file] = entry
        else:
            yield WorkItem((entry,))
    for entries in volumes.values():
        yield _volume_item(entries)
    for group in group_series(dicom):
        yield WorkItem(tuple(dicom[file] for file in group.files))


def _volume_item(entries: list[Entry]) -> WorkItem:
    """Return the rows of one volume, in the order of the table or, for DICOM, of space."""
    if all(entry.row.slice_index is not None for entry in entries):
        entries = sorted(entries, key=lambda entry: entry.row.slice_index or 0)
        return WorkItem(tuple(entries), joined=len(entries) > 1)
    by_position = all(entry.file.kind == "dicom" for entry in entries)
    return WorkItem(tuple(entries), joined=len(entries) > 1 and not by_position)


def rejection(found: RejectedFile) -> Rejection:
    """Return the readers' rejection as a line of ``rejected.csv``."""
    return Rejection(found.path, str(found.reason), found.message)


def reference_text(reference: FileReference) -> str:
    """Return ``folder/a.png`` or ``folder/archive.zip!a.png``."""
    return f"{reference.path}!{reference.member}" if reference.member else str(reference.path)
