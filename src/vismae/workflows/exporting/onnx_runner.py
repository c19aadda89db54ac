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

MODEL = str(Path(__file__).with_name("model.onnx"))


def run(pixels, slope=1.0, intercept=0.0, scale=None, batch=16):
    """Return the label maps, class probabilities or features of the slices of one volume."""
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["vismae"])
    known = facts["scale"] if facts["scale"] != "grey" or pixels.dtype == np.uint8 else None
    number = facts["scales"].get(scale or known)
    if number is None:
        raise ValueError(f"scale: say which of {', '.join(facts['scales'])} the pixels are on")
    pixels = pixels.reshape(*pixels.shape[:3], -1).transpose(0, 3, 1, 2).astype(np.float32)
    pixels[~np.isfinite(pixels)] = pixels[np.isfinite(pixels)].min()
    axes = (1, 2, 3) if facts["percentiles_of"] == "image" else None
    ends = np.percentile(pixels * slope + intercept, facts["percentiles"], axes).T
    scaling = np.full((len(pixels), 4), (slope, intercept, 0, 0), np.float32)
    scaling[:, 2:] = ends
    inputs = {"pixels": pixels, "scale": np.full(len(pixels), number), "scaling": scaling}
    answers, beside = [], facts["neighbours"]
    for start in range(0, len(pixels), batch):
        first = max(start - beside, 0)
        cut = {name: value[first : start + batch + beside] for name, value in inputs.items()}
        answer = session.run(None, cut)[0][start - first :][:batch]
        answers.append(answer.argmax(1) if facts["output"] == "logits" else answer)
    return np.concatenate(answers)


if __name__ == "__main__":
    source, target, *linear = sys.argv[1:]
    numbers = [float(word) for word in linear[:2]]
    stored = np.load(source)
    if stored.ndim not in (3, 4):
        wanted = "(slices, height, width), or that and 3; make one slice of (1, height, width)"
        sys.exit(f"{source}: has the shape {stored.shape}, expected {wanted}.")
    np.save(target, run(stored, *numbers, *linear[2:3]))
