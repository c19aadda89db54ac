"""Task-adaptive pre-training: on the task's own training images, before it is fine-tuned.

Gururangan et al. 2020 (arXiv 2004.10964) for language; for medical images El-Nouby et al. 2021
(arXiv 2112.10740). A hospital has its unlabelled images too. Only patients of the training split
are seen, whatever the label fraction; validation and test patients never are.
"""

import logging
from pathlib import Path

from vismae.core.config import (
    FinetuneConfig,
    MAESettings,
    MonitorSettings,
    PretrainConfig,
    PretrainDataSettings,
)
from vismae.core.errors import SettingError
from vismae.core.preprocessing import Preprocessing
from vismae.core.rundir import open_run
from vismae.core.sections import WITH_SWIN_ENCODER
from vismae.models.mae import SwinMAE
from vismae.models.weights import Model
from vismae.training.team import Team
from vismae.workflows.preparation import load_start
from vismae.workflows.pretrain import pretrain_on
from vismae.workflows.task_data import TaskData

logger = logging.getLogger(__name__)

FOLDER = "task_pretraining"
_BATCH_SIZE = 64


def pretrain_on_task(
    config: FinetuneConfig, folder: Path, data: TaskData, source: Model | None, team: Team
) -> tuple[Model | None, Preprocessing | None]:
    """Go on with masked pre-training on the task's training patients.

    Args:
        config: Settings without open questions.
        folder: Of the fine-tuning; the run goes into ``task_pretraining`` there, and goes on from
            where it stopped.
        data: The task's images.
        source: Start model, if any.
        team: This process alone.

    Returns:
        The model to fine-tune from, and the contract to do it under.

    Raises:
        SettingError: The network has no Swin encoder, or several processes train.
    """
    network = config.model.network_for(config.task.kind)
    if network not in WITH_SWIN_ENCODER:
        raise SettingError(
            f"task_pretrain_steps is {config.task_pretrain_steps}, but {network} has no Swin "
            f"encoder to pre-train. Use one of {', '.join(WITH_SWIN_ENCODER)}, or 0 steps."
        )
    if config.trainer.devices * config.trainer.nodes > 1:
        raise SettingError(
            "task_pretrain_steps runs on one device. With several, run vismae pretrain --init on "
            "the task's training images first, and fine-tune from its model."
        )
    settings = _settings(config, folder / FOLDER, data, source)
    resume = (settings.out / "config.yaml").is_file()
    rows = data.store.columns(["modality", "unit", "patient_id"], data.pretraining)
    logger.info(
        "first %d steps of masked pre-training on %d images of all %d training patients",
        config.task_pretrain_steps,
        len(rows),
        rows["patient_id"].nunique(),
    )
    with open_run(settings.out, "pretrain", settings, resume=resume) as run:
        start, contract = load_start(pretrain_on(settings, run, data.store, rows, team).model)
    if contract is not None and source is not None and source.preprocessing is not None:
        # Pre-training sees single slices; what follows sees as many as the start model did.
        seen = {"neighbours": source.preprocessing.neighbours}
        contract = contract.model_copy(update=seen)
    return start, contract


def _settings(
    config: FinetuneConfig, out: Path, data: TaskData, source: Model | None
) -> PretrainConfig:
    network = {"in_channels": config.model.in_channels or 1, "drop_path": 0.0}
    if source is None:
        network["size"] = config.model.size
    if isinstance(source, SwinMAE):
        network |= {
            "mask_ratio": source.mask_ratio,
            "mask_unit_px": source.mask_unit_px,
            "mask_strategy": source.strategy,
            "normalise_patches": source.normalise_patches,
            "normalise_eps": source.normalise_eps,
            "background_weight": source.background_weight,
            "encoder_input": source.encoder_input,
            "normalise_side_px": source.normalise_side_px,
            "decoder_kind": source.decoder_kind,
            "decoder_width": source.decoder_width,
            "decoder_branch": source.decoder_branch,
        }
    trainer = {
        "max_steps": config.task_pretrain_steps,
        "max_epochs": None,
        "ema_decay": None,
        "accumulate": 1,
        "picture_every": 0,
    }
    return PretrainConfig(
        out=out,
        init=config.init,
        seed=config.seed,
        model=MAESettings.model_validate(network),
        data=PretrainDataSettings(
            # Where these were ingested to would be another path once the run folder has moved.
            sources=config.data.sources,
            image_size=config.data.image_size,
            batch_size=min(_BATCH_SIZE, max(2, len(data.pretraining))),
            workers=config.data.workers,
            sampling="natural",
            flip=config.augment.flip_horizontal,
        ),
        preprocessing=config.preprocessing,
        trainer=config.trainer.model_copy(update=trainer),
        monitor=MonitorSettings(every=0, mlflow="off"),
    )
