"""Time and memory of every step that looks at all rows of a store, at 2.5 million of them.

    python benchmarks/scale.py                     # some minutes, about 2 GB of disk
    python benchmarks/scale.py --rows 20000        # a quick look

The rows are made up, without pixels: five modalities, volumes of about 40 slices, two volumes a
patient, single radiographs; fine hashes whose neighbours are alike as those of slices are, and
among them planted exact copies, near copies (up to 10 of 256 bits changed) and blank slices. Each
step runs in a fresh process. Memory is the peak of what the process holds beyond what it held
before the step (the high-water mark of Linux; libraries loaded before do not count).
"""

import argparse
import importlib
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vismae.data.duplicates import column_codes, duplicates_of_index, pairs_across
from vismae.data.splits import label_fraction_patients, patients_of, split_patients
from vismae.data.store import Part, Store, assemble_store
from vismae.data.store_curation import kept_rows, write_curation
from vismae.data.store_format import index_schema
from vismae.data.store_part_writer import part_path

PART_ROWS = 50_000
PLANTED_SHARE = 0.01
BLANK_SHARE = 0.01
MODALITIES = ("ct", "mr", "xr", "us", "pet")
UNITS = ("hu", "arbitrary", "display", "display", "suv")
SIDES = (512, 256, 2048, 600, 168)
# Slices of a volume at most, and volumes in a thousand: archives hold more films than scans.
MOST_SLICES = (80, 80, 1, 10, 80)
VOLUME_SHARES = (0.25, 0.25, 0.3, 0.15, 0.05)
PROTOTYPES = 200


class Volumes(NamedTuple):
    """What the rows of a store are dealt out to."""

    modality: np.ndarray  # (V,) position in MODALITIES
    end: np.ndarray  # (V,) row after its last one
    patient: np.ndarray  # (V,)
    prototype: np.ndarray  # (V,) body part, as it were


def made_up_volumes(rows: int, rng: np.random.Generator) -> Volumes:
    """Return enough volumes for a number of rows."""
    count = rows
    modality = rng.choice(len(MODALITIES), size=count, p=VOLUME_SHARES)
    slices = 1 + (rng.random(count) * np.array(MOST_SLICES)[modality]).astype(np.int64)
    end = np.cumsum(slices)
    used = int(np.searchsorted(end, rows)) + 1
    patient = np.arange(used) // 2
    return Volumes(modality[:used], end[:used], patient, rng.integers(0, PROTOTYPES, used))


def made_up_bits(volume: np.ndarray, prototype: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return 256 bits a row, (n, 256) bool: dark rims, a likeness of kind, slow change by slice."""
    kinds = np.random.default_rng(1).random((PROTOTYPES, 256)) < 0.45
    kinds[:, :32], kinds[:, -32:] = False, False
    starts = np.concatenate([[True], volume[1:] != volume[:-1]])
    change = rng.random((len(volume), 256)) < np.where(starts, 0.15, 0.02)[:, None]
    # Parity of the changes so far, begun anew with every volume.
    parity = np.cumsum(change, axis=0, dtype=np.int32)
    before = parity - change
    first = np.maximum.accumulate(np.where(starts, np.arange(len(volume)), 0))
    return kinds[prototype] ^ ((parity - before[first]) % 2 == 1)


def made_up_tables(rows: int) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yield index rows table by table, and what was planted: 1 exact, 2 near copy, 0 neither."""
    rng = np.random.default_rng(0)
    volumes = made_up_volumes(rows, rng)
    known: tuple[np.ndarray, ...] = ()
    for begin in range(0, rows, PART_ROWS):
        number = np.arange(begin, min(begin + PART_ROWS, rows))
        volume = np.searchsorted(volumes.end, number, side="right")
        bits = made_up_bits(volume, volumes.prototype[volume], rng)
        digests = rng.integers(0, 256, (len(number), 32), dtype=np.uint8)
        modality = volumes.modality[volume]
        side = np.array(SIDES)[modality]
        blank = rng.random(len(number)) < BLANK_SHARE
        bits[blank] = False
        digests[blank] = side[blank, None] % 251
        planted = np.zeros(len(number), dtype=np.int8)
        if known:
            planted[rng.random(len(number)) < 2 * PLANTED_SHARE] = 1
            planted[(planted == 1) & (rng.random(len(number)) < 0.5)] = 2
            planted[blank] = 0
            source = rng.integers(0, len(known[0]), len(number))
            copied = planted > 0
            bits[copied], side[copied] = known[0][source[copied]], known[2][source[copied]]
            exact = planted == 1
            digests[exact] = known[1][source[exact]]
            for row in np.flatnonzero(planted == 2):
                bits[row, rng.choice(256, rng.integers(0, 11), replace=False)] ^= True
        else:
            originals = rng.permutation(np.flatnonzero(~blank))[: max(1, rows // 50)]
            known = bits[originals].copy(), digests[originals].copy(), side[originals].copy()
        yield as_table(number, volume, volumes, side, bits, digests, blank), planted


def as_table(
    number: np.ndarray,
    volume: np.ndarray,
    volumes: Volumes,
    side: np.ndarray,
    bits: np.ndarray,
    digests: np.ndarray,
    blank: np.ndarray,
) -> pa.Table:
    """Return rows with the columns of a store's index."""
    schema = index_schema(())
    count = len(number)
    modality, patient = volumes.modality[volume], volumes.patient[volume]
    hexadecimal = digests.tobytes().hex()
    series = [f"{v:016x}" if m != 2 else None for v, m in zip(volume, modality, strict=True)]
    fine = np.packbits(bits, axis=1)
    columns: dict[str, object] = {
        "image_id": [f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}" for n in number.tolist()],
        "modality": np.array(MODALITIES)[modality],
        "unit": np.array(UNITS)[modality],
        "patient_id": [f"{p * 0xC2B2AE3D27D4EB4F % 2**64:016x}" for p in patient.tolist()],
        "group_kind": ["patient"] * count,
        "volume_id": [f"{v:016x}" for v in volume.tolist()],
        "series_id": series,
        "study_id": [f"{p:016x}" for p in patient.tolist()],
        "slice_index": (number - np.concatenate([[0], volumes.end])[volume]).astype(np.int32),
        "slope": np.ones(count),
        "intercept": np.where(modality == 0, -1024.0, 0.0),
        "scale_low": np.zeros(count),
        "scale_high": 1000.0 + volume % 5000,
        "flags": np.where(blank, "blank", ""),
        "label": np.where(patient % 3 == 0, "normal", "finding"),
        "shard": (number // 2000).astype(np.int32),
        "position": (number % 2000).astype(np.int32),
        "pixels_offset": (number % 2000) * 131072,
        "pixels_bytes": np.full(count, 131072, np.int32),
        "height": side.astype(np.int32),
        "width": side.astype(np.int32),
        "channels": np.ones(count, np.int32),
        "dtype": np.where(side <= 512, "int16", "uint8"),
        "has_label_map": np.zeros(count, bool),
        "pixel_sha256": [hexadecimal[place : place + 64] for place in range(0, 64 * count, 64)],
        "likeness": fine[:, :8].copy().view(np.uint64)[:, 0],
        "fine_likeness": [row.tobytes() for row in fine],
    }
    arrays = [
        pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def make_parts(folder: Path, rows: int) -> str:
    """Write the made-up rows as parts of a store, and what was planted beside them."""
    part_path(folder, "x").parent.mkdir(parents=True)
    planted = []
    for number, (table, kinds) in enumerate(made_up_tables(rows)):
        pq.write_table(table, part_path(folder, f"{number:06d}"), compression="zstd")
        planted.append(kinds)
    np.save(folder / "planted.npy", np.concatenate(planted))
    return f"{len(planted)} parts"


def write_index(folder: Path, rows: int) -> str:
    """Put the index together from its parts."""
    counts = [min(PART_ROWS, rows - begin) for begin in range(0, rows, PART_ROWS)]
    # Only the sum of the modalities matters here.
    parts = [
        Part(f"{number:06d}", count, (), {"any": count}, (), 0)
        for number, count in enumerate(counts)
    ]
    store = assemble_store(folder, parts, encoding="raw")
    size = (folder / store.manifest["index"]["file"]).stat().st_size
    return f"{size / rows:.0f} bytes a row on the disk"


def read_columns(folder: Path, rows: int) -> str:
    """Read what pre-training looks at before it begins."""
    columns = ["modality", "unit", "patient_id", "split", "height", "width", "flags"]
    table = Store(folder).columns(columns)
    return f"{table.memory_usage(deep=True).sum() / rows:.0f} bytes a row in memory"


def read_compact(folder: Path, rows: int) -> str:
    """Read what a loader process holds to find and scale any image."""
    store = Store(folder)
    for name in ("modality", "unit", "slope", "intercept", "scale_low", "scale_high"):
        store.compact(name)
    for name in ("shard", "pixels_offset", "pixels_bytes", "height", "width", "channels", "dtype"):
        store.compact(name)
    return f"{rows} rows"


def task_index(folder: Path) -> pd.DataFrame:
    """Return what fine-tuning looks at before it begins."""
    return Store(folder).columns(["patient_id", "modality", "split", "label", "has_label_map"])


def divide(folder: Path, rows: int) -> str:
    """Divide the patients into train, val and test."""
    splits = split_patients(task_index(folder))
    return f"{len(splits)} patients"


def choose_labels(folder: Path, rows: int) -> str:
    """Choose a tenth of the labels."""
    index = task_index(folder)
    patients = patients_of(split_patients(index), ["train"])
    return f"{len(label_fraction_patients(index, patients, 0.1))} patients, split included"


def sample(folder: Path, rows: int) -> str:
    """Draw one epoch, as the main process of training does."""
    from vismae.data.sampler import DrawStream

    groups = Store(folder).columns(["modality"])["modality"].cat.codes.to_numpy()
    return f"{len(DrawStream(np.arange(rows), groups, 'sqrt').epoch(0))} draws"


def draw(folder: Path, rows: int) -> str:
    """Draw batches, on from the middle of an epoch."""
    from vismae.data.sampler import BatchStream, DrawStream

    stream = DrawStream(np.arange(rows), np.zeros(rows, np.int8))
    batches = iter(BatchStream(stream, 64, start_batch=rows // 128))
    next(batches)
    started = time.perf_counter()
    for _ in range(100):
        next(batches)
    return f"{6400 / (time.perf_counter() - started):.0f} draws a second"


def find(folder: Path, rows: int) -> str:
    """Look for duplicates, and compare with what was planted."""
    index = folder / Store(folder).manifest["index"]["file"]
    found = duplicates_of_index(index)
    write_curation(
        folder, {"duplicate_of": found.duplicate_of, "near_duplicate_of": found.near_duplicate_of}
    )
    planted = np.load(folder / "planted.npy")
    exact, near = found.duplicate_of >= 0, found.near_duplicate_of >= 0
    return (
        f"exact {recall(exact, planted == 1)}, near {recall(near, planted == 2)}, "
        f"{(exact & (planted != 1)).sum() + (near & (planted == 0)).sum()} not planted, "
        f"{found.thinned} rows thinned"
    )


def recall(found: np.ndarray, wanted: np.ndarray) -> str:
    """Return how many of those wanted were found."""
    return f"{(found & wanted).sum()} of {wanted.sum()}"


def cross(folder: Path, rows: int) -> str:
    """Count duplicates in different patients, and rows that are left to learn from."""
    store = Store(folder)
    first_of = store.columns(["duplicate_of"])["duplicate_of"].to_numpy()
    patients = column_codes(folder / store.manifest["index"]["file"], "patient_id")
    pairs = pairs_across(first_of, patients)
    kept = kept_rows(store, ["duplicate", "near-duplicate", "blank"])
    return f"{len(pairs)} pairs across patients, {len(kept)} rows kept"


STEPS: dict[str, Callable[[Path, int], str]] = {
    "make the rows up (not vismae)": make_parts,
    "index from parts": write_index,
    "columns of pre-training": read_columns,
    "columns of a loader": read_compact,
    "splits by patient": divide,
    "a tenth of the labels": choose_labels,
    "order of an epoch": sample,
    "batches": draw,
    "duplicates": find,
    "who shares them": cross,
}


def resident_mebibytes(key: str) -> float:
    """Return a figure of this process's memory: ``VmRSS`` now, ``VmHWM`` at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise LookupError(f"/proc/self/status has no {key}; this benchmark needs Linux")


def measured(name: str, folder: Path, rows: int, results: multiprocessing.Queue) -> None:
    """Run a step and put its seconds, its peak in MiB and its note into ``results``."""
    if STEPS[name] in (sample, draw):
        importlib.import_module("vismae.data.sampler")  # brings torch, which only these two need
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = resident_mebibytes("VmRSS")
    started = time.perf_counter()
    note = STEPS[name](folder, rows)
    seconds = time.perf_counter() - started
    results.put((seconds, resident_mebibytes("VmHWM") - before, note))


def main() -> None:
    """Run the steps one after another, each in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2_500_000)
    parser.add_argument("--folder", type=Path, help="for the files made; a temporary one")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    print(f"{options.rows} rows")
    print("| step | seconds | peak MiB | |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        for name in STEPS:
            results = spawn.Queue()
            arguments = (name, Path(temporary) / "store", options.rows, results)
            process = spawn.Process(target=measured, args=arguments)
            process.start()
            process.join()
            if process.exitcode != 0:
                raise SystemExit(f"step '{name}' failed")
            seconds, peak, note = results.get()
            print(f"| {name} | {seconds:.1f} | {peak:.0f} | {note} |", flush=True)


if __name__ == "__main__":
    main()
