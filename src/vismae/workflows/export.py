"""``vismae export``: a model folder in a form that other code reads."""

from pathlib import Path

import torch

from vismae.core.config_model import ExportConfig
from vismae.core.errors import ModelError
from vismae.core.rundir import open_run
from vismae.models.reference import (
    OfficialModel,
    load_reference_checkpoint,
    require_official,
    save_reference_checkpoint,
)
from vismae.models.weights import load_model

REFERENCE_FILE = "model.pth"


def export(config: ExportConfig) -> Path:
    """Write the model's checkpoint into ``out`` and check that it gives the same numbers.

    Returns:
        The file.

    Raises:
        ModelError: The model cannot be expressed in the format, or the copy differs.
    """
    model = require_official(load_model(config.model))
    with open_run(config.out, "export", config, overwrite=config.overwrite) as folder:
        path = folder / REFERENCE_FILE
        save_reference_checkpoint(model, path)
        _require_same(model, path)
    return path


@torch.inference_mode()
def _require_same(model: OfficialModel, path: Path) -> None:
    """Read the checkpoint back and compare its output with the model's on one image."""
    copy = load_reference_checkpoint(path)
    side = model.config.patch_size * model.config.window_size * 2
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, model.config.in_channels, side, side, generator=generator)
    latent = model.encoder(image).tokens
    difference = float((copy.encoder(image).tokens - latent).abs().max())
    read_back = copy.state_dict()
    changed = [
        name
        for name, value in model.state_dict().items()
        if name in read_back and not torch.equal(value, read_back[name])
    ]
    if difference > 1e-4 or changed:
        raise ModelError(
            f"{path}: the exported checkpoint differs from the model (output by {difference:.2g}; "
            f"tensors {changed[:5]}). Do not use it."
        )
