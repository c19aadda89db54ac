"""``--format torch-export``: the model with its preprocessing as a ``torch.export`` program."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from vismae.core.errors import ModelError
from vismae.inference.deployed import StoredPixelModel, UnitRangeModel
from vismae.models.weights import Model, network_of
from vismae.workflows.exporting.outcome import Outcome, require_same
from vismae.workflows.exporting.trial import (
    largest_difference,
    own_answer,
    program_inputs,
    trials,
    unit_images,
)

PROGRAM_FILE = "model.pt2"
INPUTS = ("pixels", "scale", "scaling")


def export_program(folder: Path, body: UnitRangeModel) -> Outcome:
    """Write ``model.pt2``, load it again and compare it with the model.

    Raises:
        ModelError: The network cannot be traced, or the program differs.
    """
    path = folder / PROGRAM_FILE
    program = trace_stored(body)
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()
    differences: dict[str, float] = {}
    for trial in trials(body.preprocessing):
        given = program_inputs(trial, body.preprocessing)
        with torch.no_grad():
            found = loaded(*(torch.from_numpy(given[name]) for name in INPUTS)).numpy()
        expected = own_answer(body, unit_images(trial, body.preprocessing))
        differences[trial.name] = largest_difference(found, expected)
    require_same(differences, path)
    return Outcome(path, differences, ("torch",), facts={"inputs": INPUTS, "output": body.output})


def trace_stored(body: UnitRangeModel) -> ExportedProgram:
    """Trace stored pixels to answers, for any number of images of any size.

    Raises:
        ModelError: The network cannot be traced.
    """
    contract = body.preprocessing
    given = program_inputs(trials(contract)[0], contract)
    batch = Dim("batch")
    pixels = {0: batch, 2: Dim("height"), 3: Dim("width")}
    if not contract.sequences:
        # Traced with three channels, since a traced length of 1 would stay 1 for ever.
        given["pixels"] = np.repeat(given["pixels"], 3, axis=1)
        pixels[1] = Dim("channels", max=3)
    shapes = {"pixels": pixels, "scale": {0: batch}, "scaling": {0: batch}}
    arguments = tuple(torch.from_numpy(given[name]) for name in INPUTS)
    return _trace(StoredPixelModel(body).eval(), arguments, shapes, body)


def trace_unit_range(body: UnitRangeModel) -> ExportedProgram:
    """Trace images of 0..1 to answers, for any number of images of any size.

    Raises:
        ModelError: The network cannot be traced.
    """
    images = unit_images(trials(body.preprocessing)[0], body.preprocessing)
    shapes = {"images": {0: Dim("batch"), 2: Dim("height"), 3: Dim("width")}}
    return _trace(body, (images,), shapes, body)


def _trace(
    module: nn.Module, arguments: tuple[Tensor, ...], shapes: object, body: UnitRangeModel
) -> ExportedProgram:
    network: Model = body.network  # pyright: ignore[reportAssignmentType]
    try:
        with torch.no_grad(), without_chatter():
            return torch.export.export(module, arguments, dynamic_shapes=shapes)  # pyright: ignore[reportArgumentType]
    # Tracing raises whatever a network's code raises under it; the cure is the same for all.
    except Exception as error:
        raise untraceable(network, error) from error


def untraceable(network: Model, error: Exception) -> ModelError:
    """Return the error for a network that torch cannot write down as a program."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    return ModelError(
        f"A {network_of(network)} cannot be written down as a program by torch "
        f"{torch.__version__} ({reason}). Keep the model folder (--format huggingface carries it "
        "whole), or fine-tune one of the networks swin_unet, swin_unet_conv, hybrid or swin."
    )


@contextmanager
def without_chatter() -> Generator[None]:
    """Keep the news of torch's exporters out of the log; their errors still come through."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
