"""``--format huggingface`` and ``reference``: all weights, for the hub and the paper."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vismae.core.errors import ModelError
from vismae.core.model_card import ModelCard
from vismae.inference.deployed import UnitRangeModel
from vismae.models.mae import SwinMAE
from vismae.models.reference import (
    load_reference_checkpoint,
    require_official,
    save_reference_checkpoint,
)
from vismae.models.weights import Model, network_of
from vismae.workflows.exporting.card_page import write_card_page
from vismae.workflows.exporting.outcome import Outcome, require_same
from vismae.workflows.exporting.trial import largest_difference, own_answer, trials, unit_images

REFERENCE_FILE = "model.pth"


def export_huggingface(folder: Path, model: Model, body: UnitRangeModel) -> Outcome:
    """Write a folder for ``from_pretrained`` with a model card page, load it and compare.

    Raises:
        ModelError: The copy differs.
    """
    from vismae.models.hub import HubModel

    card = model.card
    if not isinstance(card, ModelCard):
        raise ModelError("The model has no model card. Take a fresh copy of the model folder.")
    target = folder / "huggingface"
    target.mkdir()
    write_card_page(target, card, network_of(model))
    HubModel(model).save_pretrained(target)
    loaded = HubModel.from_pretrained(target)
    copy = UnitRangeModel(loaded.network, body.preprocessing, body.multi_label).eval()
    differences = {}
    for trial in trials(body.preprocessing):
        images = unit_images(trial, body.preprocessing)
        found, expected = own_answer(copy, images), own_answer(body, images)
        differences[trial.name] = largest_difference(found, expected)
    weights = target / "model.safetensors"
    require_same(differences, weights)
    # One level less to type: the folder that was asked for is the one that is shared.
    moved = _lift(target, folder)
    return Outcome(
        folder / weights.name,
        differences,
        ("vismae", "huggingface_hub"),
        notes=(f'Load it with: HubModel.from_pretrained("{folder}") (vismae.models.hub)',),
        facts={"files": moved},
    )


def export_reference(folder: Path, model: Model) -> Outcome:
    """Write the checkpoint layout of the published code, read it back and compare.

    Raises:
        ModelError: The layout cannot hold the model, or the copy differs.
    """
    official = require_official(model)
    path = folder / REFERENCE_FILE
    save_reference_checkpoint(official, path)
    copy = load_reference_checkpoint(path)
    side = official.config.patch_size * official.config.window_size * 2
    generator = torch.Generator().manual_seed(0)
    shape = (1, official.config.in_channels, side, side)
    images = torch.randn(shape, generator=generator)
    with torch.inference_mode():
        differences = {
            f"{name}, {side}×{side}": largest_difference(found.numpy(), expected.numpy())
            for name, found, expected in _outputs(copy, official, images)
        }
    read_back = copy.state_dict()
    changed = [
        name
        for name, value in official.state_dict().items()
        if name in read_back and not torch.equal(value, read_back[name])
    ]
    require_same(differences, path)
    if changed:
        path.unlink()
        raise ModelError(f"{path.name} was removed: tensors changed on the way: {changed[:5]}.")
    return Outcome(path, differences, ("torch",))


def _outputs(copy: Model, model: Model, images: Tensor) -> Sequence[tuple[str, Tensor, Tensor]]:
    if isinstance(copy, SwinMAE) and isinstance(model, SwinMAE):
        keys = torch.zeros(len(images), dtype=torch.int64)
        # Which patches are hidden is no part of the layout; the same are hidden for both.
        hidden = model(images, keys=keys).hidden
        return [
            (
                "reconstruction",
                copy(images, hidden=hidden).prediction,
                model(images, hidden=hidden).prediction,
            )
        ]
    return [("output", copy(images), model(images))]


def _lift(source: Path, target: Path) -> list[str]:
    names = sorted(path.name for path in source.iterdir())
    for name in names:
        shutil.move(source / name, target / name)
    source.rmdir()
    return names
