"""The texts of a MONAI bundle: its two scripts, and the schema that its metadata is checked by.

The schema says what MONAI's bundle specification asks of ``metadata.json``; it is packed into
every bundle, so that ``monai.bundle verify_metadata`` needs no network.
"""

from typing import Any

NETWORK_SCRIPT = '''"""The exported program as the module that MONAI expects."""

import torch


class ExportedNetwork(torch.nn.Module):
    """Runs ``model.pt2`` on images as MONAI orients them.

    Takes images of 0..1, (B, C, x, y) with x to the patient's left and y to the back; the program
    itself sees rows and columns, that is (B, C, y, x).
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.program = torch.export.load(path).module()

    def train(self, mode: bool = True) -> "ExportedNetwork":
        """Stay as exported: a program has no training mode."""
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K, x, y), or one row of numbers for each image."""
        answers = self.program(torch.as_tensor(images).transpose(2, 3).contiguous())
        return answers.transpose(2, 3) if answers.ndim == 4 else answers
'''

INFERENCE_SCRIPT = '''"""Volumes through the network, slice by slice along the third axis."""

import csv
import pathlib

import torch
from monai.data import MetaTensor


def label_maps(dataset, network, inferer, postprocessing, device):
    """Write a label map for each volume of the dataset."""
    for item in dataset:
        image = item["image"]
        with torch.no_grad():
            logits = inferer(torch.as_tensor(image)[None].to(device), network)
        # A tenth of the time of argmax on a CPU.
        labels = logits[0].max(dim=0, keepdim=True).indices.cpu()
        operations = image.applied_operations
        item["pred"] = MetaTensor(labels, meta=image.meta, applied_operations=operations)
        postprocessing(item)


def rows(dataset, network, device, output_dir, columns):
    """Write a row of numbers for each slice of each volume into ``answers.csv``."""
    folder = pathlib.Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "answers.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "slice", *columns])
        for item in dataset:
            image = item["image"]
            slices = torch.as_tensor(image).permute(3, 0, 1, 2).to(device)
            for number in range(len(slices)):
                with torch.no_grad():
                    answer = network(slices[number : number + 1])[0].tolist()
                table.writerow([image.meta["filename_or_obj"], number, *answer])
'''

_TEXT = {"type": "string", "minLength": 1}
_VERSIONS = {"type": "object", "additionalProperties": {"type": "string"}}
_TENSOR = {
    "type": "object",
    "required": [
        *("type", "format", "num_channels", "spatial_shape", "dtype", "value_range"),
        *("is_patch_data", "channel_def"),
    ],
    "properties": {
        "type": _TEXT,
        "format": _TEXT,
        "modality": {"type": "string"},
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {
            "type": "array",
            "items": {"type": ["integer", "string"]},
        },
        "dtype": {"enum": ["float32", "float16", "int64", "int32", "uint8"]},
        "value_range": {"type": "array", "items": {"type": "number"}, "maxItems": 2},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
_TENSORS = {"type": "object", "minProperties": 1, "additionalProperties": _TENSOR}

METADATA_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "metadata.json of a MONAI bundle",
    "type": "object",
    "required": [
        *("schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version"),
        *("required_packages_version", "name", "task", "description", "authors", "copyright"),
        "network_data_format",
    ],
    "properties": {
        "schema": _TEXT,
        "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "changelog": _VERSIONS,
        "monai_version": _TEXT,
        "pytorch_version": {"type": "string", "pattern": r"^\d+\.\d+"},
        "numpy_version": {"type": "string", "pattern": r"^\d+\.\d+"},
        "required_packages_version": _VERSIONS,
        "name": _TEXT,
        "task": _TEXT,
        "description": _TEXT,
        "authors": _TEXT,
        "copyright": _TEXT,
        "intended_use": {"type": "string"},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {
                "inputs": {**_TENSORS, "required": ["image"]},
                "outputs": {**_TENSORS, "required": ["pred"]},
            },
        },
    },
}
