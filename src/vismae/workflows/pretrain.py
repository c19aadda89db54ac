"""``vismae pretrain``: an encoder learns from unlabelled images, by masks or by contrast."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vismae.core.config import PretrainConfig
from vismae.core.errors import DamagedImageError, DataError
from vismae.core.launch import is_main_process
from vismae.core.model_card import ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.core.rundir import MODEL, open_run, provenance
from vismae.core.types import Modality
from vismae.data.fingerprint import FINGERPRINT_COLUMNS, add_stages, fingerprint
from vismae.data.geometry import fit_image
from vismae.data.loaders import PretrainImages, SliceReader
from vismae.data.sampler import DrawStream
from vismae.data.store import Store
from vismae.data.store_curation import SKIPPABLE, kept_rows
from vismae.models.contrastive import SwinSimCLR
from vismae.models.mae import SwinMAE
from vismae.models.weights import Model, architecture_of, kind_of, save_model
from vismae.training.accelerator import with_precision
from vismae.training.callbacks import AveragedWeights
from vismae.training.damaged_images import DamagedImages
from vismae.training.fill_in import draw_fill_in_sheet
from vismae.training.metrics_log import MetricsLog
from vismae.training.mlflow_record import has_mlflow
from vismae.training.modules import ContrastiveModule, PretrainModule
from vismae.training.monitor import Monitor
from vismae.training.optimizer import effective_lr
from vismae.training.probes import labelled_halves
from vismae.training.team import Team, together
from vismae.training.time_share import TimeShare
from vismae.training.trainer import (
    Fit,
    Schedule,
    is_finished,
    plan_schedule,
    resume_step,
    run_training,
)
from vismae.workflows.begun_with import images_of_run
from vismae.workflows.preparation import (
    load_start,
    of_modality,
    open_images,
    resolve_preprocessing,
    with_units,
)
from vismae.workflows.pretraining_network import build_pretraining, start_from

logger = logging.getLogger(__name__)

_PICTURES_PER_MODALITY = 2


@dataclass(frozen=True)
class PretrainResult:
    """Where a pre-training ended.

    Attributes:
        model: Model folder.
        steps: Optimiser steps done.
        already_finished: The run had ended before and was left as it is.
        damaged: Table of the images that were damaged in the store, if any were.
    """

    model: Path
    steps: int
    already_finished: bool = False
    damaged: Path | None = None

    def summary(self) -> str:
        """Say what was done and where the weights lie."""
        done = "was already finished" if self.already_finished else "finished"
        told = f"Pre-training {done} after {self.steps} steps. Model folder: {self.model}"
        if self.damaged is None:
            return told
        return f"{told}\nOther images were seen in place of damaged ones: {self.damaged}"


def pretrain(config: PretrainConfig) -> PretrainResult:
    """Pre-train from a configuration; the run folder ends with ``model/``.

    Raises:
        DataError: No image is left to learn from, or a run that is resumed began with others.
        PreprocessingError: The start model prepares images in another way.
        RunFolderError: The run folder cannot be used.
        TrainingError: The loss was not finite, memory ran out, or another process failed.
    """
    config = with_precision(config)
    with (
        together(config.trainer, pretrain, config) as team,
        open_run(
            config.out, "pretrain", config, resume=config.resume, overwrite=config.overwrite
        ) as folder,
    ):
        store = team.in_turn(lambda: _open_store(config, folder))
        return pretrain_on(config, folder, store, _training_rows(config, store), team)


def pretrain_on(
    config: PretrainConfig, folder: Path, store: Store, rows: pd.DataFrame, team: Team
) -> PretrainResult:
    """Pre-train on chosen rows in a run folder that is held already.

    Args:
        config: Settings; its source of images is not looked at.
        folder: The run folder.
        store: Where the images are.
        rows: Modality, unit and patient of the rows to learn from, labelled by row number.
        team: The processes that train.

    Raises:
        DataError: The store no longer holds the images that the run began with.
        PreprocessingError: The start model prepares images in another way.
        TrainingError: The loss was not finite, memory ran out, too many images are damaged, or
            another process failed.
    """
    rows = images_of_run(folder, store, rows)
    schedule = plan_schedule(config.trainer, config.data.batch_size, len(rows))
    done = resume_step(folder)
    if is_finished(folder, schedule.total_steps):
        logger.info("%s is finished at step %d", folder, done)
        return PretrainResult(folder / MODEL, done, already_finished=True)
    damaged = DamagedImages(
        folder, store, len(rows), config.data.max_damaged_fraction, team.launch.rank
    )
    model = _train(config, folder, store, rows, schedule, team, damaged)
    damaged.tell_sum()
    table = damaged.path if damaged.path.is_file() else None
    return PretrainResult(model, max(done, schedule.total_steps), damaged=table)


def _open_store(config: PretrainConfig, folder: Path) -> Store:
    if config.store is not None:
        return Store(config.store)
    return open_images(config.data.sources, folder / "store")


def _training_rows(config: PretrainConfig, store: Store) -> pd.DataFrame:
    """Return modality, unit and patient of the rows to learn from, labelled by row number."""
    index = store.columns(["modality", "split", "height", "width"])
    where = store.address
    rows = of_modality(index, config.data.modality, where)
    if not config.data.use_test_rows:
        kept = rows[~rows["split"].isin(["val", "test"])]
        if len(kept) < len(rows):
            logger.info("left out %d rows whose split is val or test", len(rows) - len(kept))
        rows = kept
    rows = _without_skipped(config, store, rows)
    large = rows[rows[["height", "width"]].min(axis=1) >= config.data.min_side]
    if len(large) < len(rows):
        logger.info(
            "left out %d images under %d pixels", len(rows) - len(large), config.data.min_side
        )
    if large.empty:
        raise DataError(
            f"{where}: no image is left to learn from. Look at data.modality, data.min_side "
            f"({config.data.min_side} pixels), data.skip and the column split (val and test rows "
            "are left out unless data.use_test_rows is true)."
        )
    return store.columns(["modality", "unit", "patient_id"], large.index.to_numpy())


def _without_skipped(config: PretrainConfig, store: Store, rows: pd.DataFrame) -> pd.DataFrame:
    """Leave out what ``data.skip`` names, as far as the store knows of it."""
    unknown = {word for word, column in SKIPPABLE.items() if column not in store.column_names}
    kept = rows[rows.index.isin(kept_rows(store, set(config.data.skip) - unknown))]
    if len(kept) < len(rows):
        logger.info(
            "left out %d images (data.skip: %s)",
            len(rows) - len(kept),
            ", ".join(config.data.skip),
        )
    return kept


def _train(
    config: PretrainConfig,
    folder: Path,
    store: Store,
    rows: pd.DataFrame,
    schedule: Schedule,
    team: Team,
    damaged: DamagedImages,
) -> Path:
    source, start = load_start(config.init)
    # Single slices are learnt from, also where the start model saw several together.
    wanted = resolve_preprocessing(
        config.preprocessing,
        config.data.image_size,
        config.model.in_channels,
        start,
        neighbours=0,
        source=source,
        sequences=(),
    )
    preprocessing, modalities = with_units(wanted, rows, store.address)
    model = build_pretraining(config, source)
    transferred = None
    if source is not None:
        transferred = start_from(source, model)
        logger.info("started from %s: %s", config.init, transferred)
    lr = effective_lr(config.optimizer, schedule.images_per_step)
    _announce(config, rows, model, schedule, lr)
    decay = config.trainer.ema_decay
    average = AveragedWeights(model, decay) if decay else None
    examples = _examples(store, rows, preprocessing)

    share = TimeShare(config.monitor.most_time_fraction)

    def picture(step: int, log: MetricsLog) -> None:
        if not isinstance(model, SwinMAE) or not examples:
            return
        path = folder / "figures" / f"fill_in_{step:07d}.png"
        try:
            with share.timed():
                draw_fill_in_sheet(path, model, examples, preprocessing)
                log.picture(step, "fill_in", path)
        except OSError as error:
            # As on a full disk: no reason to lose the steps since the last resume point.
            logger.warning("%s cannot be written (%s)", path, error.strerror or error)

    contrasts = config.method == "simclr"
    module_type = ContrastiveModule if contrasts else PretrainModule
    run_training(
        module_type(
            model, config.optimizer, lr, schedule.total_steps, compiled=config.model.compile
        ),
        Fit(
            team=team,
            folder=folder,
            dataset=PretrainImages(store, preprocessing, config.data, config.seed, pairs=contrasts),
            stream=DrawStream(
                rows.index.to_numpy(),
                rows["modality"].cat.codes.to_numpy(),
                config.data.sampling,
                config.seed,
            ),
            batch_size=config.data.batch_size,
            workers=config.data.workers,
            seed=config.seed,
            schedule=schedule,
            actions=[
                (config.trainer.picture_every, picture),
                *_looks(config, folder, model, SliceReader(store, preprocessing), rows, share),
            ],
            mlflow=config.monitor.mlflow == "auto" and has_mlflow(),
            damaged=damaged,
        ),
        config.trainer,
        average,
    )
    final = cast("SwinMAE | SwinSimCLR", average.average.module) if average else model
    if is_main_process():
        learnt = store.columns(FINGERPRINT_COLUMNS, rows.index.to_numpy())
        card = _card(config, model, preprocessing, modalities, learnt, resume_step(folder))
        if source is not None:
            card = _with_start(card, source, transferred)
        if isinstance(final, SwinMAE) and examples:
            draw_fill_in_sheet(folder / "figures" / "fill_in.png", final, examples, preprocessing)
        save_model(final, card, folder / MODEL)
    return folder / MODEL


def _looks(
    config: PretrainConfig,
    folder: Path,
    model: SwinMAE | SwinSimCLR,
    reader: SliceReader,
    rows: pd.DataFrame,
    share: TimeShare,
) -> list[tuple[int, Monitor]]:
    """Return the looks at the features that are due between steps of the first process."""
    settings = config.monitor
    if not settings.every or not is_main_process():
        return []
    store, images = reader.store, _spread(rows.index.to_numpy(), settings.images)
    if settings.data:
        store = open_images(settings.data, folder / "monitor_store", "classify")
        images = labelled_halves(store, settings.images, config.seed)
        units = store.columns(["modality", "unit"], images.rows)
        with_units(reader.preprocessing, units, store.address)
        logger.info(
            "watching with %d images of %d classes, judged on %d images of other patients",
            len(images.learn_rows),
            len(images.classes),
            len(images.judge_rows),
        )
    return [(settings.every, Monitor(model.encoder, store, reader.preprocessing, images, share))]


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many rows, evenly from all."""
    places = np.linspace(0, len(rows) - 1, min(most, len(rows)))
    return rows[places.round().astype(int)]


def _announce(
    config: PretrainConfig,
    rows: pd.DataFrame,
    model: SwinMAE | SwinSimCLR,
    schedule: Schedule,
    lr: float,
) -> None:
    counts = ", ".join(f"{n} {name}" for name, n in rows["modality"].value_counts().items())
    logger.info(
        "%d images (%s) of %d patients or groups", len(rows), counts, rows["patient_id"].nunique()
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    network = config.model.size if config.init is None else "of the start model"
    logger.info("network %s: %.1f M parameters", network, parameters / 1e6)
    logger.info(
        "%d steps of %d images (%.1f epochs), peak lr %.3g (optimizer.lr %.3g, %s scaling)",
        schedule.total_steps,
        schedule.images_per_step,
        schedule.total_steps * schedule.images_per_step / schedule.epoch_length,
        lr,
        config.optimizer.lr,
        config.optimizer.lr_scaling,
    )


def _examples(
    store: Store, rows: pd.DataFrame, preprocessing: Preprocessing
) -> dict[Modality, Tensor]:
    """Return a few whole images of each modality, normalised, (n, C, H, W); no damaged ones."""
    reader = SliceReader(store, preprocessing)
    examples = {}
    for modality, members in rows.groupby("modality"):
        places = np.linspace(0, len(members) - 1, _PICTURES_PER_MODALITY + 2)[1:-1]
        images = []
        for row in members.index.to_numpy()[places.round().astype(int)]:
            with suppress(DamagedImageError):
                images.append(fit_image(reader.read(int(row))[0], preprocessing))
        if images:
            examples[Modality(modality)] = reader.normalise(torch.stack(images))
    return examples


def _card(
    config: PretrainConfig,
    model: SwinMAE | SwinSimCLR,
    preprocessing: Preprocessing,
    modalities: tuple[Modality, ...],
    learnt: pd.DataFrame,
    steps: int,
) -> ModelCard:
    included = {"method", "model", "contrastive", "optimizer", "seed"}
    settings = config.model_dump(mode="json", include=included)
    return ModelCard(
        kind=kind_of(model),
        architecture=architecture_of(model),
        preprocessing=preprocessing,
        modalities=modalities,
        licence=config.licence,
        training={"pretrain": fingerprint(learnt)},
        provenance={**provenance("pretrain"), "settings": settings, "steps": steps},
    )


def _with_start(card: ModelCard, source: Model, transferred: str | None) -> ModelCard:
    """Add what is known of the start model: its data and licence stay those of the new weights."""
    changes: dict[str, Any] = {"provenance": {**card.provenance, "transfer": transferred}}
    if source.card is not None:
        changes["training"] = add_stages(source.card.training, card.training)
        if card.licence == "not stated":
            changes["licence"] = source.card.licence
    return card.model_copy(update=changes)
