import os
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from factories import write_zip
from vismae.core.errors import DataError
from vismae.core.types import Spacing
from vismae.data.manifest import FileReference, ManifestTable, is_table, parse_spacing, parse_split


def write_csv(folder: Path, *lines: str, name: str = "manifest.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_every_column_ends_up_in_its_place(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path,
        "path,label_map,label,patient_id,volume_id,slice_index,spacing_mm,modality,split,sex",
        'a.png,m.png,benign,P1,V1,3,"5;0.7;0.8",MR,Valid,F',
    )

    (row,) = ManifestTable(path, keep_columns=["sex"])

    assert row.name == "a.png"
    assert row.image == FileReference(tmp_path / "a.png")
    assert row.label_map == FileReference(tmp_path / "m.png")
    assert (row.label, row.patient_id, row.group_kind) == ("benign", "P1", "patient")
    assert (row.volume_id, row.slice_index) == ("V1", 3)
    assert row.spacing == Spacing(5.0, 0.7, 0.8)
    assert (row.modality, row.split, row.extra) == ("MR", "val", {"sex": "F"})


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("image,mask", "a.png,m.png"),
        ("Path, Mask_Path ", "a.png,m.png"),
        ("mask,image", "m.png,a.png"),
    ],
)
def test_columns_have_synonyms_in_any_case_and_order(
    tmp_path: Path, header: str, line: str
) -> None:
    (row,) = ManifestTable(write_csv(tmp_path, header, line))

    assert row.image.path.name == "a.png"
    assert row.label_map is not None
    assert row.label_map.path.name == "m.png"


def test_a_text_where_a_path_belongs_is_a_file_that_is_not_there(tmp_path: Path) -> None:
    """No disk takes so long a name, and the system says so instead of "no such file"."""
    write_zip(tmp_path / "images.zip", {"a.png": b"x"})
    path = write_csv(tmp_path, "path,label_map", f"{'finding ' * 100},a.png")

    (row,) = ManifestTable(path)

    assert row.image.member is None
    assert not row.image.is_folder
    assert row.label_map == FileReference(tmp_path / "images.zip", "a.png")


def test_a_byte_order_mark_and_empty_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(b"\xef\xbb\xbfpath\r\n\r\na.png\r\n,\r\n"[:-3])

    assert [row.name for row in ManifestTable(path)] == ["a.png"]


def test_ids_say_what_kind_of_group_they_are(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "path,patient_id,group_id", "a,P1,G1", "b,,G1", "c,,")

    found = [(row.patient_id, row.group_kind) for row in ManifestTable(path)]

    assert found == [("P1", "patient"), ("G1", "group"), (None, "image")]


def test_without_an_id_column_the_file_may_say(tmp_path: Path) -> None:
    (row,) = ManifestTable(write_csv(tmp_path, "path", "a.dcm"))
    assert (row.patient_id, row.group_kind) == (None, None)


def test_paths_are_found_on_disk_in_the_archive_beside_and_in_any_archive(tmp_path: Path) -> None:
    (tmp_path / "disk.png").touch()
    elsewhere = tmp_path / "elsewhere" / "far.png"
    archive = write_zip(
        tmp_path / "t" / "images.zip", {"images/a.png": b"", "b.png": b"", "images/disk.png": b""}
    )
    path = write_csv(
        tmp_path / "t",
        "path",
        "images/a.png",
        "a.png",
        "images/b.png",
        "../disk.png",
        str(elsewhere),
        "other.zip!x/y.png",
        "gone.png",
    )

    found = [row.image for row in ManifestTable(path)]

    assert found == [
        FileReference(archive, "images/a.png"),
        FileReference(archive, "images/a.png"),
        FileReference(archive, "b.png"),
        FileReference(tmp_path / "t" / "../disk.png"),
        FileReference(elsewhere),
        FileReference(tmp_path / "t" / "other.zip", "x/y.png"),
        FileReference(tmp_path / "t" / "gone.png"),
    ]


def test_a_file_on_disk_comes_before_the_archive(tmp_path: Path) -> None:
    write_zip(tmp_path / "images.zip", {"a.png": b""})
    (tmp_path / "a.png").touch()

    (row,) = ManifestTable(write_csv(tmp_path, "path", "a.png"))

    assert row.image == FileReference(tmp_path / "a.png")


def test_a_table_can_be_gone_through_again_and_is_not_held_in_memory(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "path,label", *(f"image_{n}.png,{n % 3}" for n in range(20_000)))
    tracemalloc.start()

    table = ManifestTable(path)
    counts = [sum(1 for _ in table), sum(1 for _ in table)]

    assert counts == [20_000, 20_000]
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,label", "a,b"], "no column names the images.*found file, label"),
        (["path|label", "a|b"], r"found path\|label. Columns are divided by commas, semicolons or"),
        (["path,label", "a,b", "a\0,b"], "line 3: a cell holds a NUL character"),
        (["path,path", "a,b"], "column path occurs twice"),
        (["path"], "no rows"),
        (["path,label", ",b"], "line 2: the cell path is empty"),
        (["path,label", "a,b", "a,b,c"], "line 3: 3 cells, the header has 2"),
        (["path,split", "a,holdout"], "line 2: split 'holdout' is not known"),
        (["path,spacing_mm", "a,1;2;3;4"], "line 2: spacing_mm '1;2;3;4'"),
        (["path,spacing_mm", "a,-1"], "spacing_mm '-1'"),
        (["path,spacing_mm", 'a,"1,5"'], "spacing_mm '1,5' may be decimal commas"),
        (["path,spacing_mm", 'a,"5,5;1"'], "spacing_mm '5,5;1' may be decimal commas"),
        (["path,channel", "a,FLAIR"], "channel 'FLAIR' is not a whole number"),
        (["path,channel", "a,-1"], "channel -1 is negative"),
        (["path,slice_index", "a,first"], "slice_index 'first' is not a whole number"),
        (["path;slice_index", "a;1.000"], "slice_index '1.000' is not a whole number"),
        (["path;slice_index", "a;1,5"], "slice_index '1,5' is not a whole number"),
        (["path\tspacing_mm", "a\t1,5"], "spacing_mm '1,5' may be decimal commas"),
        (["path,slice_index", "a,5e9"], "slice_index 5000000000 is beyond 1000000000"),
    ],
)
def test_what_cannot_be_understood_is_an_error_with_its_line(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        list(ManifestTable(write_csv(tmp_path, *lines)))


def test_a_wanted_column_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column age of --keep-column .* found path, sex"):
        ManifestTable(write_csv(tmp_path, "path,sex", "a,F"), keep_columns=["sex", "age"])


def test_a_file_that_is_no_csv_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"path\n\xff\xfe\x00")
    with pytest.raises(DataError, match="line 2: a cell holds a NUL"):
        ManifestTable(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_bytes("path\nä.png\n".encode() + b"\xe4.png\n")
    with pytest.raises(DataError, match="no csv table that can be read"):
        list(ManifestTable(tmp_path / "m.csv"))
    with pytest.raises(DataError, match="cannot be opened"):
        ManifestTable(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Spacing()),
        ("0.5", Spacing(None, 0.5, 0.5)),
        ("0.5;0.6", Spacing(None, 0.5, 0.6)),
        ("3; 0.5; 0.6", Spacing(3.0, 0.5, 0.6)),
        ("3,0.5,0.6", Spacing(3.0, 0.5, 0.6)),
        ("3,2,1", Spacing(3.0, 2.0, 1.0)),
        ("0,5", Spacing(None, 0.5, 0.5)),
        ("3 0,5 0,6", Spacing(3.0, 0.5, 0.6)),
    ],
)
def test_spacing_is_slice_row_column(text: str, expected: Spacing) -> None:
    assert parse_spacing(text, "here") == expected


def test_a_table_with_semicolons_has_decimal_commas(tmp_path: Path) -> None:
    lines = ["path;slice_index;spacing_mm", '"a;b.png";3,00;"5;0,7;0,75"', "c.png;4;1,5"]
    first, second = ManifestTable(write_csv(tmp_path, *lines))

    assert (first.name, first.slice_index) == ("a;b.png", 3)
    assert first.spacing == Spacing(5.0, 0.7, 0.75)
    assert second.spacing == Spacing(None, 1.5, 1.5)


def test_a_name_in_the_letters_of_an_old_disk_is_found(tmp_path: Path) -> None:
    on_disk = tmp_path / os.fsdecode("Müller.png".encode("cp1252"))
    on_disk.touch()

    (row,) = ManifestTable(write_csv(tmp_path, "path", "Müller.png"))

    assert row.image.path == on_disk


def test_a_text_file_is_a_table_by_its_header_alone(tmp_path: Path) -> None:
    for name, lines in {
        "all.csv": ["file", "a"],
        "named.tsv": ["path\tlabel", "a\tb"],
        "unicode.txt": ["image\tlabel", "a\tb"],
    }.items():
        assert is_table(write_csv(tmp_path, *lines, name=name))
    for name, lines in {
        "README.txt": ["The path of images", "x"],
        "participants.tsv": ["participant_id\tage", "a\t1"],
        "path.png": ["path", "a"],
    }.items():
        assert not is_table(write_csv(tmp_path, *lines, name=name))
    assert not is_table(tmp_path)


@pytest.mark.parametrize("word", ["val", "valid", "VALIDATION"])
def test_split_words_have_synonyms(word: str) -> None:
    assert parse_split(word, "here") == "val"


@pytest.mark.parametrize("written", ["in/\u00e4.png", "in/a\u0308.png"])
@pytest.mark.parametrize(
    "named", ["in/\u00e4.png", "in/a\u0308.png", "in\\\u00e4.png", ".\\in\\\u00e4.png"]
)
def test_a_path_may_be_spelt_as_another_system_does(
    tmp_path: Path, written: str, named: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / written).touch()
    table = tmp_path / "m.csv"
    table.write_text(f"path\n{named}\n", encoding="utf-8")

    [row] = ManifestTable(table)

    assert row.image.path.resolve() == (tmp_path / written).resolve()


def test_a_member_of_the_archive_beside_it_may_be_spelt_so_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("in/\u00e4.png", b"")
    table = tmp_path / "m.csv"
    table.write_text("path\nin\\a\u0308.png\n", encoding="utf-8")

    [row] = ManifestTable(table)

    assert row.image == FileReference(tmp_path / "images.zip", "in/\u00e4.png")
