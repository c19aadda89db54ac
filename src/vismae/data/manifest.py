"""Tables that describe images: the csv manifest, the reference's fold files, folders of classes.

Columns of a manifest (any order, any case): ``path`` or ``image``; optionally ``label_map``,
``mask`` or ``mask_path``; ``label``; ``patient_id`` or ``group_id``; ``volume_id``,
``slice_index``, ``spacing_mm``; ``channel``; ``modality``; ``split``; others only where asked for.
Where ``sequence`` is asked for, ``case_id`` tells the cases of one patient apart.

A path is relative to the csv, or absolute. It is looked for on disk, then in an ``images.zip``
beside the csv; ``archive.zip!member`` names a member of any other archive. Whether a file exists
is not checked here: a missing one is rejected when it is read, and the others go on.
"""

import os
import re
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from vismae.core.errors import DataError
from vismae.core.types import Spacing
from vismae.data.table_text import read_table

MANIFEST_FILE = "manifest.csv"
_LARGEST_NUMBER = 10**9  # the store keeps 32 bits
IMAGE_ARCHIVE = "images.zip"
SEQUENCE_COLUMN = "sequence"
CASE_COLUMN = "case_id"
PATH_COLUMNS = ("path", "image")
LABEL_MAP_COLUMNS = ("label_map", "mask", "mask_path")
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
_WITH_COMMA = re.compile(r"-?\d+(,\d+)?")
_THOUSANDS = re.compile(r"-?\d{1,3}(\.\d{3})+")
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "pretrain": "pretrain",
    "pretraining": "pretrain",
}


@dataclass(frozen=True)
class FileReference:
    """A file on disk, or a member of a zip archive."""

    path: Path
    member: str | None = None

    @property
    def text(self) -> str:
        """``folder/a.png`` or ``folder/archive.zip!a.png``."""
        return f"{self.path}!{self.member}" if self.member else str(self.path)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder on disk; what the system does not look at is none."""
        try:
            return self.member is None and self.path.is_dir()
        except OSError:
            return False


@dataclass(frozen=True)
class ManifestRow:
    """What a table says about one file; None where it says nothing.

    Attributes:
        name: Path as written, the stable name of the image.
        image: Where the image is.
        label_map: Where its label map is.
        label: Class name, several joined by ``|``.
        patient_id: Group that must not be divided, as written; None makes the image its own.
        group_kind: ``patient``, ``group`` or, without an id, ``image``; None where the table has
            no id column at all, so that the file itself may say.
        volume_id, slice_index: Rows that form one volume, and their order in it.
        spacing: Millimetres.
        channel: Which volume of a file of several is meant, counted from 0.
        modality: Word as written.
        split: ``train``, ``val``, ``test`` or ``pretrain``.
        extra: Further columns that were asked for.
    """

    name: str
    image: FileReference
    label_map: FileReference | None = None
    label: str | None = None
    patient_id: str | None = None
    group_kind: str | None = None
    volume_id: str | None = None
    slice_index: int | None = None
    spacing: Spacing = field(default_factory=Spacing)
    channel: int | None = None
    modality: str | None = None
    split: str | None = None
    extra: dict[str, str] = field(default_factory=dict)


class ManifestTable:
    """The rows of a csv manifest, read anew whenever they are gone through.

    A table may have any length: only the row at hand is in memory. Cells are checked when they
    are reached.

    Args:
        path: The table, as ``table_text`` reads it, with a header line.
        keep_columns: Further columns to put into ``extra``.
        split: Split of every row, in place of the column (the reference's fold files).

    Raises:
        DataError: Not a readable table, no path column, a wanted column is missing, no row; and
            while going through it, a cell that cannot be understood; names file, line and value.
    """

    def __init__(
        self, path: Path, keep_columns: Sequence[str] = (), split: str | None = None
    ) -> None:
        self._path = path
        self._keep_columns = tuple(keep_columns)
        self._split = split
        self._text = read_table(path, PATH_COLUMNS)
        columns = self._text.columns
        self._path_column = next((name for name in PATH_COLUMNS if name in columns), "")
        if not self._path_column:
            raise DataError(
                f"{path}: no column names the images. Expected path or image, found "
                f"{', '.join(columns) or 'no columns'}. Columns are divided by commas, semicolons "
                "or tabs."
            )
        missing = [name for name in keep_columns if name.lower() not in columns]
        if SEQUENCE_COLUMN in missing:
            raise DataError(
                f"{path}: no column {SEQUENCE_COLUMN} says which sequence of its case an image is, "
                f"found {', '.join(columns)}. Add it, with the names of model.sequences."
            )
        if missing:
            raise DataError(
                f"{path}: column {missing[0]} of --keep-column is not there, found "
                f"{', '.join(columns)}."
            )
        if next(iter(self), None) is None:
            raise DataError(f"{path} has a header but no rows. List at least one image.")

    def __iter__(self) -> Iterator[ManifestRow]:
        comma = self._text.decimal_comma
        for line, values in self._text.rows():
            cells = dict(zip(self._text.columns, values, strict=True))
            where = f"{self._path}, line {line}"
            row = _parse_row(
                cells, where, self._path.parent, self._path_column, self._keep_columns, comma
            )
            yield row if self._split is None else replace(row, split=self._split)


def is_table(path: Path) -> bool:
    """Tell whether a named file is a manifest: a ``.csv``, or a text that says so by its header."""
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES or not path.is_file():
        return False
    if suffix == TABLE_SUFFIXES[0]:
        return True
    try:
        return not {*PATH_COLUMNS}.isdisjoint(read_table(path, PATH_COLUMNS).columns)
    except DataError:
        return False


def _parse_row(
    cells: dict[str, str],
    where: str,
    folder: Path,
    path_column: str,
    keep_columns: Sequence[str],
    decimal_comma: bool,
) -> ManifestRow:
    name = cells[path_column]
    if not name:
        raise DataError(f"{where}: the cell {path_column} is empty. Give a path or remove the row.")
    label_map = next((cells[column] for column in LABEL_MAP_COLUMNS if cells.get(column)), None)
    cases = SEQUENCE_COLUMN in keep_columns
    patient_id, group_kind = _group(cells, cases)
    extra = {name: cells[name.lower()] for name in keep_columns}
    if cases:
        extra[CASE_COLUMN] = cells.get(CASE_COLUMN, "")
    return ManifestRow(
        name=name,
        image=locate(name, folder),
        label_map=locate(label_map, folder) if label_map else None,
        label=cells.get("label") or None,
        patient_id=patient_id,
        group_kind=group_kind,
        volume_id=cells.get("volume_id") or None,
        slice_index=_parse_whole(cells.get("slice_index", ""), "slice_index", where, decimal_comma),
        spacing=parse_spacing(cells.get("spacing_mm", ""), where, decimal_comma),
        channel=_parse_channel(cells.get("channel", ""), where, decimal_comma),
        modality=cells.get("modality") or None,
        split=parse_split(cells.get("split", ""), where),
        extra=extra,
    )


def _group(cells: dict[str, str], cases: bool) -> tuple[str | None, str | None]:
    """Return id and kind of what must not be divided; a case must not, where there are cases."""
    if cells.get("patient_id"):
        return cells["patient_id"], "patient"
    if cells.get("group_id"):
        return cells["group_id"], "group"
    if cases and cells.get(CASE_COLUMN):
        return cells[CASE_COLUMN], "group"
    return None, "image" if "patient_id" in cells or "group_id" in cells else None


def locate(name: str, folder: Path) -> FileReference:
    """Return where a manifest's path leads, seen from the folder of the csv.

    On disk first; then ``archive.zip!member``; then the ``images.zip`` beside the csv, whose
    members may or may not repeat the leading ``images/``. A name that is not there counts as it
    would be written on another system: with slashes for backslashes, with accents composed or not.
    """
    found = _located(name, folder)
    if found.member is None and not _exists(found.path):
        for other in _other_spellings(name):
            told = _located(other, folder)
            if told.member is not None or _exists(told.path):
                return told
    return found


def _other_spellings(name: str) -> Iterator[str]:
    """Yield how a name may lie on the disk of another system.

    Windows has backslashes, macOS has accents by themselves, and old disks have Windows-1252.
    """
    written = {name}
    for separated in (name, name.replace("\\", "/")):
        for form in ("NFC", "NFD"):
            for other in (separated, unicodedata.normalize(form, separated)):
                if other not in written:
                    written.add(other)
                    yield other
    with suppress(UnicodeEncodeError):
        yield os.fsdecode(name.replace("\\", "/").encode("cp1252"))


def _located(name: str, folder: Path) -> FileReference:
    path = folder / name
    archive_name, separator, member = name.partition("!")
    exists = _exists(path)
    if separator and archive_name.lower().endswith(".zip") and not exists:
        return FileReference(folder / archive_name, member)
    archive = folder / IMAGE_ARCHIVE
    if not exists and archive.is_file():
        for candidate in (name, name.removeprefix("images/"), f"images/{name}"):
            if candidate in _members(archive, archive.stat().st_mtime_ns):
                return FileReference(archive, candidate)
    return FileReference(path)


def _exists(path: Path) -> bool:
    """Whether there is a file; what the system does not look at is told when it is read."""
    try:
        return path.exists()
    except OSError:
        return False


@lru_cache(maxsize=4)
def _members(archive: Path, changed_ns: int) -> frozenset[str]:
    """Return the names in an archive; one changed since has another key."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return frozenset(opened.namelist())
    except zipfile.BadZipFile as error:
        raise DataError(f"{archive} is not a readable zip archive ({error}).") from error


def parse_split(text: str, where: str) -> str | None:
    """Return ``train``, ``val``, ``test``, ``pretrain``, or None for an empty cell.

    Raises:
        DataError: Another word.
    """
    if not text:
        return None
    split = SPLIT_WORDS.get(text.lower())
    if split is None:
        raise DataError(
            f"{where}: split '{text}' is not known. Expected train, val, test or pretrain, or an "
            "empty cell."
        )
    return split


def parse_spacing(text: str, where: str, decimal_comma: bool = False) -> Spacing:
    """Read millimetres: ``slice;row;column``, ``row;column``, or one number for both in-plane.

    Args:
        text: The cell.
        where: File and line.
        decimal_comma: Whether numbers of the table have decimal commas.

    Raises:
        DataError: Not one to three positive numbers, or commas that may be decimal ones.
    """
    parts = _number_texts(text, where, decimal_comma)
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = [0.0]
    if len(numbers) > 3 or not all(0.0 < number < float("inf") for number in numbers):
        raise DataError(
            f"{where}: spacing_mm '{text}' is not understood. Expected slice;row;column, "
            "row;column or one number, in millimetres."
        )
    if not numbers:
        return Spacing()
    if len(numbers) == 1:
        return Spacing(None, numbers[0], numbers[0])
    return Spacing(*numbers) if len(numbers) == 3 else Spacing(None, *numbers)


def _number_texts(text: str, where: str, decimal_comma: bool) -> list[str]:
    """Divide a cell into numbers with points; a comma may be decimal or divide them."""
    parts = [part for part in re.split(r"[;\s]+", text) if part]
    # No image has pixels of 0 mm: what a comma ends after 0 is no number of its own.
    decimal = decimal_comma or any(part.startswith("0,") for part in parts)
    if decimal and "," in text and all(_WITH_COMMA.fullmatch(part) for part in parts):
        return [part.replace(",", ".") for part in parts]
    if "," in text and (";" in text or ("." not in text and text.count(",") == 1)):
        raise DataError(
            f"{where}: spacing_mm '{text}' may be decimal commas or several numbers. Write "
            "decimals with a point, and divide numbers by semicolons."
        )
    return [part for part in re.split(r"[;,\s]+", text) if part]


def _parse_channel(text: str, where: str, decimal_comma: bool) -> int | None:
    channel = _parse_whole(text, "channel", where, decimal_comma)
    if channel is not None and channel < 0:
        raise DataError(f"{where}: channel {channel} is negative. Channels count from 0.")
    return channel


def _parse_whole(text: str, column: str, where: str, decimal_comma: bool) -> int | None:
    if not text:
        return None
    written = text
    if decimal_comma and _WITH_COMMA.fullmatch(text):
        written = text.replace(",", ".")
    elif decimal_comma and _THOUSANDS.fullmatch(text):
        written = ""  # 1.000 may be one or a thousand
    try:
        number = int(float(written)) if float(written).is_integer() else int(written)
    except (ValueError, OverflowError):
        raise DataError(
            f"{where}: {column} '{text}' is not a whole number. Correct it or leave it empty."
        ) from None
    if abs(number) > _LARGEST_NUMBER:
        raise DataError(
            f"{where}: {column} {number} is beyond {_LARGEST_NUMBER}. Correct it or leave it empty."
        )
    return number
