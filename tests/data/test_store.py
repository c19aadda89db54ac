"""The store as a whole: all types and sizes come back, damage is named, nothing foreign is lost."""

import dataclasses
import json
import pickle
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from stores import numbered_record, random_slices
from vismae.core.errors import DamagedImageError, DataError, RunFolderError
from vismae.core.types import SliceRecord
from vismae.data import store_shards
from vismae.data.likeness import difference_hash
from vismae.data.store import PartWriter, Store, StoreWriter, assemble_store
from vismae.data.store_encoding import checksum_of
from vismae.data.store_format import pixel_sha256

ENCODINGS = ["raw", "zstd"]


class Interrupting(list[np.ndarray]):
    """Stands for the key press that comes while a slice is being written."""

    @property
    def size(self) -> int:
        raise KeyboardInterrupt


def write_store(folder: Path, slices: list[np.ndarray], **options: object) -> Store:
    with StoreWriter(folder, **options) as writer:  # type: ignore[arg-type]
        for number, pixels in enumerate(slices):
            writer.add(numbered_record(number), pixels)
    return Store(folder)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path: Path, encoding: str) -> None:
    slices = random_slices(25)

    store = write_store(tmp_path / "s", slices, encoding=encoding)

    assert len(store) == 25
    for row in np.random.default_rng(1).permutation(25):
        found = store.read(int(row)).pixels
        assert found.dtype == slices[row].dtype
        assert found.flags.writeable
        np.testing.assert_array_equal(found, slices[row])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_label_maps_keep_their_raw_values(tmp_path: Path, encoding: str) -> None:
    small = np.array([[0, 255], [7, 0]], dtype=np.int64)
    wide = np.array([[0, 256], [1000, 0]], dtype=np.int32)
    with StoreWriter(tmp_path / "s", encoding=encoding) as writer:  # type: ignore[arg-type]
        writer.add(numbered_record(0), np.zeros((2, 2), np.uint8), small)
        writer.add(numbered_record(1), np.zeros((2, 2), np.uint8))
        writer.add(numbered_record(2), np.zeros((2, 2), np.uint8), wide)
        store = writer.finish()

    assert store.label_values == (0, 7, 255, 256, 1000)
    first, none, last = (store.read(row).label_map for row in range(3))
    assert first is not None
    assert last is not None
    assert (first.dtype, last.dtype, none) == (np.uint8, np.uint16, None)
    np.testing.assert_array_equal(first, small)
    np.testing.assert_array_equal(last, wide)
    assert store.index["has_label_map"].tolist() == [True, False, True]


def test_the_index_holds_every_fact_of_the_record_and_the_pixels(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.int16).reshape(3, 4)
    facts = {
        "slice_index": 4,
        "slope": 2.0,
        "intercept": -1024.0,
        "scale_low": -5.0,
        "scale_high": 9.0,
        "spacing_row_mm": 0.7,
        "label": "a|b",
        "split": "val",
        "extra": {"sex": "F"},
    }
    with StoreWriter(tmp_path / "s", extra_columns=["sex", "age"]) as writer:
        writer.add(numbered_record(3, **facts), pixels)

    row = Store(tmp_path / "s").index.iloc[0]

    for name in ("slice_index", "slope", "intercept", "scale_low", "scale_high", "label", "split"):
        assert row[name] == facts[name]
    assert row["image_id"] == "image3"
    assert (row["modality"], row["unit"]) == ("ct", "hu")
    assert np.isnan(row["spacing_slice_mm"])
    assert row["spacing_row_mm"] == 0.7
    assert row["extra_sex"] == "F"
    assert row[["extra_age"]].isna().all()
    assert (row["height"], row["width"], row["channels"], row["dtype"]) == (3, 4, 1, "int16")
    assert row["pixel_sha256"] == pixel_sha256(pixels)
    assert int(row["likeness"]) == difference_hash(pixels)


def test_an_extra_value_without_a_column_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="no extra column sex"),
        StoreWriter(tmp_path / "s") as writer,
    ):
        writer.add(numbered_record(extra={"sex": "F"}), np.zeros((2, 2), np.uint8))


def test_shards_are_closed_at_their_size_and_rows_found_across_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    slices = [rng.integers(0, 255, (512, 512), dtype=np.uint8) for _ in range(9)]  # 0.25 MiB

    store = write_store(tmp_path / "s", slices, encoding="raw", shard_mib=1)

    shards = store.manifest["shards"]
    assert [entry["rows"] for entry in shards] == [4, 4, 1]
    for entry in shards:
        content = (store.folder / entry["file"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(content), sha256(content).hexdigest())
    assert store.index["shard"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert store.index["position"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    for row in (8, 0, 4, 3):
        np.testing.assert_array_equal(store.read(row).pixels, slices[row])
    assert store.verify() == []


def test_an_image_too_large_for_a_shard_is_refused_and_not_written_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_shards, "_MOST_BYTES", 99)
    write_store(tmp_path / "fits", [np.zeros((9, 11), np.uint8)], encoding="raw")
    with pytest.raises(DataError, match=r"takes 100 bytes.*at most 99 bytes.*--max-side"):
        write_store(tmp_path / "s", [np.zeros((10, 10), np.uint8)], encoding="raw")


def test_a_store_travels_to_another_process_as_its_folder(tmp_path: Path) -> None:
    slices = random_slices(7)
    store = write_store(tmp_path / "s", slices)
    store.read(0)

    content = pickle.dumps(store)
    again = pickle.loads(content)

    assert len(content) < 500
    np.testing.assert_array_equal(again.read(6).pixels, slices[6])


def test_reading_outside_the_store_is_an_index_error(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", random_slices(2))
    for row in (-1, 2):
        with pytest.raises(IndexError, match="2 rows"):
            store.read(row)


def test_wide_floats_become_float32_and_wide_integers_int32(tmp_path: Path) -> None:
    values = np.array([[0.1, 2.0]])
    store = write_store(tmp_path / "s", [values, np.array([[1, -70000]]), values > 1])

    assert store.read(0).pixels.dtype == np.float32
    np.testing.assert_array_equal(store.read(0).pixels, values.astype(np.float32))
    assert store.read(1).pixels.dtype == np.int32
    np.testing.assert_array_equal(store.read(2).pixels, np.array([[0, 1]], dtype=np.uint8))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((2, 2), dtype=np.complex64), "complex64"),
        (np.array([[2**40]]), "int64"),
        (np.zeros((2, 2, 2, 2), dtype=np.uint8), r"shape \(2, 2, 2, 2\)"),
        (np.zeros((0, 4), dtype=np.uint8), "not empty"),
    ],
)
def test_what_cannot_be_kept_losslessly_is_refused(
    tmp_path: Path, pixels: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=message), StoreWriter(tmp_path / "s") as writer:
        writer.add(numbered_record(), pixels)


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        (np.zeros((2, 3), dtype=np.uint8), r"shape \(2, 3\), its image \(2, 2\)"),
        (np.full((2, 2), -1), "from -1 to -1"),
        (np.full((2, 2), 65536), "0 to 65535"),
        (np.full((2, 2), 0.5), "whole numbers"),
    ],
)
def test_unfit_label_maps_are_refused(tmp_path: Path, label_map: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message), StoreWriter(tmp_path / "s") as writer:
        writer.add(numbered_record(), np.zeros((2, 2), np.uint8), label_map)


def test_a_finished_store_is_replaced_only_when_asked(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    write_store(folder, random_slices(3))

    with pytest.raises(RunFolderError, match=r"--overwrite .*another --store"):
        StoreWriter(folder)
    assert len(write_store(folder, random_slices(2), overwrite=True)) == 2


def test_files_that_are_no_part_of_a_store_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    for overwrite in (False, True):
        with pytest.raises(RunFolderError, match=r"thesis\.txt"):
            StoreWriter(tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_everything_that_belongs_to_a_store_is_replaced_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    write_store(folder, random_slices(3))
    earlier = [
        *("report.html", "rejected.csv", "contact_sheet.png", "index.parquet"),
        *("index-0007.parquet.unfinished", "curation-0002.parquet", ".manifest.json.x3f_a1"),
        *("parts/000004.parquet", "shards/000004-000.arrow"),
    ]
    for name in earlier:
        (folder / name).write_text("of an earlier ingest")

    store = write_store(folder, random_slices(2), overwrite=True)

    assert not [name for name in earlier if (folder / name).exists()]
    assert store.verify() == []


def test_an_interrupted_write_leaves_no_store_and_does_not_block_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    pixels = Interrupting(np.zeros((2, 2), np.uint8))
    with pytest.raises(KeyboardInterrupt):
        write_store(folder, [np.zeros((2, 2), np.uint8), pixels])  # type: ignore[list-item]

    assert not list(folder.rglob("*.unfinished"))
    with pytest.raises(DataError, match="not a finished store"):
        Store(folder)
    assert len(write_store(folder, random_slices(2))) == 2


def test_what_a_killed_writer_leaves_does_not_block_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    killed = StoreWriter(folder)
    killed.add(numbered_record(), np.zeros((2, 2), np.uint8))  # and never finished

    assert list(folder.rglob("*.unfinished"))
    assert len(write_store(folder, random_slices(2))) == 2


def test_a_store_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one image"), StoreWriter(tmp_path / "s"):
        pass


@pytest.mark.parametrize(
    ("version", "words"),
    [(1, r"1 was made by an older vismae.*Ingest again"), (3, "3 was written by a newer vismae")],
)
def test_another_format_is_refused_by_name(tmp_path: Path, version: int, words: str) -> None:
    store = write_store(tmp_path / "s", random_slices(2))
    path = store.folder / "manifest.json"
    path.write_text(json.dumps({**store.manifest, "format_version": version}))

    with pytest.raises(DataError, match=f"manifest.json: format_version {words}"):
        Store(store.folder)


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", '{"format_version": "new"}', '{"format_version": 2}'),
        '{"format_version": 2, "encoding": "raw", "count": 1}',
    ],
)
def test_a_damaged_manifest_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        Store(tmp_path)


SHARD = "shards/000001-000.arrow"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_truncated_or_missing_shard_is_an_error_that_names_it(
    tmp_path: Path, encoding: str
) -> None:
    store = write_store(tmp_path / "s", random_slices(5), encoding=encoding)
    shard = store.folder / SHARD
    content = shard.read_bytes()

    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"001-000\.arrow is missing or damaged.*bytes, the manif"):
        Store(store.folder).read(0)
    assert "differs from its checksum" in Store(store.folder).verify()[0]
    shard.unlink()
    with pytest.raises(DataError, match=r"000001-000\.arrow is missing or damaged"):
        Store(store.folder).read(0)
    assert "missing" in Store(store.folder).verify()[0]


def test_one_flipped_bit_is_found_by_verify(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", [np.full((64, 64), 9, np.uint8)], encoding="raw")
    flip_a_pixel(store)

    assert f"{SHARD} differs from its checksum" in Store(store.folder).verify()[0]


def test_pixels_that_changed_before_the_checksum_was_taken_are_found_too(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", [np.full((64, 64), 9, np.uint8)], encoding="raw")
    flip_a_pixel(store)
    without_checksums(store)
    manifest = json.loads((store.folder / "manifest.json").read_text())
    manifest["shards"][0]["sha256"] = sha256((store.folder / SHARD).read_bytes()).hexdigest()
    (store.folder / "manifest.json").write_text(json.dumps(manifest))

    assert Store(store.folder).verify() == [f"{store.folder}: the pixels of row 0 changed"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("what", ["pixels", "label_map"])
def test_a_flipped_bit_is_told_by_whoever_reads_the_row_and_no_other(
    tmp_path: Path, encoding: str, what: str
) -> None:
    with StoreWriter(tmp_path / "s", encoding=encoding) as writer:  # type: ignore[arg-type]
        for number, pixels in enumerate(random_slices(5)):
            writer.add(numbered_record(number), pixels, np.ones(pixels.shape[:2], np.uint8))
        store = writer.finish()
    index = store.index
    shard = store.folder / SHARD
    content = shard.read_bytes()
    rng = np.random.default_rng(3)
    places = rng.integers(0, int(index[f"{what}_bytes"][3]), 12)
    for place, bit in zip(places, rng.integers(0, 8, 12), strict=True):
        damaged = bytearray(content)
        damaged[int(index[f"{what}_offset"][3]) + place] ^= 1 << bit
        shard.write_bytes(damaged)
        opened = Store(store.folder)
        with pytest.raises(DamagedImageError, match=r"000001-000\.arrow: row 3 of it \(row 3 of"):
            opened.read(3)
        for row in (0, 1, 2, 4):
            opened.read(row)
        assert [" is damaged " in line for line in opened.verify()] == [False, True]


@pytest.mark.parametrize("count", [0, 1, 511, 512, 1300, 4096])
def test_a_checksum_tells_every_byte_and_its_place(count: int) -> None:
    content = np.random.default_rng(count).integers(0, 256, count, dtype=np.uint8).tobytes()
    whole = checksum_of(content)
    assert checksum_of(memoryview(content)) == whole
    for place in range(0, count, 7):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        assert checksum_of(changed) != whole
    if count:
        assert checksum_of(content[:-1]) != whole
        assert checksum_of(content + bytes(1)) != whole
        assert checksum_of(bytes(count)) != whole
    if count >= 1024:
        assert checksum_of(content[512:1024] + content[:512] + content[1024:]) != whole


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_store_without_checksums_of_rows_is_read_and_added_to(
    tmp_path: Path, encoding: str
) -> None:
    slices = random_slices(4)
    store = write_store(tmp_path / "s", slices[:3], encoding=encoding)
    without_checksums(store)
    older = Store(store.folder)
    assert older.verify() == []
    with PartWriter(store.folder, "later", encoding=encoding) as writer:  # type: ignore[arg-type]
        writer.add(numbered_record(3), slices[3])
        part = writer.finish()
    grown = assemble_store(store.folder, [part], encoding=encoding, previous=older)

    assert grown.index["pixels_checksum"].notna().tolist() == [False, False, False, True]
    for row, pixels in enumerate(slices):
        np.testing.assert_array_equal(grown.read(row).pixels, pixels)
    assert grown.verify() == []


def without_checksums(store: Store) -> None:
    """Make a store what earlier versions wrote: the index has no checksums of rows."""
    path = store.folder / "index-0001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["pixels_checksum", "label_map_checksum"]), path)
    manifest = json.loads((store.folder / "manifest.json").read_text())
    manifest["index"]["sha256"] = sha256(path.read_bytes()).hexdigest()
    (store.folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_zstd_value_that_cannot_be_unpacked_is_a_named_error(tmp_path: Path) -> None:
    without_checksums(write_store(tmp_path / "s", random_slices(1)))
    store = Store(tmp_path / "s")
    shard = store.folder / SHARD
    content = bytearray(shard.read_bytes())
    start = int(store.index["pixels_offset"][0])
    content[start : start + 4] = b"\0\0\0\0"
    shard.write_bytes(content)

    with pytest.raises(DamagedImageError, match=r"000001-000\.arrow: row 0 of it .* is damaged"):
        Store(store.folder).read(0)


def flip_a_pixel(store: Store) -> None:
    shard = store.folder / SHARD
    content = bytearray(shard.read_bytes())
    content[content.index(bytes([9] * 64))] ^= 1
    shard.write_bytes(content)


def test_an_index_with_too_few_rows_is_an_error(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", random_slices(2))
    other = write_store(tmp_path / "other", random_slices(1))
    (other.folder / "index-0001.parquet").replace(store.folder / "index-0001.parquet")

    with pytest.raises(DataError, match=r"index-0001\.parquet has 1 rows, manifest\.json says 2"):
        Store(store.folder)


def test_a_missing_or_damaged_index_is_an_error_that_names_it(tmp_path: Path) -> None:
    index = write_store(tmp_path / "s", random_slices(2)).folder / "index-0001.parquet"

    index.write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"index-0001\.parquet cannot be read"):
        Store(tmp_path / "s")
    index.unlink()
    with pytest.raises(DataError, match=r"index-0001\.parquet cannot be read.*incomplete"):
        Store(tmp_path / "s")


def test_the_index_has_a_column_for_every_field_of_the_numbered_record(tmp_path: Path) -> None:
    columns = set(write_store(tmp_path / "s", random_slices(1)).index.columns)
    fields = {item.name for item in dataclasses.fields(SliceRecord)} - {"extra"}

    assert fields <= columns
