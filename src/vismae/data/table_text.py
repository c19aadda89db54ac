"""Text of a table as spreadsheets save it, whatever their country: separator, bytes, decimals.

Nothing is guessed from the rows. The header line tells the separator: it is the one that sets a
wanted column name apart. Bytes are UTF-8 or, by their mark, UTF-16; else Windows-1252 (of which
Latin-1 is a part), which the first byte that is not ASCII tells: that of UTF-8 begins a sequence
of its own.
"""

import codecs
import csv
import logging
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from vismae.core.errors import DataError

logger = logging.getLogger(__name__)

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_WINDOWS = "cp1252"
_BLOCK_BYTES = 2**20
_LONGEST_CHARACTER = 4
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
# Excel writes and reads such a first line, which is no part of the table.
_STATED_SEPARATOR = re.compile(r'^"?sep=(.)"?\s*$', re.IGNORECASE)


@dataclass(frozen=True)
class TableText:
    """How the text of a table is to be read.

    Attributes:
        path: The table.
        columns: Names in the header, in lower case.
        encoding: Of its bytes.
        separator: Comma, semicolon or tab.
        lines_before: Lines before the header.
    """

    path: Path
    columns: tuple[str, ...]
    encoding: str
    separator: str
    lines_before: int = 0

    @property
    def decimal_comma(self) -> bool:
        """Whether numbers have a comma: why spreadsheets divide columns by semicolons."""
        return self.separator == ";"

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield line number and cells of each row that is not empty, as many as there are columns.

        Raises:
            DataError: The file is gone, or a row is damaged or too long; names the line.
        """
        try:
            with self.path.open(newline="", encoding=self.encoding) as file:
                for _ in range(self.lines_before):
                    file.readline()
                reader = csv.reader(file, delimiter=self.separator, strict=True)
                next(reader, None)
                for cells in reader:
                    if any(cell.strip() for cell in cells):
                        yield (line := self.lines_before + reader.line_num), self._row(cells, line)
        except OSError as error:
            raise _not_opened(self.path, error) from error
        except (UnicodeError, csv.Error) as error:
            raise _no_table(self.path, error) from error

    def _row(self, cells: list[str], line: int) -> list[str]:
        if any("\0" in cell for cell in cells):
            raise DataError(
                f"{self.path}, line {line}: a cell holds a NUL character, which no text has. Save "
                "the table again as csv in UTF-8."
            )
        mark = "comma" if self.separator == "," else _SEPARATORS[self.separator][:-1]
        missing = len(self.columns) - len(cells)
        if any(cell.strip() for cell in cells[len(self.columns) :]):
            raise DataError(
                f"{self.path}, line {line}: {len(cells)} cells, the header has "
                f"{len(self.columns)}. Put cells that hold a {mark} into double quotes."
            )
        return [cell.strip() for cell in [*cells[: len(self.columns)], *[""] * missing]]


def read_table(path: Path, wanted: Collection[str]) -> TableText:
    """Return how a table is written, by its header line.

    Args:
        path: The table.
        wanted: Lower-case names of columns, one of which it should have.

    Raises:
        DataError: The file cannot be opened or is no text; two separators divide its header so
            that each gives a wanted name; a column occurs twice.
    """
    try:
        encoding = _encoding(path)
        with path.open(newline="", encoding=encoding) as file:
            stated = _STATED_SEPARATOR.match(file.readline())
            start = file.tell() if stated else 0
            headers = {
                mark: _header(file, start, mark)
                for mark in (_SEPARATORS if stated is None else stated[1])
            }
    except OSError as error:
        raise _not_opened(path, error) from error
    except (UnicodeError, csv.Error) as error:
        raise _no_table(path, error) from error
    if stated and stated[1] not in _SEPARATORS:
        raise DataError(
            f"{path}: its first line says that '{stated[1]}' divides columns. Save it with commas."
        )
    found = {mark: columns for mark, columns in headers.items() if set(columns) & set(wanted)}
    if len(set(found.values())) > 1:
        marks = " or by ".join(_SEPARATORS[mark] for mark in found)
        raise DataError(
            f"{path}: the header may be divided by {marks}. "
            "Save it with one separator, and put names that hold another into double quotes."
        )
    separator = next(iter(found or headers))
    columns = headers[separator]
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: column {twice} occurs twice. Rename one of them.")
    if encoding == _WINDOWS:
        logger.warning(
            "%s is not in UTF-8 and is read as Windows-1252 (Western Europe). If letters of names "
            "come out wrong, save it as csv in UTF-8.",
            path,
        )
    return TableText(path, columns, encoding, separator, 0 if stated is None else 1)


def _header(file: TextIO, start: int, separator: str) -> tuple[str, ...]:
    file.seek(start)
    try:
        cells = next(csv.reader(file, delimiter=separator, strict=True), [])
    except csv.Error:  # quoted for another separator
        return ()
    return tuple(name.strip().lower() for name in cells)


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        block = file.read(_BLOCK_BYTES)
        if block.startswith(codecs.BOM_UTF8):
            return "utf-8-sig"
        if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        while block:
            found = _NOT_ASCII.search(block)
            if found:
                character = (block[found.start() :] + file.read(_LONGEST_CHARACTER))[
                    :_LONGEST_CHARACTER
                ]
                return "utf-8" if _begins_in_utf8(character) else _WINDOWS
            block = file.read(_BLOCK_BYTES)
    return "utf-8"


def _begins_in_utf8(data: bytes) -> bool:
    for count in range(2, _LONGEST_CHARACTER + 1):
        try:
            data[:count].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return True
    return False


def _not_opened(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be opened ({error.strerror}). Check the path.")


def _no_table(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is no csv table that can be read ({error}). Save it as csv in UTF-8, divided by "
        "commas."
    )
