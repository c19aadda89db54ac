"""Duplicates: against a comparison of all pairs, and from a store's index."""

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.stores import numbered_record

from vismae.core.errors import DataError
from vismae.core.types import Flag
from vismae.data.duplicates import (
    MOST_BITS_APART,
    Duplicates,
    column_codes,
    duplicates_of_index,
    exact_duplicates,
    near_duplicates,
    pairs_across,
)
from vismae.data.likeness import fine_hash
from vismae.data.store import Store, StoreWriter


def bits_of(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, 256)) < 0.45


def changed(bits: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Return the bits with a number of them turned over in every row."""
    rng = np.random.default_rng(seed)
    places = np.argsort(rng.random(bits.shape), axis=1)[:, :count]
    result = bits.copy()
    np.put_along_axis(result, places, ~np.take_along_axis(bits, places, axis=1), axis=1)
    return result


def find(
    bits: np.ndarray,
    pixel_codes: np.ndarray | None = None,
    volumes: np.ndarray | None = None,
    series: np.ndarray | None = None,
    blank: np.ndarray | None = None,
) -> Duplicates:
    """Look for duplicates among rows that differ in pixels and volume unless they are given."""
    rows = len(bits)
    numbers = np.arange(1, rows + 1, dtype=np.uint64)
    blank = np.zeros(rows, bool) if blank is None else blank
    duplicate_of = exact_duplicates(
        np.stack([numbers, numbers], axis=1) if pixel_codes is None else pixel_codes, blank
    )
    near_duplicate_of, thinned = near_duplicates(
        np.packbits(bits, axis=1),
        numbers if volumes is None else volumes.astype(np.uint64),
        np.zeros(rows, np.uint64) if series is None else series.astype(np.uint64),
        blank | (duplicate_of >= 0),
    )
    return Duplicates(duplicate_of, near_duplicate_of, thinned)


def all_pairs(bits: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    """Return the first near duplicate of each row by looking at every pair."""
    found = np.full(len(bits), -1)
    for later in range(len(bits)):
        for earlier in range(later):
            apart = (bits[later] != bits[earlier]).sum()
            fewest = min(bits[later].sum(), bits[earlier].sum())
            near = apart <= MOST_BITS_APART and 5 * apart <= fewest
            if near and volumes[later] != volumes[earlier]:
                found[later] = earlier
                break
    return found


def test_near_duplicates_are_those_of_a_comparison_of_all_pairs() -> None:
    kinds = bits_of(12)
    steps = [changed(kinds, count, count) for count in range(0, 22)]
    bits = np.concatenate([kinds, *steps])
    bits = bits[np.random.default_rng(3).permutation(len(bits))]
    volumes = np.random.default_rng(4).integers(1, 40, len(bits))

    found = find(bits, volumes=volumes)

    wanted = all_pairs(bits, volumes)
    assert 80 < (wanted >= 0).sum() < len(bits)
    assert found.near_duplicate_of.tolist() == wanted.tolist()
    assert (found.duplicate_of == -1).all()
    assert found.thinned == 0


@pytest.mark.parametrize("seed", range(5))
def test_twelve_changed_bits_are_always_found_and_thirteen_never(seed: int) -> None:
    kinds = bits_of(200, seed)

    for count, share in ((MOST_BITS_APART, 1.0), (MOST_BITS_APART + 1, 0.0)):
        found = find(np.concatenate([kinds, changed(kinds, count, seed)]))
        assert (found.near_duplicate_of[:200] == -1).all()
        assert (found.near_duplicate_of[200:] == np.arange(200)).mean() == share


def test_hashes_with_few_bits_must_agree_better() -> None:
    blob = np.zeros((2, 256), bool)
    blob[:, 100:130] = True
    blob[1, 130:137] = True  # 7 bits apart, 30 set: more than a fifth
    assert find(blob).near_duplicate_of.tolist() == [-1, -1]
    blob[1, 136] = False
    assert find(blob).near_duplicate_of.tolist() == [-1, 0]
    nothing_to_see = np.zeros((2, 256), bool)
    assert find(nothing_to_see).near_duplicate_of.tolist() == [-1, -1]


def test_rows_of_one_volume_or_series_are_never_near_duplicates() -> None:
    alike = np.repeat(bits_of(1), 4, axis=0)

    assert find(alike, volumes=np.array([5, 5, 5, 5])).near_duplicate_of.max() == -1
    assert find(alike, series=np.array([7, 7, 7, 7])).near_duplicate_of.max() == -1
    found = find(alike, volumes=np.array([1, 2, 1, 2]), series=np.array([0, 0, 3, 4]))
    assert found.near_duplicate_of.tolist() == [-1, 0, 1, 0]


def test_exact_copies_have_all_bits_of_the_code_alike_and_name_the_first_row() -> None:
    codes = np.array([[1, 1], [2, 1], [1, 2], [1, 1], [2, 1], [1, 1]], dtype=np.uint64)

    found = find(bits_of(6), pixel_codes=codes)

    assert found.duplicate_of.tolist() == [-1, -1, -1, 0, 1, 0]


def test_the_first_of_exact_copies_stands_for_them_among_the_near_ones() -> None:
    picture = bits_of(1)
    bits = np.concatenate([picture, picture, changed(picture, 3), changed(picture, 3)])
    codes = np.array([[1, 1], [1, 1], [2, 2], [2, 2]], dtype=np.uint64)

    found = find(bits, pixel_codes=codes)

    assert found.duplicate_of.tolist() == [-1, 0, -1, 2]
    assert found.near_duplicate_of.tolist() == [-1, -1, 0, -1]


def test_blank_rows_are_left_out() -> None:
    same = np.ones((3, 2), dtype=np.uint64)
    alike = np.repeat(bits_of(1), 3, axis=0)

    found = find(alike, pixel_codes=same, blank=np.array([True, False, True]))
    assert found.duplicate_of.tolist() == [-1, -1, -1]
    found = find(alike, blank=np.array([True, False, False]))
    assert found.near_duplicate_of.tolist() == [-1, -1, 1]


def test_long_runs_are_thinned_and_counted_and_close_copies_still_found() -> None:
    # 3000 pictures that differ in every fourth column only: about 90 agree in any one band.
    rows = 3000
    bits = np.repeat(bits_of(1, 9), rows, axis=0)
    bits[:, ::4] = bits_of(rows, 10)[:, ::4]
    bits = np.concatenate([bits, changed(bits[:300], 2, 11)])

    found = find(bits)

    assert found.thinned > rows / 2
    assert (found.near_duplicate_of[rows:] == np.arange(300)).mean() > 0.99


def test_no_rows_and_only_blank_rows_have_no_duplicates() -> None:
    assert find(np.zeros((0, 256), bool)).duplicate_of.shape == (0,)
    found = find(bits_of(2), blank=np.array([True, True]))
    assert found.near_duplicate_of.tolist() == [-1, -1]


def test_pairs_across_differ_in_a_known_value() -> None:
    first_of = np.array([-1, 0, 0, -1, 3, 0])
    split = np.array([5, 5, 6, 6, 0, 7], dtype=np.uint64)

    assert pairs_across(first_of, split).tolist() == [[0, 2], [0, 5]]
    assert pairs_across(np.full(3, -1), split[:3]).shape == (0, 2)


def picture(seed: int, size: tuple[int, int] = (90, 100)) -> np.ndarray:
    """Return a smooth picture with structure all over, 8 bits."""
    coarse = np.random.default_rng(seed).integers(0, 255, (10, 11), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content))


def index_of(store: Store) -> Path:
    return store.folder / store.manifest["index"]["file"]


def test_a_store_tells_its_duplicates(tmp_path: Path) -> None:
    first = picture(0)
    smaller = np.asarray(Image.fromarray(first).resize((61, 55), Image.Resampling.BOX))
    flat = np.zeros((4, 9), np.uint8)
    images = [
        (first, {}),
        (picture(1), {}),
        (first, {}),  # 2: exact
        (jpeg(first, 80), {"series_id": "S"}),  # 3: near
        (smaller, {"label": "a", "split": "test"}),  # 4: near
        (first.reshape(100, 90), {}),  # 5: the same bytes in another shape
        (first.astype(np.int16), {}),  # 6: the same values of another type
        (first.astype(np.int16) * 9 - 1024, {"volume_id": "V0"}),  # 7: of one volume with 0
        (flat, {"flags": (Flag.BLANK,)}),
        (flat, {"flags": (Flag.LOSSY, Flag.NEARLY_BLANK)}),
        (picture(1) // 2, {}),  # 10: darker than 1
    ]
    with StoreWriter(tmp_path / "store") as writer:
        for number, (pixels, facts) in enumerate(images):
            writer.add(numbered_record(number, **facts), pixels)
        index = index_of(writer.finish())

    found = duplicates_of_index(index)

    assert found.duplicate_of.tolist() == [-1, -1, 0, *[-1] * 8]
    # Row 7 is of one volume with 0, so 3 is the first that it looks like.
    assert found.near_duplicate_of.tolist() == [-1, -1, -1, 0, 0, -1, 0, 3, -1, -1, 1]
    splits = column_codes(index, "split")
    assert (splits != 0).tolist() == [number == 4 for number in range(11)]
    patients = column_codes(index, "patient_id")
    assert len(set(patients.tolist())) == 6
    assert pairs_across(found.duplicate_of, patients).tolist() == [[0, 2]]


def test_an_index_without_hashes_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    shape = {"height": [3], "width": [3], "channels": [1], "dtype": ["uint8"], "flags": [""]}
    pq.write_table(pa.table({"pixel_sha256": ["00" * 32], **shape}), path)
    with pytest.raises(DataError, match=r"no column fine_likeness.*[Ii]ngest again"):
        duplicates_of_index(path)

    pq.write_table(pa.table({"pixel_sha256": ["no hash"], **shape}), path)
    with pytest.raises(DataError, match="damaged"):
        duplicates_of_index(path)
    with pytest.raises(DataError, match="cannot be read"):
        duplicates_of_index(tmp_path / "missing.parquet")


@pytest.mark.real_data
def test_copies_of_real_images_are_found_and_other_patients_are_not(test_data: Path) -> None:
    folder = test_data / "data" / "seg_mr_cardiac_acdc"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    originals, copies, patients = [], [], []
    with (
        zipfile.ZipFile(folder / "images.zip") as archive,
        (folder / "manifest.csv").open() as file,
    ):
        for row in csv.DictReader(file):
            if int(row["group_id"][-3:]) % 3:
                continue  # a third of the patients is enough
            pixels = np.asarray(Image.open(io.BytesIO(archive.read(row["path"]))).convert("L"))
            originals.append(fine_hash(pixels))
            copies.append(fine_hash(jpeg(pixels, 70)))
            patients.append(row["group_id"])
    count = len(originals)
    codes = np.unique(patients, return_inverse=True)[1] + 1
    hashes = np.frombuffer(b"".join(originals + copies), np.uint8).reshape(2 * count, 32)
    bits = np.unpackbits(hashes, axis=1).astype(bool)

    found = find(bits, volumes=np.concatenate([codes, codes + 1000])).near_duplicate_of

    assert (found[:count] >= 0).sum() == 0
    right = np.array(patients)[found[count:]] == np.array(patients)
    assert (right & (found[count:] >= 0)).mean() > 0.95
