"""What looking at the features costs pre-training: the same steps with and without it, in turn.

    python benchmarks/monitoring.py
    python benchmarks/monitoring.py --steps 40 --rounds 1      # some three minutes

Made-up grey images of two classes in a store; ``vismae.pretrain`` with the settings of
``configs/pretrain_cpu.yaml`` learns from them, with fill-in pictures, effective rank, nearest
neighbours and a linear probe, all as often as they fit (``monitor.every`` a tenth of the run), and
without. Prints seconds of both arms in each round and, from ``metrics.csv``, the share of the time
that the looks took; at most 3 % is aimed at.
"""

import argparse
import csv
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from loading import made_up_images, record

import vismae
from vismae.data.store import StoreWriter

MOST_SHARE = 0.03
RECIPE = Path(__file__).parent.parent / "configs" / "pretrain_cpu.yaml"


def write_store(folder: Path, images: int, side: int) -> Path:
    """Write images of two classes, told apart by their brightness, 50 to a patient."""
    with StoreWriter(folder) as writer:
        for number, pixels in enumerate(made_up_images(images, side, 16)):
            one = number // 50 % 2
            writer.add(replace(record(number), label=f"class {one}"), pixels >> one)
        writer.finish()
    return folder


def seconds_of(
    store: Path, run: Path, options: argparse.Namespace, watched: bool, steps: int
) -> float:
    """Train and return what it took, from the call to the finished folder."""
    every = max(1, steps // 10) if watched else 0
    settings = [
        f"trainer.max_steps={steps}",
        f"trainer.picture_every={every}",
        f"monitor.every={every}",
        f"monitor.data={store}",
        f"monitor.images={options.looked_at}",
    ]
    begun = time.perf_counter()
    vismae.pretrain(config=RECIPE, store=store, out=run, set=settings)
    return time.perf_counter() - begun


def share_of(run: Path) -> float:
    """Return what the looks took of a run's time, as its record says; 0 if there was none."""
    with (run / "metrics.csv").open(newline="") as file:
        told = [row.get("monitor_time_share") for row in csv.DictReader(file)]
    return float(next((value for value in reversed(told) if value), 0.0))


def main() -> None:
    """Let both arms take turns, then print what the looks cost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=256, help="of an image in pixels (256)")
    parser.add_argument("--looked-at", type=int, default=64, help="images of a look (64)")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ratios, shares = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = write_store(folder / "store", options.images, options.side)
        # What is imported and compiled at first is no cost of either arm.
        seconds_of(store, folder / "warm", options, watched=True, steps=2)
        for number in range(options.rounds):
            run, steps = folder / f"watched{number}", options.steps
            watched = seconds_of(store, run, options, watched=True, steps=steps)
            run_alone = folder / f"alone{number}"
            alone = seconds_of(store, run_alone, options, watched=False, steps=steps)
            ratios.append(watched / alone)
            shares.append(share_of(run))
            print(
                f"{options.steps} steps: {watched:.1f} s with looks, {alone:.1f} s without; by its "
                f"own record the looks took {shares[-1]:.1%}"
            )
    print(f"median: {median(ratios) - 1:+.1%} of the time, {median(shares):.1%} by the record")
    if min(shares) == 0.0:
        sys.exit("no look fitted into its share of the time: take more steps or fewer images")
    if max(shares) > MOST_SHARE:
        sys.exit(f"more than the {MOST_SHARE:.0%} aimed at")


if __name__ == "__main__":
    main()
