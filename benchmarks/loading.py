"""Shuffled batches from a store against PNG files, and the memory of a loader, in one run.

    python benchmarks/loading.py
    python benchmarks/loading.py --images 200 --rounds 2 --rows 1000 20000      # a quick look

The same made-up grey images (smooth shapes with noise, 8 and 16 bits) are put into stores (raw and
zstd) and into a folder of PNG files. Both are decoded to arrays and stacked by the loader of
training, before any augmentation: in one process and with worker processes. The files have been
read before, so that the disk counts for neither. Prints images a second and the ratio to PNG, whose
floors are 5 in one process and 4 with two workers; then the private memory of a loader process over
a small and a large index.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vismae.core.preprocessing import Preprocessing
from vismae.core.types import Modality, PixelUnit, SliceRecord
from vismae.data.loaders import SliceReader, training_loader
from vismae.data.sampler import BatchStream, Draw, DrawStream
from vismae.data.store import PartWriter, Store, StoreWriter, assemble_store
from vismae.data.store_encoding import encode_slice

ENCODINGS = ("raw", "zstd")


def record(number: int) -> SliceRecord:
    """Facts of a made-up image."""
    return SliceRecord(
        image_id=f"image{number:09d}",
        modality=Modality.MR,
        unit=PixelUnit.ARBITRARY,
        patient_id=f"patient{number // 50:09d}",
        group_kind="patient",
        volume_id=f"volume{number // 5:09d}",
    )


def made_up_images(count: int, side: int, bits: int) -> Iterator[np.ndarray]:
    """Yield smooth shapes on a dark ground with noise in the lowest bits, as scanners give."""
    rng = np.random.default_rng(bits)
    coarse = max(2, side // 32)
    for _ in range(count):
        grid = Image.fromarray(rng.random((coarse, coarse)).astype(np.float32))
        smooth = np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC))
        shape = np.clip(smooth - 0.3, 0.0, 1.0) * (255 if bits == 8 else 3000)
        noise = rng.normal(0.0, 2.0 if bits == 8 else 12.0, shape.shape) * (shape > 0)
        values = np.clip(shape + noise, 0, 255 if bits == 8 else 4095)
        yield values.astype(np.uint8 if bits == 8 else np.uint16)


class StoreArrays(Dataset[Tensor]):
    """Pixels of a store's rows."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __getitem__(self, draw: Draw) -> Tensor:
        return torch.from_numpy(self.store.read(draw.row).pixels)


class PngArrays(Dataset[Tensor]):
    """Pixels of PNG files."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = [str(path) for path in paths]

    def __getitem__(self, draw: Draw) -> Tensor:
        with Image.open(self.paths[draw.row]) as image:
            return torch.from_numpy(np.array(image))


def images_per_second(
    dataset: Dataset[Tensor], count: int, batch_size: int, workers: int, batches: int
) -> float:
    """Time some batches of an endless shuffled stream, after the loader has warmed up."""
    stream = DrawStream(np.arange(count), np.zeros(count), seed=1)
    loader = iter(training_loader(dataset, BatchStream(stream, batch_size), workers))
    # Workers prepare a few batches ahead; they would otherwise be counted as free.
    for batch in islice(loader, max(4, 8 * workers)):
        assert len(batch) == batch_size
    started = time.perf_counter()
    images = sum(len(batch) for batch in islice(loader, batches))
    return images / (time.perf_counter() - started)


def compare_speed(folder: Path, options: argparse.Namespace) -> None:
    """Print a table of images a second, the formats interleaved so that a busy moment hits all."""
    print(f"{options.images} images of {options.side} px, batches of {options.batch_size}")
    print(f"{'bits':>4} {'workers':>7} {'format':>10} {'images/s':>9} {'ratio':>6} {'bytes':>6}")
    for bits in (8, 16):
        datasets: dict[str, Dataset[Tensor]] = {}
        sizes: dict[str, int] = {}
        pngs = folder / f"png{bits}"
        pngs.mkdir()
        for number, pixels in enumerate(made_up_images(options.images, options.side, bits)):
            Image.fromarray(pixels).save(pngs / f"{number:06d}.png")
        paths = sorted(pngs.iterdir())
        datasets["png"] = PngArrays(paths)
        sizes["png"] = sum(path.stat().st_size for path in paths)
        for encoding in ENCODINGS:
            with StoreWriter(folder / f"{encoding}{bits}", encoding=encoding) as writer:
                images = made_up_images(options.images, options.side, bits)
                for number, pixels in enumerate(images):
                    writer.add(record(number), pixels)
                store = writer.finish()
            datasets[f"store {encoding}"] = StoreArrays(store)
            sizes[f"store {encoding}"] = sum(entry["bytes"] for entry in store.manifest["shards"])
        for workers in options.workers:
            best = dict.fromkeys(datasets, 0.0)
            for _ in range(options.rounds):
                for name, dataset in datasets.items():
                    batches = options.batches if name == "png" else 4 * options.batches
                    rate = images_per_second(
                        dataset, options.images, options.batch_size, workers, batches
                    )
                    best[name] = max(best[name], rate)
            for name, rate in best.items():
                print(
                    f"{bits:>4} {workers:>7} {name:>10} {rate:>9.0f} {rate / best['png']:>6.2f} "
                    f"{sizes[name] / sizes['png']:>6.2f}"
                )


def tiny_store(folder: Path, rows: int) -> Store:
    """Make a store of many tiny images quickly: one image, with facts of its own for each row."""
    piece = encode_slice(record(0), np.arange(16, dtype=np.uint8).reshape(4, 4), encoding="raw")
    with PartWriter(folder, "tiny", encoding="raw") as writer:
        for number in range(rows):
            own = {
                "image_id": f"image{number:09d}",
                "patient_id": f"patient{number // 50:09d}",
                "volume_id": f"volume{number // 5:09d}",
                "scale_high": 1.0 + number / 7,
                "pixel_sha256": f"{number:064x}",
            }
            writer.add_encoded(piece._replace(facts={**piece.facts, **own}))
        part = writer.finish()
    return assemble_store(folder, [part], encoding="raw")


def private_mebibytes() -> float:
    """Return what this process holds for itself alone, mapped files included (USS)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


class TinyImages(Dataset[dict[str, float]]):
    """What a loader process does for a sample, and its private memory then."""

    def __init__(self, store: Store) -> None:
        self.reader = SliceReader(store, Preprocessing(image_size=(32, 32), in_channels=1))

    def __getitem__(self, draw: Draw) -> dict[str, float]:
        self.reader.read(draw.row)
        return {"process": float(os.getpid()), "mebibytes": private_mebibytes()}


def loader_memory(folder: Path, rows: int, workers: int, results: multiprocessing.Queue) -> None:
    """Put the largest private memory of any process that loads samples into ``results``."""
    store = Store(folder)
    stream = DrawStream(np.arange(rows), np.zeros(rows, dtype=np.int8))
    loader = training_loader(TinyImages(store), BatchStream(stream, 16), workers)
    loaded = [batch["mebibytes"].max().item() for batch in islice(loader, 8 * max(1, workers))]
    results.put(max(loaded))


def compare_memory(folder: Path, options: argparse.Namespace) -> None:
    """Print the private memory of loader processes over a small and a large index."""
    print(f"\n{'rows':>9} {'workers':>7} {'private MiB of a loader process':>32}")
    spawn = multiprocessing.get_context("spawn")
    found: dict[tuple[int, int], float] = {}
    for rows in options.rows:
        tiny_store(folder / f"tiny{rows}", rows)
        for workers in options.workers:
            results = spawn.Queue()
            arguments = (folder / f"tiny{rows}", rows, workers, results)
            process = spawn.Process(target=loader_memory, args=arguments)
            process.start()
            found[rows, workers] = results.get(timeout=600)
            process.join()
            print(f"{rows:>9} {workers:>7} {found[rows, workers]:>32.0f}")
    small, large = min(options.rows), max(options.rows)
    for workers in options.workers:
        more = found[large, workers] - found[small, workers]
        print(
            f"{workers} workers: {more:.0f} MiB more for {large - small} more rows, "
            f"{more * 2**20 / max(1, large - small):.0f} bytes a row"
        )


def main() -> None:
    """Read the sizes and run both comparisons in a temporary folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000, help="of each kind (2000)")
    parser.add_argument("--side", type=int, default=256, help="of an image in pixels (256)")
    parser.add_argument("--batch-size", type=int, default=64, help="images in a batch (64)")
    parser.add_argument("--batches", type=int, default=20, help="timed in a round of PNG (20)")
    parser.add_argument("--rounds", type=int, default=3, help="the best one counts (3)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="processes (0 2)")
    parser.add_argument(
        "--rows", type=int, nargs=2, default=[10_000, 1_000_000], help="of the indexes"
    )
    parser.add_argument("--folder", type=Path, help="for the files made; a temporary one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        compare_speed(Path(folder), options)
        compare_memory(Path(folder), options)


if __name__ == "__main__":
    main()
