"""Run model.onnx on stored pixels; needs onnxruntime and numpy alone.

python run.py pixels.npy answer.npy [slope intercept [hu|suv|grey|range]]
pixels.npy: (slices, height, width) or (slices, height, width, 3), the values as the file has them.
The last word must be said where the model knows several scales, or 8-bit grey and gets others.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def run(pixels, slope=1.0, intercept=0.0, scale=None, batch=16, model="model.onnx"):
    """Return the label maps, class probabilities or features of the slices of one volume."""
    path = str(Path(__file__).with_name(model))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["vismae"])
    if scale is None and (facts["scale"] != "grey" or pixels.dtype == np.uint8):
        scale = facts["scale"]
    if scale is None:
        raise ValueError(f"scale: say which of {', '.join(facts['scales'])} the pixels are on")
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    if facts["in_channels"] == 3 > pixels.shape[3]:
        pixels = np.repeat(pixels, 3, axis=3)
    pixels = np.moveaxis(pixels, 3, 1).astype(np.float32)
    finite = np.isfinite(pixels)
    pixels = np.where(finite, pixels, pixels[finite].min())
    axes = (1, 2, 3) if facts["percentiles_of"] == "image" else None
    ends = np.percentile(pixels * slope + intercept, facts["percentiles"], axes).T
    scaling = np.empty((len(pixels), 4), np.float32)
    scaling[:, 0], scaling[:, 1], scaling[:, 2:] = slope, intercept, ends
    scales = np.full(len(pixels), facts["scales"][scale])
    answers, beside = [], facts["neighbours"]
    for start in range(0, len(pixels), batch):
        first = max(start - beside, 0)
        cut = slice(first, start + batch + beside)
        given = {"pixels": pixels[cut], "scale": scales[cut], "scaling": scaling[cut]}
        answer = session.run(None, given)[0][start - first :][:batch]
        answers.append(answer.argmax(1) if facts["output"] == "logits" else answer)
    return np.concatenate(answers)


if __name__ == "__main__":
    source, target, *linear = sys.argv[1:]
    numbers = [float(word) for word in linear[:2]]
    np.save(target, run(np.load(source), *numbers, *linear[2:3]))
