"""Run model.onnx on stored pixels of a case; needs onnxruntime and numpy alone.

python run.py pixels.npy answer.npy [slope intercept [hu|suv|grey|range]]
pixels.npy: (slices, sequences, height, width), the values as the files have them.
Slope, intercept and scale are one for all sequences, or comma-separated, one for each. The scale
must be said where the model knows several, or 8-bit grey and gets others.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

MODEL = str(Path(__file__).with_name("model.onnx"))


def run(pixels, slope=1.0, intercept=0.0, scale=None, batch=16):
    """Return the label maps or class probabilities of the slices of one case."""
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["vismae"])
    names = facts["sequences"]
    if pixels.ndim != 4 or pixels.shape[1] != len(names):
        wanted = f"(slices, {len(names)}, height, width): {', '.join(names)}"
        raise ValueError(f"pixels have the shape {pixels.shape}, expected {wanted}")
    known = facts["scale"] if facts["scale"] != "grey" or pixels.dtype == np.uint8 else None
    scales = [scale or known] * len(names) if scale is None or isinstance(scale, str) else scale
    numbers = [facts["scales"].get(word) for word in scales]
    if None in numbers or len(numbers) != len(names):
        raise ValueError(f"scale: say which of {', '.join(facts['scales'])} each sequence is on")
    pixels = pixels.astype(np.float32)
    scaling = np.zeros((len(pixels), len(names), 4), np.float32)
    scaling[..., 0], scaling[..., 1] = slope, intercept
    for place in range(len(names)):
        image = pixels[:, place]
        image[~np.isfinite(image)] = image[np.isfinite(image)].min()
        values = image * scaling[0, place, 0] + scaling[0, place, 1]
        axes = (1, 2) if facts["percentiles_of"] == "image" else None
        scaling[:, place, 2:] = np.percentile(values, facts["percentiles"], axes).T
    inputs = {"pixels": pixels, "scale": np.tile(numbers, (len(pixels), 1)), "scaling": scaling}
    answers, beside = [], facts["neighbours"]
    for start in range(0, len(pixels), batch):
        first = max(start - beside, 0)
        cut = {name: value[first : start + batch + beside] for name, value in inputs.items()}
        answer = session.run(None, cut)[0][start - first :][:batch]
        answers.append(answer.argmax(1) if facts["output"] == "logits" else answer)
    return np.concatenate(answers)


if __name__ == "__main__":
    source, target, *linear = sys.argv[1:]
    numbers = [[float(part) for part in word.split(",")] for word in linear[:2]]
    words = [word.split(",") if "," in word else word for word in linear[2:3]]
    try:
        found = run(np.load(source), *numbers, *words)
    except ValueError as error:
        sys.exit(f"{source}: {error}.")
    np.save(target, found)
