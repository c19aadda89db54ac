"""Where the time of ``vismae predict`` goes on a CPU.

    python benchmarks/predict_time.py share     # of a DICOM series of 200 slices, in the network
    python benchmarks/predict_time.py start     # seconds of the whole command on one PNG

``share``: an untrained segmenter of the ``vismae`` size and 9 classes predicts a made-up CT series
of 512×512 pixels a slice into a DICOM SEG. Counted is what passes between the loaded model and the
finished tables, and how much of it the network's forward pass takes; at least 80 % is aimed at.

``start``: a ``nano`` segmenter, one PNG, a process of its own each time, imports and all; at most
8 seconds on two cores are aimed at.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from predict_memory import write_series

import vismae
from vismae.core.model_card import ModelCard, TaskCard
from vismae.core.preprocessing import Preprocessing
from vismae.inference.ensemble import Ensemble
from vismae.models import SwinUNet, architecture_of, save_model

LEAST_SHARE = 0.8
MOST_SECONDS = 8.0


def write_model(folder: Path, size: str) -> Path:
    """Write an untrained segmenter whose classes follow the image."""
    torch.manual_seed(0)
    classes = ("background", *(f"organ {number}" for number in range(1, 9)))
    network = SwinUNet.from_size(size, in_channels=3, num_classes=len(classes))
    with torch.no_grad():
        network.head.weight.normal_(std=1.0)
    card = ModelCard(
        kind="segmenter",
        architecture=architecture_of(network),
        preprocessing=Preprocessing(image_size=(224, 224)),
        task=TaskCard(classes=classes),
    )
    save_model(network, card, folder)
    return folder


def measure_share(folder: Path, slices: int) -> None:
    """Predict a series in this process, with a clock round the forward pass."""
    model = write_model(folder / "model", "vismae")
    series = write_series(folder / "series", slices)
    clock = {"loaded": 0.0, "network": 0.0}
    make, forward = Ensemble.__init__, Ensemble._forward

    def made(self: Ensemble, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        clock["loaded"] = time.perf_counter()

    def timed(self: Ensemble, *args: Any) -> torch.Tensor:
        begun = time.perf_counter()
        found = forward(self, *args)
        clock["network"] += time.perf_counter() - begun
        return found

    Ensemble.__init__, Ensemble._forward = made, timed  # type: ignore[method-assign]
    result = vismae.predict(model=model, inputs=series, out=folder / "out", device="cpu")
    whole = time.perf_counter() - clock["loaded"]
    if result.predicted != 1:
        sys.exit(result.summary())
    share = clock["network"] / whole
    print(
        f"{slices} slices of 512×512: {whole:.1f} s after start, {clock['network']:.1f} s of them "
        f"in the network: {share:.1%} ({torch.get_num_threads()} threads)"
    )
    if share < LEAST_SHARE:
        sys.exit(f"less than the {LEAST_SHARE:.0%} aimed at")


def measure_start(folder: Path, runs: int) -> None:
    """Run the command several times on one PNG."""
    model = write_model(folder / "model", "nano")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (256, 256), np.uint8)).save(folder / "a.png")
    words = ["predict", "--model", model, folder / "a.png", "--device", "cpu", "--quiet"]
    code = "from vismae.cli import main; main()"
    seconds = []
    for number in range(runs):
        begun = time.perf_counter()
        out = ["--out", folder / f"out{number}"]
        subprocess.run([sys.executable, "-c", code, *map(str, [*words, *out])], check=True)
        seconds.append(time.perf_counter() - begun)
    print(f"one PNG: first {seconds[0]:.2f} s, median of {runs} runs {median(seconds):.2f} s")
    if max(seconds) > MOST_SECONDS:
        sys.exit(f"more than the {MOST_SECONDS:.0f} s aimed at")


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["share", "start"])
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.what == "share":
            measure_share(Path(name), options.slices)
        else:
            measure_start(Path(name), options.runs)


if __name__ == "__main__":
    main()
