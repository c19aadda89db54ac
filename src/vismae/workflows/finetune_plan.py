"""``vismae finetune --plan``: the recipe for a task, from its images and its start model.

The rules are in ``core/recipe.py``; here is what they look at.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vismae.core.config import FinetuneConfig
from vismae.core.errors import SettingError
from vismae.core.recipe import (
    CHOSEN,
    KEPT_DICE,
    SIDES_PX,
    Fingerprint,
    Plan,
    StartFacts,
    plan_finetuning,
)
from vismae.core.remains import is_unbegun
from vismae.core.rundir import open_run, write_text
from vismae.core.settings import build_config
from vismae.core.types import PixelUnit
from vismae.data.label_detail import smallest_side_px
from vismae.data.labels import apply_mapping
from vismae.models.weights import Model, kind_of, network_of
from vismae.workflows.adapted_network import (
    require_known_sequences,
    require_start_exists,
    require_start_possible,
)
from vismae.workflows.preparation import load_start
from vismae.workflows.task_data import TaskData, open_task_data, pixel_shares

logger = logging.getLogger(__name__)

PLAN_FILE = "plan.yaml"
_MOST_LABEL_MAPS_FOR_DETAIL = 50


@dataclass(frozen=True)
class PlanResult:
    """A written plan.

    Attributes:
        path: The YAML file.
        plan: What it says.
    """

    path: Path
    plan: Plan

    def summary(self) -> str:
        """Say what was chosen, and how to go on."""
        values = self.plan.config.model_dump(mode="json")
        lines = []
        for name, why in self.plan.reasons.items():
            section, _, last = name.partition(".")
            lines.append(f"{name}: {values[section][last]}  ({why})")
        kind = self.plan.config.task.kind
        again = f"vismae finetune {kind} --config {self.path} --out RUN"
        lines.append(f"Plan: {self.path}. Train with: {again}")
        return "\n".join(lines)


def plan_recipe(config: FinetuneConfig) -> PlanResult:
    """Look at a task's images and its start, choose what is unset, and write it down.

    Args:
        config: ``out`` becomes a folder with ``plan.yaml`` (and the store, if one had to be made).

    Raises:
        DataError: Labels, classes or splits do not fit.
        ModelError: The start model cannot be read.
    """
    require_start_possible(config.init, config.model.network_for(config.task.kind))
    require_start_exists(config.init)
    with open_run(config.out, "finetune", config, overwrite=config.overwrite) as folder:
        data = open_task_data(config, folder)
        plan = plan_task(config, data, load_start(config.init)[0])
        path = folder / PLAN_FILE
        write_text(path, plan.to_yaml())
    return PlanResult(path, plan)


def plan_task(config: FinetuneConfig, data: TaskData, source: Model | None) -> Plan:
    """Fill what is unset by the recipe.

    Args:
        config: What was asked for.
        data: The task's images.
        source: The start model.

    Raises:
        SettingError: Neighbouring slices are asked for where there are no volumes, or the start
            model sees other sequences.
    """
    fingerprint = fingerprint_of(config, data)
    if config.model.neighbours and fingerprint.slices_per_volume < 2:
        raise SettingError(
            f"model.neighbours is {config.model.neighbours}, but {data.store.address} holds single "
            "images. Give volumes (DICOM, NIfTI, or a manifest with volume_id and slice_index), or "
            "leave it out."
        )
    unseen = [name for name, share in fingerprint.shares.items() if share == 0.0]
    if unseen:
        logger.warning("no training image shows %s, so it cannot be learnt", ", ".join(unseen))
    start = None
    if source is not None:
        contract = source.preprocessing
        start = StartFacts(
            kind_of(source),
            network_of(source),
            contract.in_channels if contract else source.config.in_channels,
            contract.image_size if contract else None,
            contract.neighbours if contract else 0,
        )
    plan = plan_finetuning(config, fingerprint, start)
    if source is not None:
        require_known_sequences(source.preprocessing, config.init, plan.config.model)
    return plan


def fingerprint_of(config: FinetuneConfig, data: TaskData) -> Fingerprint:
    """Return what the recipe looks at: training images alone, beside the count of the others."""
    names = ["patient_id", "volume_id", "height", "width", "channels", "modality", "unit"]
    rows = data.store.columns(names, data.train)
    units = set(rows["unit"].astype(str))
    return Fingerprint(
        kind=config.task.kind,
        images=len(rows),
        patients=int(rows["patient_id"].nunique()),
        validation_images=len(data.val),
        height=int(rows["height"].median()),
        width=int(rows["width"].median()),
        colour=bool((rows["channels"] == 3).mean() > 0.5),
        modalities=tuple(sorted(set(rows["modality"].astype(str)))),
        physical=units <= {PixelUnit.HU.value, PixelUnit.SUV.value},
        shares=dict(zip(data.card.classes, _shares(data).tolist(), strict=True)),
        multi_label=data.card.multi_label,
        slices_per_volume=int(rows.groupby("volume_id", observed=True).size().median()),
        detail_side_px=_detail_side_px(config, data),
    )


def _detail_side_px(config: FinetuneConfig, data: TaskData) -> int | None:
    """Return the side that the training label maps need; None if it would decide nothing."""
    mapping = data.card.label_values
    if mapping is None or config.data.image_size is not None:
        return None
    step = max(1, len(data.train) // _MOST_LABEL_MAPS_FOR_DETAIL)
    read = (data.store.read(int(row)).label_map for row in data.train[::step])
    label_maps = [
        apply_mapping(label_map, mapping).astype(np.uint8)
        for label_map in read
        if label_map is not None
    ]
    return smallest_side_px(label_maps, SIDES_PX, KEPT_DICE)


def _shares(data: TaskData) -> np.ndarray:
    """Return each class's share of the pixels, or of the images."""
    if data.labels is None:
        return pixel_shares(data)
    labels = data.labels[data.train]
    if data.card.multi_label:
        return labels.mean(axis=0)
    return np.bincount(labels, minlength=len(data.card.classes)) / len(labels)


def as_before(config: FinetuneConfig) -> FinetuneConfig:
    """Return settings in which what is unset is as the run in ``out`` has it.

    Its recipe was chosen when it began; nothing is chosen anew on the way.
    """
    before = config.out / "config.yaml"
    if not before.is_file() or is_unbegun(config.out, with_stores=True):
        return config
    earlier = build_config(FinetuneConfig, "finetune", before).model_dump()
    settings = config.model_dump()
    for section, name in (dotted.split(".") for dotted in CHOSEN):
        if settings[section][name] is None:
            settings[section][name] = earlier[section][name]
    return FinetuneConfig.model_validate(settings)
