"""``--format onnx-int8``: weights and products of the ONNX file in 8-bit integers, for CPUs.

Linear layers are quantised dynamically (weights per channel beforehand, their inputs while it
runs), which needs no calibration data. Attention products, norms, convolutions and the
preprocessing stay in 32-bit floats. What it loses and gains is measured when it is made.
"""

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from vismae.core.errors import ModelError
from vismae.inference.deployed import UnitRangeModel
from vismae.models.weights import Model, network_of
from vismae.workflows.exporting.onnx_file import (
    ONNX_FILE,
    export_onnx,
    onnx_facts,
    open_session,
    write_runner,
)
from vismae.workflows.exporting.outcome import Outcome
from vismae.workflows.exporting.quality import quality_on
from vismae.workflows.exporting.trial import program_inputs, trials

_REPEATS = 7


def export_int8(folder: Path, body: UnitRangeModel, data: tuple[Path, ...]) -> Outcome:
    """Write a quantised ``model.onnx`` and ``run.py``; measure loss and speed beside 32 bit.

    The 32-bit file is compared with the model as for ``onnx``; the quantised one cannot be within
    that tolerance, so its loss is reported instead.

    Args:
        folder: Where to write.
        body: The model.
        data: Labelled images to measure the loss on; none measures agreement only.

    Raises:
        DataError: No image of ``data`` has a label.
        ModelError: The network has no linear layers to speak of, or cannot be traced.
    """
    path = folder / ONNX_FILE
    # The full file lies outside, so that an interrupted export leaves no file of another format.
    with tempfile.TemporaryDirectory(prefix="vismae-onnx-") as temporary:
        whole = export_onnx(Path(temporary), body)
        count = _quantise(whole.file, path)
        if count == 0:
            path.unlink(missing_ok=True)
            network: Model = body.network  # pyright: ignore[reportAssignmentType]
            raise ModelError(
                f"A {network_of(network)} is made of convolutions, of which int8 on a CPU gains "
                "nothing here. Use --format onnx."
            )
        write_runner(folder, body)
        before, after = open_session(whole.file), open_session(path)
        agreement = _agreement(body, before, after)
        times = _seconds(body, before, after)
        quality = quality_on(data, body, {"float32": before, "int8": after}) if data else None
        sizes = (whole.file.stat().st_size, path.stat().st_size)
    facts = {
        **onnx_facts(body),
        "quantised_products": count,
        "float32_compared_with_torch": whole.largest,
        "agreement_on_trial_images": agreement,
        "seconds_per_image": times,
        "speed_gain": times["float32"] / times["int8"],
        "megabytes": {"float32": sizes[0] / 1e6, "int8": sizes[1] / 1e6},
    }
    notes = [
        f"int8 runs {facts['speed_gain']:.2f} times as fast as float32 on this machine, in "
        f"{sizes[1] / sizes[0]:.0%} of the bytes.",
        agreement["sentence"],
    ]
    if quality is not None:
        facts["quality"] = quality.to_dict()
        notes.append(quality.sentence())
    else:
        notes.append("Name labelled images with --data to measure what it loses in quality.")
    return Outcome(path, whole.differences, ("onnxruntime", "numpy"), tuple(notes), facts)


def _quantise(source: Path, path: Path) -> int:
    """Write the quantised file; return how many products became integer ones."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Its advice to run a preprocessing step is about shapes that the exporter has inferred.
    root, level = logging.getLogger(), logging.getLogger().level
    try:
        root.setLevel(logging.ERROR)
        quantize_dynamic(
            source,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        root.setLevel(level)
    nodes = onnx.load(str(path), load_external_data=False).graph.node
    return sum(node.op_type in ("MatMulInteger", "DynamicQuantizeMatMul") for node in nodes)


def _agreement(body: UnitRangeModel, before: Any, after: Any) -> dict[str, Any]:
    """Compare answers on the trial images."""
    same, total, change = 0, 0, 0.0
    for trial in trials(body.preprocessing):
        given = program_inputs(trial, body.preprocessing)
        one, other = (np.asarray(session.run(None, given)[0]) for session in (before, after))
        change = max(change, float(np.abs(one - other).max()))
        if body.output == "features":
            cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1)
            same += float((cosine / np.linalg.norm(other, axis=1)).sum())
            total += len(one)
        else:
            same += int((one.argmax(1) == other.argmax(1)).sum())
            total += one[:, 0].size
    words = {
        "logits": "of the pixels get the same class",
        "probabilities": "of the images get the same class",
        "features": "mean cosine similarity of the features",
    }
    share = same / total
    return {
        "share": share,
        "largest_change": change,
        "sentence": f"On {len(trials(body.preprocessing))} computed volumes {share:.2%} "
        f"{words[body.output]} as in float32 ({body.output} change by {change:.3g} at most).",
    }


def _seconds(body: UnitRangeModel, before: Any, after: Any) -> dict[str, float]:
    """Return the median seconds per image of both sessions, run in turn."""
    given = program_inputs(trials(body.preprocessing)[0], body.preprocessing)
    found: dict[str, list[float]] = {"float32": [], "int8": []}
    for repeat in range(_REPEATS + 1):
        for name, session in (("float32", before), ("int8", after)):
            start = time.perf_counter()
            session.run(None, given)
            if repeat:  # the first run allocates
                found[name].append((time.perf_counter() - start) / len(given["pixels"]))
    return {name: float(np.median(times)) for name, times in found.items()}
