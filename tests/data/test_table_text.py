from pathlib import Path

import pytest

from vismae.core.errors import DataError
from vismae.data.table_text import read_table

WANTED = ("path", "image")
ROWS = [["path", "label"], ["é/ä.png", "Müller"]]


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_a_table_reads_the_same_however_a_spreadsheet_saved_it(
    tmp_path: Path, encoding: str, separator: str, ending: str
) -> None:
    text = ending.join(separator.join(cells) for cells in ROWS) + ending

    table = read_table(write(tmp_path, text, encoding), WANTED)

    assert table.columns == ("path", "label")
    assert list(table.rows()) == [(2, ROWS[1])]
    assert table.decimal_comma == (separator == ";")


def test_the_separator_is_what_sets_a_wanted_name_apart(tmp_path: Path) -> None:
    """Other marks may be in names and cells, more often than the separator itself."""
    table = read_table(write(tmp_path, "age,in,years;path;a\tb\n1,2,3;a,b.png;\t\n"), WANTED)

    assert table.columns == ("age,in,years", "path", "a\tb")
    assert [cells for _, cells in table.rows()] == [["1,2,3", "a,b.png", ""]]


def test_a_header_in_quotes_is_divided_outside_of_them(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, '"what;path;image",path\n1,a.png\n'), WANTED)

    assert table.columns == ("what;path;image", "path")


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;"])
def test_a_first_line_that_states_the_separator_is_no_header(tmp_path: Path, first: str) -> None:
    table = read_table(write(tmp_path, f"{first}\r\npath;n\r\na.png;1\r\n"), WANTED)

    assert table.columns == ("path", "n")
    assert list(table.rows()) == [(3, ["a.png", "1"])]


def test_empty_columns_that_a_spreadsheet_adds_are_nothing(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "path;n;;\na.png;1;;;;\n;;;\nb.png\n"), WANTED)

    assert [cells for _, cells in table.rows()] == [["a.png", "1", "", ""], ["b.png", "", "", ""]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,a;image\n", "may be divided by commas or by semicolons"),
        ("sep=|\npath|a\n", "says that '|' divides columns"),
        ("path;n\na;b;c\n", "line 2: 3 cells, .* hold a semicolon into double quotes"),
        ("path;PATH\n", "column path occurs twice"),
        ('path;n\n"a;b\n', "no csv table that can be read"),
    ],
)
def test_what_cannot_be_told_apart_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message.replace("|", r"\|")):
        list(read_table(write(tmp_path, text), WANTED).rows())


def test_bytes_that_are_not_utf_8_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_table(write(tmp_path, "path\nä.png\n", "cp1252"), WANTED)

    assert "read as Windows-1252" in caplog.text


def test_the_first_letter_that_tells_the_bytes_may_come_late(tmp_path: Path) -> None:
    """Blocks of the search end in the middle of a letter."""
    for encoding in ("utf-8", "cp1252"):
        for filler in range(2**20 - 8, 2**20 - 4):
            path = write(tmp_path, "path".ljust(filler, "\n") + "é", encoding)
            assert [cells for _, cells in read_table(path, WANTED).rows()] == [["é"]]
