"""Inputs that a manifest lists: what it says of their volumes and modalities holds as in training.

Ingest gives the slices of a volume (``volume_id``) one brightness range, and so does prediction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from vismae.core.errors import DataError, UnreadableFileError
from vismae.data.manifest import MANIFEST_FILE, ManifestRow, ManifestTable, is_table
from vismae.files.dicom_identifiers import group_series
from vismae.files.discover import Group, SourceFile, source_file
from vismae.workflows.prediction.inputs import Failure, Input, Told, find_inputs, result_name


def find_listed_inputs(
    sources: Sequence[Path], out: Path | None = None
) -> tuple[list[Input], list[Failure]]:
    """Find inputs as ``find_inputs``; of a manifest, or a folder that has one, what it lists.

    A table may name any file that the user can read: never hand in one from somebody else.

    Raises:
        UnreadableFileError: A source does not exist.
    """
    inputs: list[Input] = []
    failures: list[Failure] = []
    tables, plain = tables_among(sources)
    for path in tables:
        try:
            add_listed(list(ManifestTable(path)), out, inputs, failures)
        except DataError as error:
            failures.append(Failure(str(path), error.code, str(error)))
    found, more = find_inputs(plain, out)
    inputs += unlisted(found, inputs)
    return list({item.identity: item for item in inputs}.values()), [*failures, *more]


def tables_among(sources: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the manifests, named themselves or by their folder, and all other sources."""
    tables: list[Path] = []
    plain: list[Path] = []
    for source in sources:
        path = source / MANIFEST_FILE if source.is_dir() else source
        listed = is_table(path)
        (tables if listed else plain).append(path if listed else source)
    return tables, plain


def unlisted(found: Iterable[Input], listed: Iterable[Input]) -> list[Input]:
    """Return the inputs whose files no listed one has, nor a sequence beside it.

    With images and their table named (as by ``scans/*``), the table says what they are.
    """
    known = {
        _place(file)
        for item in listed
        for part in (item, *item.beside)
        for file in part.group.files
    }
    return [item for item in found if not {_place(file) for file in item.group.files} <= known]


def _place(file: SourceFile) -> tuple[Path, str | None]:
    return file.path.resolve(), file.member


def add_listed(
    rows: Iterable[ManifestRow], out: Path | None, inputs: list[Input], failures: list[Failure]
) -> None:
    """Add the inputs that rows of a manifest are, and the files that none is found in.

    Args:
        rows: In the order of the table.
        out: Folder of the results, in which nothing is looked for.
        inputs, failures: Added to.
    """
    single: dict[SourceFile, ManifestRow] = {}
    volumes: dict[tuple[str, str | None], list[tuple[ManifestRow, SourceFile]]] = {}
    for row in rows:
        try:
            if row.image.is_folder:
                # The folder of a series: its files stand in space, not in the table's order.
                found, rejected = find_inputs([row.image.path], out)
                inputs += [replace(item, named=True, told=_told(row)) for item in found]
                failures += rejected
                continue
            file = source_file(row.image.path, row.image.member)
        except UnreadableFileError as error:
            failures.append(Failure(row.image.text, str(error.reason), str(error)))
            continue
        if row.channel is not None:
            # One file may be listed once for each of its channels.
            name = result_name(PurePosixPath(row.name), "image")
            inputs.append(Input(Group(file.kind, (file,)), name, True, told=_told(row)))
        elif row.volume_id is None:
            single.setdefault(file, row)
        else:
            volumes.setdefault((row.volume_id, row.patient_id), []).append((row, file))
    for group in group_series(single):
        row = single[group.files[0]]
        name = PurePosixPath(row.name)
        if len(group.files) > 1 and name.parent.name:
            name = name.parent
        inputs.append(Input(group, result_name(name, "image"), True, told=_told(row)))
    inputs += [_volume(members) for members in volumes.values()]


def _volume(members: list[tuple[ManifestRow, SourceFile]]) -> Input:
    """Return the slices of a volume in the order that ingest reads them in."""
    if all(row.slice_index is not None for row, _ in members):
        members = sorted(members, key=lambda member: member[0].slice_index or 0)
    row, first = members[0]
    name = PurePosixPath(row.patient_id or "", row.volume_id or "")
    group = Group(first.kind, tuple(dict.fromkeys(file for _, file in members)))
    joined = len(group.files) > 1 and any(file.kind != "dicom" for file in group.files)
    told = replace(_told(row), volume=row.volume_id if joined else None)
    return Input(group, result_name(name, "volume"), True, told=told)


def _told(row: ManifestRow) -> Told:
    return Told(row.modality, row.spacing, channel=row.channel)
