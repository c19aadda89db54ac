"""``--format monai``: a bundle that ``monai.bundle`` verifies and runs, without this package.

The network is the exported program (``models/model.pt2``), from images of 0..1 to answers in their
own size; intensities and orientation are MONAI's own transforms in ``configs/inference.json``.
"""

import hashlib
import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vismae.core.errors import ModelError
from vismae.core.model_card import ModelCard
from vismae.core.rundir import write_json, write_text
from vismae.core.types import PixelUnit
from vismae.inference.deployed import UnitRangeModel
from vismae.models.weights import Model, network_of
from vismae.workflows.exporting.bundle_code import (
    INFERENCE_SCRIPT,
    METADATA_SCHEMA,
    NETWORK_SCRIPT,
)
from vismae.workflows.exporting.card_page import card_page
from vismae.workflows.exporting.outcome import Outcome, require_same
from vismae.workflows.exporting.program import trace_unit_range
from vismae.workflows.exporting.trial import largest_difference, own_answer, trials, unit_images

_PROGRAM = "models/model.pt2"
_SCHEMA = "metadata.schema.json"
_OF_HU, _OF_SUV = "inference_hu.json", "inference_suv.json"
_WINDOWED = {_OF_HU: "volumes in Hounsfield units", _OF_SUV: "volumes in SUV"}


def export_monai(folder: Path, model: Model, body: UnitRangeModel) -> Outcome:
    """Write a MONAI bundle, let MONAI verify it, run its network and compare.

    Raises:
        ModelError: The network cannot be traced, or the bundle differs or is refused.
    """
    card = model.card
    if not isinstance(card, ModelCard):
        raise ModelError("The model has no model card. Take a fresh copy of the model folder.")
    for name in ("configs", "models", "docs", "scripts"):
        (folder / name).mkdir()
    path = folder / _PROGRAM
    torch.export.save(trace_unit_range(body), path)
    write_text(folder / "scripts" / "__init__.py", "")
    write_text(folder / "scripts" / "exported_network.py", NETWORK_SCRIPT)
    write_text(folder / "scripts" / "inference.py", INFERENCE_SCRIPT)
    write_text(folder / "docs" / "README.md", card_page(card, network_of(model)))
    write_text(folder / "LICENSE", f"Weights: {card.licence}\n")
    configs = folder / "configs"
    example = unit_images(trials(body.preprocessing)[0], body.preprocessing)
    outputs = own_answer(body, example).shape[1]
    write_json(configs / _SCHEMA, METADATA_SCHEMA)
    write_json(configs / "metadata.json", _metadata(card, body, network_of(model), outputs))
    workflows = _intensities(body)
    for name, intensity in workflows.items():
        write_json(configs / name, _inference(card, body, outputs, intensity))
    network = _verified(folder)
    differences: dict[str, float] = {}
    for trial in trials(body.preprocessing):
        images = unit_images(trial, body.preprocessing)
        with torch.no_grad():
            found = network(images.transpose(2, 3))
        found = found.transpose(2, 3) if found.ndim == 4 else found
        expected = own_answer(body, images)
        differences[trial.name] = largest_difference(np.asarray(found), expected)
    require_same(differences, path)
    return Outcome(
        path,
        differences,
        ("torch", "nibabel", "monai", "jsonschema", "fire"),
        notes=(
            "MONAI verified metadata and network. Run it on axial NIfTI volumes: "
            f"cd {folder} && python -m monai.bundle run --config_file configs/inference.json "
            "--bundle_root . --dataset_dir IMAGES --output_dir OUT",
            *(f"configs/{name}: the same for {_WINDOWED[name]}." for name in list(workflows)[1:]),
        ),
        facts={"verified_by_monai": ["verify_metadata", "verify_net_in_out"]},
    )


def _metadata(card: ModelCard, body: UnitRangeModel, network: str, outputs: int) -> dict[str, Any]:
    contract = body.preprocessing
    classes = card.task.classes if card.task is not None else ()
    word = {"logits": "segmentation", "probabilities": "classification", "features": "features"}
    purpose = word[body.output]
    size = list(contract.image_size)
    common = {"dtype": "float32", "is_patch_data": False}
    return {
        "schema": METADATA_SCHEMA["$schema"],
        "version": "0.1.0",
        "changelog": {"0.1.0": "exported by vismae"},
        "monai_version": metadata.version("monai"),
        "pytorch_version": metadata.version("torch").partition("+")[0],
        "numpy_version": metadata.version("numpy"),
        "required_packages_version": {"nibabel": metadata.version("nibabel")},
        "name": f"vismae {network}",
        "task": f"{purpose} of medical images, slice by slice",
        "description": f"A {network} of vismae as an exported program; images of 0..1 in.",
        "authors": "see docs/README.md",
        "copyright": f"licence of the weights: {card.licence}",
        "intended_use": "Research only; no medical device.",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": ", ".join(card.modalities) or "n/a",
                    "num_channels": contract.in_channels,
                    "spatial_shape": size[::-1],
                    "value_range": [0, 1],
                    "channel_def": {str(k): "image" for k in range(contract.in_channels)},
                    **common,
                }
            },
            "outputs": {
                "pred": {
                    "type": body.output,
                    "format": purpose,
                    "num_channels": outputs,
                    "spatial_shape": size[::-1] if card.kind == "segmenter" else [],
                    "value_range": [],
                    "channel_def": {str(k): name for k, name in enumerate(classes)},
                    **common,
                }
            },
        },
    }


def _inference(
    card: ModelCard, body: UnitRangeModel, outputs: int, intensity: dict[str, Any]
) -> dict[str, Any]:
    """Return the workflow: axial NIfTI volumes in, label maps or a table out."""
    transforms = [
        {"_target_": "LoadImaged", "keys": "image", "image_only": True},
        {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": "no_channel"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "LPS"},
        intensity,
    ]
    if body.preprocessing.in_channels == 3:
        transforms.append({"_target_": "RepeatChanneld", "keys": "image", "repeats": 3})
    config: dict[str, Any] = {
        "imports": ["$import glob", "$import os", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "images",
        "output_dir": "output",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {
            "_target_": "scripts.exported_network.ExportedNetwork",
            "path": f"$os.path.join(@bundle_root, '{_PROGRAM}')",
        },
        "network": "$@network_def.to(@device)",
        "files": "$sorted(glob.glob(os.path.join(@dataset_dir, '*.nii*')))",
        "preprocessing": {"_target_": "Compose", "transforms": transforms},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @files]",
            "transform": "@preprocessing",
        },
    }
    common = {"dataset": "@dataset", "network": "@network", "device": "@device"}
    if card.kind != "segmenter":
        names = card.task.classes if card.task is not None else range(outputs)
        columns = [f"{body.output}_{name}" for name in names]
        run = {"_target_": "scripts.inference.rows", **common}
        return {**config, "run": [{**run, "output_dir": "@output_dir", "columns": columns}]}
    config["inferer"] = {
        "_target_": "SliceInferer",
        # Whole slices: the program itself fits any size.
        "roi_size": [-1, -1],
        "spatial_dim": 2,
        "sw_batch_size": 8,
    }
    config["postprocessing"] = {
        "_target_": "Compose",
        "transforms": [
            {
                "_target_": "Invertd",
                "keys": "pred",
                "orig_keys": "image",
                "transform": "@preprocessing",
                "nearest_interp": True,
                "to_tensor": True,
            },
            {
                "_target_": "SaveImaged",
                "keys": "pred",
                "output_dir": "@output_dir",
                "output_postfix": "labels",
                "output_dtype": "$torch.uint8" if outputs <= 256 else "$torch.int32",
                "separate_folder": False,
                "resample": False,
                "print_log": False,
            },
        ],
    }
    run = {"_target_": "scripts.inference.label_maps", **common}
    run |= {"inferer": "@inferer", "postprocessing": "@postprocessing"}
    return {**config, "run": [run]}


def _intensities(body: UnitRangeModel) -> dict[str, dict[str, Any]]:
    """Return the transform to 0..1 of each workflow file, ``inference.json`` first.

    A NIfTI file does not say what its numbers are. A model that knows one unit alone takes them
    for that; one that knows several has a workflow for each unit with a window of its own.
    """
    contract = body.preprocessing
    units = {unit for known in contract.pixel_units.values() for unit in known}
    scaled = {"keys": "image", "b_min": 0.0, "b_max": 1.0, "clip": True}
    low, high = contract.percentiles
    between = {"_target_": "ScaleIntensityRangePercentilesd", "lower": low, "upper": high, **scaled}
    windows = {
        PixelUnit.HU: (_OF_HU, contract.ct_window_hu),
        PixelUnit.SUV: (_OF_SUV, contract.pet_range_suv),
    }
    windowed = {
        name: {"_target_": "ScaleIntensityRanged", "a_min": low, "a_max": high, **scaled}
        for unit, (name, (low, high)) in windows.items()
        if unit in units
    }
    if len(units) == 1 and windowed:
        return {"inference.json": next(iter(windowed.values()))}
    return {"inference.json": between, **windowed}


def _verified(folder: Path) -> torch.nn.Module:
    """Let MONAI check metadata and network, and return the network as the bundle builds it.

    Raises:
        ModelError: MONAI refuses the bundle.
    """
    from monai.bundle.config_parser import ConfigParser
    from monai.bundle.scripts import verify_metadata, verify_net_in_out

    configs = folder / "configs"
    with _scripts_of(folder):
        try:
            verify_metadata(
                meta_file=str(configs / "metadata.json"),
                filepath=str(configs / _SCHEMA),
                hash_val=hashlib.sha256((configs / _SCHEMA).read_bytes()).hexdigest(),
                hash_type="sha256",
            )
            verify_net_in_out(
                net_id="network_def",
                meta_file=str(configs / "metadata.json"),
                config_file=str(configs / "inference.json"),
                device="cpu",
                bundle_root=str(folder),
            )
            parser = ConfigParser()
            parser.read_config(str(configs / "inference.json"))
            parser["bundle_root"] = str(folder)
            return parser.get_parsed_content("network_def").eval()
        except (ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"MONAI refuses the bundle: {error}") from error


@contextmanager
def _scripts_of(folder: Path) -> Generator[None]:
    """Let ``import scripts`` find this bundle's, and nobody else's before or after."""

    def forget() -> dict[str, Any]:
        names = [name for name in sys.modules if name.split(".")[0] == "scripts"]
        return {name: sys.modules.pop(name) for name in names}

    before = forget()
    sys.path.insert(0, str(folder))
    # MONAI's loggers have levels and handlers of their own, so only this keeps them quiet.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        sys.path.remove(str(folder))
        forget()
        sys.modules.update(before)
