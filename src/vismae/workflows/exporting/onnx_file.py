"""``--format onnx``: the model with its preprocessing as one ONNX file, and a runner for it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vismae.core.rundir import write_text
from vismae.inference.deployed import Scale, UnitRangeModel
from vismae.models.weights import Model
from vismae.workflows.exporting.outcome import Outcome, require_same
from vismae.workflows.exporting.program import INPUTS, trace_stored, untraceable, without_chatter
from vismae.workflows.exporting.trial import (
    largest_difference,
    own_answer,
    program_inputs,
    scale_for,
    trials,
    unit_images,
)

ONNX_FILE = "model.onnx"
RUNNER_FILE = "run.py"
FACTS_KEY = "vismae"


def export_onnx(folder: Path, body: UnitRangeModel) -> Outcome:
    """Write ``model.onnx`` and ``run.py``, run the file and compare it with the model.

    Raises:
        ModelError: The network cannot be traced, or the file differs.
    """
    path = folder / ONNX_FILE
    write_onnx(path, body)
    write_runner(folder, body)
    session = open_session(path)
    differences = {}
    for trial in trials(body.preprocessing):
        found = session.run(None, program_inputs(trial, body.preprocessing))[0]
        expected = own_answer(body, unit_images(trial, body.preprocessing))
        differences[trial.name] = largest_difference(np.asarray(found), expected)
    require_same(differences, path)
    return Outcome(
        path,
        differences,
        ("onnxruntime", "numpy"),
        notes=(f"Run it with: python {folder / RUNNER_FILE} pixels.npy answer.npy",),
        facts=onnx_facts(body),
    )


def write_runner(folder: Path, body: UnitRangeModel) -> None:
    """Write ``run.py``, which runs ``model.onnx`` beside it without this package."""
    name = "onnx_case_runner.py" if body.preprocessing.sequences else "onnx_runner.py"
    source = Path(__file__).with_name(name).read_text(encoding="utf-8")
    write_text(folder / RUNNER_FILE, source)


def write_onnx(path: Path, body: UnitRangeModel) -> None:
    """Write the program with weights, opset 18 or newer, and what a runner must know.

    Raises:
        ModelError: The network cannot be traced.
    """
    import onnx

    program = trace_stored(body)
    network: Model = body.network  # pyright: ignore[reportAssignmentType]
    try:
        with torch.no_grad(), without_chatter():
            written = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=list(INPUTS),
                output_names=[body.output],
                custom_translation_table={
                    torch.ops.aten.scaled_dot_product_attention.default: _attention
                },
            )
    except Exception as error:  # whatever the converter of one of hundreds of operations raises
        raise untraceable(network, error) from error
    if written is None:
        raise untraceable(network, RuntimeError("the exporter gave nothing"))
    proto = written.model_proto
    onnx.helper.set_model_props(proto, {FACTS_KEY: json.dumps(onnx_facts(body))})
    onnx.save(proto, str(path))


def _attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, *_: Any, scale: Any = None, **__: Any
) -> Any:
    """Write fused attention, which opset 18 lacks, as two products.

    torch's own translation transposes the keys in a copy of two axes less, which onnxruntime does
    not put into the product; whole networks were 2 % slower.
    """
    import onnxscript

    op: Any = onnxscript.opset18
    axes = len(key.shape)
    turned = op.Transpose(key, perm=[*range(axes - 2), axes - 1, axes - 2])
    factor = op.Constant(value_float=scale or 1.0 / math.sqrt(query.shape[-1]))
    logits = op.MatMul(op.Mul(query, factor), turned)
    if attn_mask is not None:
        logits = op.Add(logits, attn_mask)
    return op.MatMul(op.Softmax(logits, axis=-1), value)


def onnx_facts(body: UnitRangeModel) -> dict[str, Any]:
    """Return what a runner must know beside the file's inputs."""
    contract = body.preprocessing
    card = getattr(body.network, "card", None)
    scales = {scale_for(trial, contract).name.lower() for trial in trials(contract)}
    own = contract.percentiles != type(contract)().percentiles
    of_cases = {"sequences": list(contract.sequences)} if contract.sequences else {}
    return {
        **of_cases,
        "kind": body.kind,
        "inputs": list(INPUTS),
        "output": body.output,
        "classes": list(card.task.classes) if card is not None and card.task else None,
        "modalities": [str(word) for word in card.modalities] if card is not None else [],
        "licence": card.licence if card is not None else "not stated",
        "in_channels": contract.in_channels,
        "neighbours": contract.neighbours,
        "scales": {scale.name.lower(): int(scale) for scale in Scale},
        # Nothing is guessed where images of several scales are known.
        "scale": scales.pop() if len(scales) == 1 else None,
        "percentiles": list(contract.percentiles),
        "percentiles_of": "image" if own else "volume",
        "canvas": list(contract.image_size),
    }


def open_session(path: Path) -> Any:
    """Return an onnxruntime session on the CPU with as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
