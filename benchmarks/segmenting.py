"""Segmenting a CT on a CPU: ours beside MONAI's 2D SwinUNETR, and ONNX beside torch, in one run.

    python benchmarks/segmenting.py [--part volume] [--network hybrid] [--threads 2] [--slices 4]
        [--rounds 3]

A CT of 512×512 pixels, in Hounsfield units, is windowed, segmented slice by slice and given back as
a label map in its own size. Both networks have about as many parameters, random weights, 5 classes
and the same slices. MONAI's runs through ``SliceInferer`` on whole slices. Ours runs twice: with a
contract of 512×512, so that it sees exactly the pixels that MONAI's sees, and with the usual
224×224, to which slices are shrunk and their scores enlarged again. All take turns, batch by batch;
the median seconds a slice, times 200, are those of a volume of 200 slices, since slices do not
depend on one another. ONNX is what ``vismae export --format onnx`` writes.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.inferers import SliceInferer
from monai.networks.nets import SwinUNETR

from vismae.core.model_card import ModelCard, TaskCard
from vismae.core.preprocessing import Preprocessing
from vismae.core.types import Modality, PixelUnit
from vismae.data.geometry import to_channels
from vismae.data.intensity import to_unit_range, window_hu
from vismae.inference.deployed import StoredPixelModel, deployed
from vismae.inference.ensemble import Ensemble
from vismae.inference.slices import Slice, segment_slices
from vismae.models import HybridUNet, SwinUNet, architecture_of
from vismae.workflows.exporting.onnx_file import open_session, write_onnx
from vismae.workflows.exporting.trial import Trial, program_inputs

CLASSES = ("background", "liver", "spleen", "kidney", "vessel")
SIDE_PX, VOLUME_SLICES = 512, 200


def contract(side_px: int) -> Preprocessing:
    units = {Modality.CT: (PixelUnit.HU,)}
    return Preprocessing(image_size=(side_px, side_px), in_channels=1, pixel_units=units)


def our_network(given: argparse.Namespace, preprocessing: Preprocessing) -> SwinUNet | HybridUNet:
    torch.manual_seed(0)
    kind = SwinUNet if given.network == "swin_unet" else HybridUNet
    network = kind.from_size(given.size, in_channels=1, num_classes=len(CLASSES)).eval()
    network.preprocessing = preprocessing
    network.card = ModelCard(
        kind="segmenter",
        architecture=architecture_of(network),
        preprocessing=preprocessing,
        task=TaskCard(classes=CLASSES, network=given.network),
        modalities=(Modality.CT,),
    )
    return network


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def their_network(wanted: int) -> SwinUNETR:
    """Return the SwinUNETR whose number of parameters is nearest to ours."""
    found = [
        SwinUNETR(1, len(CLASSES), feature_size=width, spatial_dims=2)
        for width in range(12, 61, 12)
    ]
    return min(found, key=lambda network: abs(parameters(network) - wanted)).eval()


def ct_slices(count: int) -> np.ndarray:
    """Stored values of a CT, (S, H, W) int16: stored - 1024 are Hounsfield units."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX] / SIDE_PX
    waves = [np.sin(20 * rows + k) * np.cos(14 * columns - k) for k in range(count)]
    noise = 0.1 * rng.random((count, SIDE_PX, SIDE_PX))
    return ((np.stack(waves) + noise + 1.0) * 900).astype(np.int16)


def ours(network: SwinUNet | HybridUNet, stored: np.ndarray) -> list[np.ndarray]:
    """Segment as ``vismae predict`` does once the file is read."""
    card = network.card
    ensemble = Ensemble([network], [card], "", torch.device("cpu"))
    facts = {"modality": Modality.CT, "unit": PixelUnit.HU, "slope": 1.0, "intercept": -1024.0}
    slices = (
        Slice(
            number,
            to_channels(
                to_unit_range(
                    pixels,
                    scale_low=0.0,
                    scale_high=1.0,
                    preprocessing=card.preprocessing,
                    **facts,
                ),
                1,
            ),
        )
        for number, pixels in enumerate(stored)
    )
    return [answer.labels for _, answer in segment_slices(ensemble, slices, len(stored))]


@torch.inference_mode()
def theirs(network: SwinUNETR, stored: np.ndarray) -> np.ndarray:
    """Window the same way, then MONAI's slice-by-slice inference on whole slices."""
    unit = window_hu(stored.astype(np.float32) - 1024.0, -1000.0, 1000.0)
    volume = torch.from_numpy(np.moveaxis(unit, 0, -1))[None, None]
    inferer = SliceInferer(
        roi_size=stored.shape[1:], sw_batch_size=len(stored), spatial_dim=2, progress=False
    )
    return inferer((volume - 0.223) / 0.202, network)[0].argmax(dim=0).numpy()


def in_turn(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each, all taking turns; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def compare_networks(given: argparse.Namespace, stored: np.ndarray) -> None:
    full, usual = (our_network(given, contract(side)) for side in (SIDE_PX, 224))
    monai = their_network(parameters(full))
    counts = [f"{parameters(network) / 1e6:.1f} M" for network in (full, monai)]
    print("parameters: ours {}, SwinUNETR {}".format(*counts))
    seconds = in_turn(
        {
            "SwinUNETR with SliceInferer, 512": lambda: theirs(monai, stored),
            "ours, contract of 512": lambda: ours(full, stored),
            "ours, contract of 224": lambda: ours(usual, stored),
        },
        given.rounds,
    )
    reference = seconds["SwinUNETR with SliceInferer, 512"]
    for name, found in seconds.items():
        per_slice = found / given.slices
        print(
            f"{name}: {per_slice:.3f} s a slice, {per_slice * VOLUME_SLICES:.0f} s for "
            f"{VOLUME_SLICES}; {reference / found:.2f} times as fast as SwinUNETR"
        )


def compare_onnx(given: argparse.Namespace, stored: np.ndarray) -> None:
    network = our_network(given, contract(224))
    body = deployed(network)
    module = StoredPixelModel(body).eval()
    trial = Trial(stored, Modality.CT, PixelUnit.HU, 1.0, -1024.0)
    feeds = program_inputs(trial, network.preprocessing)
    tensors = [torch.from_numpy(value) for value in feeds.values()]

    def logits_of_torch() -> torch.Tensor:
        with torch.inference_mode():
            return module(*tensors)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(path, body)
        session = open_session(path)

        def logits_of_onnx() -> np.ndarray:
            return session.run(None, feeds)[0]

        # Label maps as torch and numpy make them fastest: argmax over channels is slow in torch.
        seconds = in_turn(
            {
                "logits, torch": logits_of_torch,
                "logits, ONNX": logits_of_onnx,
                "label maps, torch": lambda: logits_of_torch().max(dim=1).indices,
                "label maps, torch, predict's own path": lambda: ours(network, stored),
                "label maps, ONNX": lambda: logits_of_onnx().argmax(axis=1),
            },
            given.rounds,
        )
    for name, found in seconds.items():
        ratio = found / seconds[f"{name.split(',')[0]}, ONNX"]
        print(f"{name}: {found / given.slices:.3f} s a slice; ONNX is {ratio:.2f} times as fast")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--part", choices=("volume", "onnx"))
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--slices", type=int, default=4)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--size", default="vismae")
    options.add_argument("--network", choices=("swin_unet", "hybrid"), default="swin_unet")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    stored = ct_slices(given.slices)
    print(f"{given.threads} threads, {given.slices} slices at a time, {given.rounds} rounds")
    if given.part != "onnx":
        compare_networks(given, stored)
    if given.part != "volume":
        compare_onnx(given, stored)


if __name__ == "__main__":
    main()
