"""Parts written by many processes, killed and begun again, and the stores made of them."""

import dataclasses
import json
import multiprocessing
import os
import pickle
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stores import numbered_record, random_slices
from vismae.core.errors import DataError
from vismae.data.store import Part, PartWriter, Store, assemble_store

SLICES = random_slices(30)


def write_part(folder: Path, name: str, numbers: range, **options: object) -> Part:
    with PartWriter(folder, name, **options) as writer:  # type: ignore[arg-type]
        for number in numbers:
            writer.add(numbered_record(number), SLICES[number])
        return writer.finish()


def assemble(folder: Path, *parts: Part, previous: Store | None = None, **options: object) -> Store:
    return assemble_store(folder, parts, encoding="zstd", previous=previous, **options)  # type: ignore[arg-type]


def assert_holds(store: Store, numbers: list[int]) -> None:
    assert store.index["image_id"].tolist() == [f"image{number}" for number in numbers]
    for row, number in enumerate(numbers):
        np.testing.assert_array_equal(store.read(row).pixels, SLICES[number])
    assert store.verify() == []


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_parts_of_several_processes_become_one_store_in_the_order_given(tmp_path: Path) -> None:
    ranges = {f"{start:06d}": range(start, start + 10) for start in (20, 0, 10)}
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(write_part, tmp_path, *item) for item in ranges.items()]
        parts = [future.result() for future in futures]

    store = assemble(tmp_path, *parts)

    assert_holds(store, [*range(20, 30), *range(20)])
    assert store.manifest["by_modality"] == {"ct": 30}
    assert names(tmp_path) == {
        *("manifest.json", "index-0001.parquet"),
        *(f"shards/{name}-000.arrow" for name in ranges),
    }


def test_a_finished_part_tells_what_it_holds_and_travels(tmp_path: Path) -> None:
    with PartWriter(tmp_path, "a") as writer:
        pixels = np.zeros((4, 4), np.uint8)
        writer.add(numbered_record(0), pixels, np.diag([0, 3, 3, 9]))
        part = writer.finish()

    assert (part.name, part.rows, part.by_modality) == ("a", 1, {"ct": 1})
    assert part.label_values == (0, 3, 9)
    assert [shard.file for shard in part.shards] == ["shards/a-000.arrow"]
    assert part.shards[0].bytes == (tmp_path / "shards/a-000.arrow").stat().st_size
    assert pickle.loads(pickle.dumps(part)) == part
    assert Part.from_json(json.loads(json.dumps(dataclasses.asdict(part)))) == part


@pytest.mark.parametrize("encoding", ["raw", "zstd"])
def test_the_index_knows_the_bytes_that_pyarrow_finds_in_the_shard(
    tmp_path: Path, encoding: str
) -> None:
    rng = np.random.default_rng(3)
    with PartWriter(tmp_path, "a", encoding=encoding, shard_mib=1) as writer:
        for number in range(40):
            pixels = rng.integers(0, 255, (300, 200 + number), np.uint8)
            label_map = pixels // 100 if number % 3 == 0 else None
            writer.add(numbered_record(number), pixels, label_map)
        part = writer.finish()
    index = assemble_store(tmp_path, [part], encoding=encoding).index

    assert len(part.shards) > 1
    for shard, rows in index.groupby("shard"):
        path = tmp_path / part.shards[shard].file
        content = path.read_bytes()
        table = pa.ipc.open_file(path).read_all()
        assert rows["position"].tolist() == list(range(len(table)))
        for position, row in enumerate(rows.itertuples()):
            for column in ("pixels", "label_map"):
                start, length = (getattr(row, f"{column}_{fact}") for fact in ("offset", "bytes"))
                expected = table[column][position].as_py()
                if expected is None:
                    assert np.isnan(start)
                else:
                    assert content[int(start) : int(start) + int(length)] == expected


def test_a_part_that_is_begun_again_replaces_what_was_left_of_it(tmp_path: Path) -> None:
    many = np.random.default_rng(0).integers(0, 255, (9, 1024, 1024), np.uint8)
    killed = PartWriter(tmp_path, "a", shard_mib=1, encoding="raw")
    for number, pixels in enumerate(many):
        killed.add(numbered_record(number), pixels)
    assert len(list((tmp_path / "shards").glob("a-*"))) == 9

    part = write_part(tmp_path, "a", range(5))

    assert_holds(assemble(tmp_path, part), [0, 1, 2, 3, 4])
    assert names(tmp_path) == {"manifest.json", "index-0001.parquet", "shards/a-000.arrow"}


def test_a_finished_part_may_be_written_again_until_it_is_in_the_store(tmp_path: Path) -> None:
    write_part(tmp_path, "a", range(9))
    part = write_part(tmp_path, "a", range(3))
    store = assemble(tmp_path, part)

    with pytest.raises(DataError, match="holds a part a already"):
        PartWriter(tmp_path, "a")
    assert_holds(store, [0, 1, 2])


def write_for_ever(folder: Path) -> None:
    with PartWriter(folder, "killed", encoding="raw", shard_mib=1) as writer:
        while True:
            writer.add(numbered_record(0), np.zeros((512, 512), np.uint8))


def test_a_killed_process_leaves_nothing_that_looks_like_a_part(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=write_for_ever, args=(tmp_path,))
    process.start()
    while not (tmp_path / "shards/killed-003.arrow.unfinished").exists():
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    left = names(tmp_path)

    assert all(name.endswith(".unfinished") for name in left)
    store = assemble(tmp_path, write_part(tmp_path, "b", range(4)))
    assert_holds(store, [0, 1, 2, 3])
    assert not names(tmp_path) & left


def test_a_part_that_is_not_finished_is_removed(tmp_path: Path) -> None:
    with PartWriter(tmp_path, "a") as writer:
        writer.add(numbered_record(0), SLICES[0])
        assert names(tmp_path) == {"parts/a.parquet.unfinished"}
    assert names(tmp_path) == set()


def test_a_part_without_slices_leaves_no_files_and_adds_none(tmp_path: Path) -> None:
    empty = write_part(tmp_path, "a", range(0))
    assert (empty.rows, empty.shards, names(tmp_path)) == (0, (), set())

    store = assemble(tmp_path, empty, write_part(tmp_path, "b", range(2)))
    assert_holds(store, [0, 1])
    with pytest.raises(DataError, match="at least one image"):
        assemble(tmp_path / "other", write_part(tmp_path / "other", "a", range(0)))


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "a b"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="no name of a part"):
        PartWriter(tmp_path, name)


def test_rows_keep_their_numbers_when_parts_are_added(tmp_path: Path) -> None:
    store = assemble(
        tmp_path, write_part(tmp_path, "a", range(5)), write_part(tmp_path, "b", range(5, 9))
    )
    for start in (9, 14, 19):
        part = write_part(tmp_path, f"c{start}", range(start, start + 5))
        store = assemble(tmp_path, part, previous=store)

    assert_holds(store, list(range(24)))
    assert store.manifest["generation"] == 4
    assert store.index["shard"].tolist() == [0] * 5 + [1] * 4 + [2] * 5 + [3] * 5 + [4] * 5
    assert {name for name in names(tmp_path) if "index" in name} == {"index-0004.parquet"}


def test_the_old_store_stays_whole_until_the_new_manifest_is_there(tmp_path: Path) -> None:
    before = assemble(tmp_path, write_part(tmp_path, "a", range(5)))
    part = write_part(tmp_path, "b", range(5, 9))
    half = PartWriter(tmp_path, "c")
    half.add(numbered_record(9), SLICES[9])
    assert_holds(Store(tmp_path), [0, 1, 2, 3, 4])

    after = assemble(tmp_path, part, previous=Store(tmp_path))

    assert_holds(after, list(range(9)))
    # Opened before, read after: the old index is gone from the folder, not from its reader.
    assert before.index["image_id"].tolist() == [f"image{n}" for n in range(5)]
    np.testing.assert_array_equal(before.read(4).pixels, SLICES[4])
    assert before.columns(["volume_id"])["volume_id"].tolist() == [f"V{n}" for n in range(5)]


def test_a_failed_assembly_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    store = assemble(tmp_path, write_part(tmp_path, "a", range(5)))
    part = write_part(tmp_path, "b", range(5, 9))
    (tmp_path / "parts/b.parquet").unlink()

    with pytest.raises(DataError, match=r"parts/b\.parquet is missing or damaged"):
        assemble(tmp_path, part, previous=store)

    assert_holds(Store(tmp_path), [0, 1, 2, 3, 4])
    assert not [name for name in names(tmp_path) if "index-0002" in name]


def test_an_assembly_killed_before_its_manifest_is_simply_done_again(tmp_path: Path) -> None:
    store = assemble(tmp_path, write_part(tmp_path, "a", range(5)))
    part = write_part(tmp_path, "b", range(5, 9))
    (tmp_path / "index-0002.parquet").write_bytes(b"written by a process that was killed then")
    (tmp_path / "index-0003.parquet.unfinished").write_bytes(b"and another")

    assert_holds(assemble(tmp_path, part, previous=store), list(range(9)))


def test_rows_left_by_an_assembly_killed_after_its_manifest_are_removed(tmp_path: Path) -> None:
    part = write_part(tmp_path, "a", range(5))
    rows = (tmp_path / "parts/a.parquet").read_bytes()
    store = assemble(tmp_path, part)
    (tmp_path / "parts/a.parquet").write_bytes(rows)

    store = assemble(tmp_path, write_part(tmp_path, "b", range(5, 7)), previous=store)

    assert_holds(store, list(range(7)))
    assert not list((tmp_path / "parts").iterdir())


def test_parts_that_the_store_holds_are_passed_over(tmp_path: Path) -> None:
    parts = [write_part(tmp_path, name, range(start, start + 2)) for start, name in enumerate("ab")]
    store = assemble(tmp_path, *parts[:1])

    assert_holds(assemble(tmp_path, *parts, previous=store), [0, 1, 1, 2])


def test_a_part_with_too_few_rows_is_refused(tmp_path: Path) -> None:
    part = write_part(tmp_path, "a", range(5))
    path = tmp_path / "parts/a.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)

    with pytest.raises(DataError, match="has 4 rows, 5 were written"):
        assemble(tmp_path, part)


def test_extra_columns_of_old_and_new_rows_stand_beside_one_another(tmp_path: Path) -> None:
    with PartWriter(tmp_path, "a", extra_columns=("site",)) as writer:
        writer.add(numbered_record(0, extra={"site": "north"}), SLICES[0])
        store = assemble(tmp_path, writer.finish(), extra_columns=["site"])
    with PartWriter(tmp_path, "b", extra_columns=("ward",)) as writer:
        writer.add(numbered_record(1, extra={"ward": "7"}), SLICES[1])
        store = assemble(tmp_path, writer.finish(), extra_columns=["ward"], previous=store)

    found = store.columns(["extra_site", "extra_ward"]).astype(object)
    assert found.where(found.notna(), None).to_numpy().tolist() == [["north", None], [None, "7"]]


def test_a_column_that_nobody_announced_is_refused(tmp_path: Path) -> None:
    with PartWriter(tmp_path, "a", extra_columns=("site",)) as writer:
        writer.add(numbered_record(0, extra={"site": "north"}), SLICES[0])
        part = writer.finish()
    with pytest.raises(DataError, match="column extra_site, which extra_columns does not name"):
        assemble(tmp_path, part)


def test_another_encoding_or_a_store_that_is_not_named_is_refused(tmp_path: Path) -> None:
    store = assemble(tmp_path, write_part(tmp_path, "a", range(2)))
    part = write_part(tmp_path, "b", range(2, 4), encoding="raw")

    with pytest.raises(DataError, match="encoded as zstd, what should be added as raw"):
        assemble_store(tmp_path, [part], encoding="raw", previous=store)
    with pytest.raises(DataError, match="holds a store already"):
        assemble(tmp_path, part)


def test_class_names_fold_and_label_values_are_kept_together(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2), np.uint8)
    store = None
    named = {"a": (4, {4: "liver", 10: "spleen"}), "b": (2, {2: "kidney", 4: "hepar"})}
    for name, (value, classes) in named.items():
        with PartWriter(tmp_path, name) as writer:
            writer.add(numbered_record(0), pixels, np.full((2, 2), value))
            part = writer.finish()
        store = assemble(tmp_path, part, previous=store, classes=classes, fold=3)

    assert store is not None
    assert store.label_values == (2, 4)
    assert list(store.classes.items()) == [(2, "kidney"), (4, "liver"), (10, "spleen")]
    assert store.manifest["fold"] == 3


def test_a_trial_without_pixels_counts_and_curates_but_cannot_be_read(tmp_path: Path) -> None:
    kept = write_part(tmp_path / "kept", "a", range(6))
    trial = write_part(tmp_path / "trial", "a", range(6), keep_pixels=False)

    assert trial.byte_count == kept.byte_count > 0
    store = assemble(tmp_path / "trial", trial)
    expected = assemble(tmp_path / "kept", kept).index["pixel_sha256"]
    assert store.index["pixel_sha256"].equals(expected)
    assert not list((tmp_path / "trial/shards").iterdir())
    with pytest.raises(DataError, match="was made without pixels"):
        store.read(0)
