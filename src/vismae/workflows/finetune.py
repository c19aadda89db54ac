"""``vismae finetune``: pre-trained weights are adapted to segmentation or classification."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor

from vismae.core.config import FinetuneConfig
from vismae.core.launch import is_main_process
from vismae.core.model_card import FingerprintCard, ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.core.rundir import (
    MODEL,
    open_run,
    provenance,
    write_bytes,
    write_json,
    write_text,
)
from vismae.core.settings import to_yaml
from vismae.data.fingerprint import FINGERPRINT_COLUMNS, WITHHELD, add_stages, fingerprint
from vismae.data.loaders import LabelledImages
from vismae.data.sampler import Draw, DrawStream
from vismae.evaluation.classification import choose_thresholds
from vismae.inference.predictor import Predictor, choose_device
from vismae.models.lora import merge_lora
from vismae.models.transfer import TransferReport
from vismae.models.transfer_audit import audit_transfer
from vismae.models.weights import Model, architecture_of, network_of, save_model
from vismae.training.accelerator import with_precision
from vismae.training.best_model import BestModel
from vismae.training.callbacks import AveragedWeights
from vismae.training.metrics_log import MetricsLog
from vismae.training.modules import (
    Batch,
    FinetuneModule,
    augmented,
    classification_objective,
    segmentation_objective,
)
from vismae.training.optimizer import effective_lr, encoder_layers, require_no_encoder_meant
from vismae.training.team import Team, together
from vismae.training.trainer import Fit, is_finished, plan_schedule, resume_step, run_training
from vismae.workflows.adapted_network import (
    Network,
    build_network,
    require_start_exists,
    require_start_fits,
    require_start_possible,
)
from vismae.workflows.begun_with import require_same_division
from vismae.workflows.finetune_plan import as_before, plan_task
from vismae.workflows.preparation import load_start, resolve_preprocessing, with_units
from vismae.workflows.scoring import mean_dice, score_classes, selection_metric, selection_score
from vismae.workflows.task_data import TaskData, class_weights, open_task_data, pixel_shares
from vismae.workflows.task_pretraining import pretrain_on_task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinetuneResult:
    """Where a fine-tuning ended.

    Attributes:
        model: Model folder.
        steps: Optimiser steps done.
        best_step: Step of the weights in the model folder.
        validation: Their mean Dice (segmentation), balanced accuracy (one class of an image) or
            mean AUROC (several) on the validation patients; NaN without any.
        metric: Which of these.
        already_finished: The run had ended before and was left as it is.
    """

    model: Path
    steps: int
    best_step: int
    validation: float
    metric: str
    already_finished: bool = False

    def summary(self) -> str:
        """Say what was done and where the weights lie."""
        done = "was already finished" if self.already_finished else "finished"
        kept = (
            f"best at step {self.best_step} with {self.metric} {self.validation:.3f} on validation"
        )
        if math.isnan(self.validation):
            kept = f"weights of step {self.best_step}, for there was no validation score"
        return f"Fine-tuning {done} after {self.steps} steps; {kept}. Model folder: {self.model}"


def finetune(config: FinetuneConfig) -> FinetuneResult:
    """Fine-tune from a configuration; the run folder ends with ``model/``.

    Raises:
        DataError: Labels, classes or splits do not fit.
        ModelError: The start model does not fit the network.
        PreprocessingError: The start model prepares images in another way.
        RunFolderError: The run folder cannot be used.
        TrainingError: The loss was not finite, memory ran out, or another process failed.
    """
    require_start_possible(config.init, config.model.network_for(config.task.kind))
    require_start_exists(config.init)
    config = with_precision(as_before(config) if config.resume else config)
    with (
        together(config.trainer, finetune, config) as team,
        open_run(
            config.out, "finetune", config, resume=config.resume, overwrite=config.overwrite
        ) as folder,
    ):
        data = team.in_turn(lambda: open_task_data(config, folder))
        require_same_division(folder, data.store, data.train, data.val)
        source, contract = load_start(config.init)
        plan = plan_task(config, data, source)
        for name, why in plan.reasons.items():
            logger.info("%s: %s", name, why)
        if is_main_process():
            write_text(folder / "config.yaml", to_yaml(plan.config))
        if plan.config.task_pretrain_steps:
            source, contract = pretrain_on_task(plan.config, folder, data, source, team)
        return _Finetuning(plan.config, folder, team, data, source, contract).run()


@dataclass(frozen=True)
class _Start:
    """The network before its first step, and where its weights came from."""

    network: Network
    preprocessing: Preprocessing
    report: TransferReport | None
    card: ModelCard | None


class _Finetuning:
    """The steps of one fine-tuning, in order."""

    def __init__(
        self,
        config: FinetuneConfig,
        folder: Path,
        team: Team,
        data: TaskData,
        source: Model | None,
        contract: Preprocessing | None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.team = team
        self.data = data
        self.source = source
        self.contract = contract
        self.metric = selection_metric(config.task.kind, config.task.multi_label)
        self.best = BestModel(folder / "checkpoints" / "best.pt")

    def run(self) -> FinetuneResult:
        config, data = self.config, self.data
        schedule = plan_schedule(config.trainer, config.data.batch_size, len(data.train))
        if is_finished(self.folder, schedule.total_steps):
            logger.info("%s is finished at step %d", self.folder, schedule.total_steps)
            return self._result(schedule.total_steps, already_finished=True)
        start = self._start()
        network = start.network
        lr = effective_lr(config.optimizer, schedule.images_per_step)
        logger.info(
            "%d steps of %d images, peak lr %.3g, layer decay %s",
            schedule.total_steps,
            schedule.images_per_step,
            lr,
            config.optimizer.layer_decay,
        )
        layers = encoder_layers(network)
        if not layers:
            require_no_encoder_meant(config.optimizer, network_of(network))
        decay = config.trainer.ema_decay
        average = AveragedWeights(network, decay) if decay else None
        shown = cast("Network", average.average.module) if average else network
        run_training(
            FinetuneModule(
                self._objective(),
                augmented(start.preprocessing, config.augment),
                network,
                config.optimizer,
                lr,
                schedule.total_steps,
                layers,
            ),
            Fit(
                team=self.team,
                folder=self.folder,
                dataset=self._dataset(start.preprocessing),
                stream=DrawStream(data.train, np.zeros(len(data.train)), "natural", config.seed),
                batch_size=config.data.batch_size,
                workers=config.data.workers,
                seed=config.seed,
                schedule=schedule,
                actions=self._validation(shown, start.preprocessing, schedule.total_steps),
            ),
            config.trainer,
            average,
        )
        if is_main_process():
            self.best.load_into(shown)
            merge_lora(shown)
            self._save(shown, start)
        return self._result(schedule.total_steps)

    def _start(self) -> _Start:
        """Build the network and move the start model's weights into it."""
        config, settings = self.config, self.config.model
        source = self.source
        if source is not None:
            require_start_fits(source, config.init, settings.network_for(config.task.kind))
        wanted = resolve_preprocessing(
            config.preprocessing,
            config.data.image_size,
            settings.in_channels,
            self.contract,
            settings.neighbours,
            source,
            settings.sequences,
        )
        preprocessing, _ = with_units(wanted, self.data.training_index, self.data.store.address)
        network, report = build_network(
            settings,
            config.task.kind,
            source,
            preprocessing,
            num_classes=len(self.data.card.classes),
            seed=config.seed,
            shares=lambda: pixel_shares(self.data).tolist(),
        )
        if source is not None and report is not None:
            logger.info("started from %s: %s", config.init, report.text())
            self._audit(source, network, preprocessing, report)
            self._keep_fill_in()
        learning = sum(value.numel() for value in network.parameters() if value.requires_grad)
        total = sum(value.numel() for value in network.parameters())
        logger.info(
            "network %s: %.2f of %.2f million parameters learn",
            network_of(network),
            learning / 1e6,
            total / 1e6,
        )
        return _Start(network, preprocessing, report, source.card if source else None)

    def _audit(
        self,
        source: Model,
        network: Network,
        preprocessing: Preprocessing,
        report: TransferReport,
    ) -> None:
        """Compare what both encoders make of one training image; keep it as ``transfer.json``."""
        images = LabelledImages(self.data.store, preprocessing)
        image = images[Draw(int(self.data.train[0]), 0)]["image"]
        audit = audit_transfer(source, network, image[None], report)
        logger.info("%s", audit.text())
        if is_main_process():
            contracts = {"start": source.preprocessing, "run": preprocessing}
            kept = {
                name: contract and contract.model_dump(mode="json")
                for name, contract in contracts.items()
            }
            write_json(
                self.folder / "transfer.json",
                {**report.to_dict(), "audit": audit.to_dict(), "preprocessing": kept},
            )

    def _keep_fill_in(self) -> None:
        """Copy the pre-training's picture into this run, for the reports made from it."""
        if self.config.init is None or not is_main_process():
            return
        sheet = self.config.init.parent / "figures" / "fill_in.png"
        if self.config.init.is_dir() and sheet.is_file():
            write_bytes(self.folder / "figures" / "pretraining_fill_in.png", sheet.read_bytes())

    def _objective(self) -> Callable[[Any, Batch], Tensor]:
        task = self.config.task
        if task.kind == "segment":
            return segmentation_objective(task)
        return classification_objective(task, class_weights(self.data, task.class_weights))

    def _dataset(self, preprocessing: Preprocessing) -> LabelledImages:
        return LabelledImages(
            self.data.store,
            preprocessing,
            label_values=self.data.card.label_values,
            labels=self.data.labels,
            augment=self.config.augment,
            seed=self.config.seed,
        )

    def _validation(
        self, network: Network, preprocessing: Preprocessing, total_steps: int
    ) -> list[tuple[int, Callable[[int, MetricsLog], None]]]:
        """Return what looks at the validation patients between steps, and keeps the best."""
        every = min(self.config.trainer.validate_every or total_steps, total_steps)

        def validate(step: int, log: MetricsLog) -> None:
            value = self._validate(network, preprocessing)
            log.write(step, {f"validation {self.metric}": value})
            logger.info("step %d: validation %s %.4f", step, self.metric, value)
            self.best.offer(step, value, network)

        actions = [(every, validate)]
        if total_steps % every:
            # The end of the run is a candidate too.
            actions.append((total_steps, validate))
        return actions

    def _validate(self, network: Network, preprocessing: Preprocessing) -> float:
        if len(self.data.val) == 0:
            return float("nan")
        batch, precision = self.config.data.batch_size, self.config.trainer.precision
        predictor = Predictor(network, preprocessing, batch, precision=precision)
        card, data = self.data.card, self.data
        if card.label_values is not None:
            return mean_dice(predictor, data.store, data.val, card.label_values, len(card.classes))
        scores = score_classes(
            predictor, data.store, data.val, card.classes, card.multi_label, None
        )
        return selection_score(scores)

    def _save(self, network: Network, start: _Start) -> None:
        config, data = self.config, self.data
        card = data.card.model_copy(update={"network": network_of(network)})
        if card.label_values is None and len(data.val):
            network.to(choose_device(config.trainer.device))
            predictor = Predictor(network, start.preprocessing, config.data.batch_size)
            cases = score_classes(
                predictor, data.store, data.val, card.classes, card.multi_label, None
            )
            truth = cases.truth if card.multi_label else cases.truth.argmax(axis=1)
            thresholds = choose_thresholds(cases.probabilities, truth)
            card = card.model_copy(update={"thresholds": thresholds})
        _, modalities = with_units(start.preprocessing, data.training_index, "")
        licence, stages = config.licence, self._stages()
        if start.card is not None:
            licence = start.card.licence if licence == "not stated" else licence
            stages = add_stages(start.card.training, stages)
        save_model(
            network,
            ModelCard(
                kind="segmenter" if config.task.kind == "segment" else "classifier",
                architecture=architecture_of(network),
                preprocessing=start.preprocessing,
                task=card,
                modalities=modalities,
                licence=licence,
                training=stages,
                provenance={
                    **provenance("finetune"),
                    "settings": config.model_dump(
                        mode="json",
                        include={
                            "model",
                            "optimizer",
                            "augment",
                            "seed",
                            "label_fraction",
                            "task_pretrain_steps",
                        },
                    ),
                    "transfer": start.report.text() if start.report else "from scratch",
                    "steps": resume_step(self.folder),
                    "best_step": self.best.step,
                    "validation": {self.metric: self.best.value},
                },
            ),
            self.folder / MODEL,
        )

    def _stages(self) -> dict[str, FingerprintCard]:
        """Return what was learnt from, and which patients' labels were set aside."""
        data = self.data
        used = {"finetune": np.concatenate([data.train, data.val])}
        if len(data.withheld):
            used[WITHHELD] = data.withheld
        return {
            stage: fingerprint(data.store.columns(FINGERPRINT_COLUMNS, data.seen(rows)))
            for stage, rows in used.items()
        }

    def _result(self, steps: int, already_finished: bool = False) -> FinetuneResult:
        return FinetuneResult(
            self.folder / MODEL,
            steps,
            self.best.step,
            self.best.value,
            self.metric,
            already_finished,
        )
