"""``vismae demo``: the whole road on phantoms, through the same functions as the commands."""

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from vismae.core.config import (
    DemoConfig,
    EvaluateConfig,
    FinetuneConfig,
    IngestConfig,
    InspectConfig,
    PretrainConfig,
    StudyConfig,
)
from vismae.core.rundir import open_run
from vismae.core.settings import build_config, to_yaml
from vismae.evaluation.overlay import save_png
from vismae.evaluation.report import Report
from vismae.files.phantom_archive import PhantomArchive, write_phantom_archive
from vismae.workflows.evaluate import EvaluateResult, evaluate
from vismae.workflows.evaluation_report import CASES_PICTURE
from vismae.workflows.finetune import finetune
from vismae.workflows.ingest import IngestResult, ingest
from vismae.workflows.inspect import inspect
from vismae.workflows.pretrain import PretrainResult, pretrain
from vismae.workflows.study import StudyResult, study
from vismae.workflows.study_report import add_study

logger = logging.getLogger(__name__)

_IMAGE_SIZE = 64
_PRETRAIN_STEPS = 1000
_SEEDS = 3
_FRACTIONS = (0.125, 0.5)
_WORKERS = 2
_FINETUNE = {
    "model.size": "nano",
    "model.in_channels": 1,
    "data.image_size": _IMAGE_SIZE,
    "data.batch_size": 8,
    "data.workers": 0,
    "optimizer.lr": 2e-3,
    "trainer.max_steps": 150,
    "trainer.validate_every": 50,
}


@dataclass(frozen=True)
class DemoResult:
    """Where a demo ended.

    Attributes:
        report: One HTML file.
        comparison: Pre-trained against from scratch, as from ``vismae study``.
        seconds: Time it took.
    """

    report: Path
    comparison: pd.DataFrame
    seconds: float

    def summary(self) -> str:
        """Say the comparison in a few lines, and where the report lies."""
        lines: list[str] = []
        for row in self.comparison.to_dict("records"):
            line = (
                f"{row['task']}, {row['labelled_patients']} labelled patients, {row['start']}: "
                f"{row['metric']} {row['score'].text()}"
            )
            if row["difference"].n:
                line += f", difference {row['difference'].text()}"
            lines.append(line)
        return "\n".join([*lines, f"{self.seconds:.0f} s. Report: {self.report}"])


def demo(config: DemoConfig) -> DemoResult:
    """Make a phantom archive of five modalities and walk the whole road on it.

    Ingest, pre-train, compare pre-trained with random starts at two label fractions and several
    seeds on a segmentation and a classification task, evaluate one model of each, report.
    """
    started = time.perf_counter()
    with open_run(config.out, "demo", config, overwrite=config.overwrite) as folder:
        logger.info("making the phantom archive")
        archive = write_phantom_archive(folder / "archive", seed=config.seed)
        ingested = ingest(IngestConfig(sources=(archive.unlabelled,), store=folder / "store"))
        sheet = inspect(InspectConfig(store=folder / "store", images=20)).contact_sheet
        pretrained = pretrain(_pretrain_config(config, folder))
        studied_config = _study_config(config, folder, archive, pretrained)
        studied = study(studied_config)
        evaluations = {
            name: _evaluate_one(studied_config, folder, name) for name in studied_config.tasks
        }
        _draw_overview(folder, pretrained, evaluations)
        report = folder / "report" / "index.html"
        seconds = time.perf_counter() - started
        _write_report(
            report, ingested, sheet, pretrained, studied_config, studied, evaluations, seconds
        )
        shutil.rmtree(folder / "study" / "runs", ignore_errors=True)
    return DemoResult(report, studied.comparison, seconds)


def _pretrain_config(config: DemoConfig, folder: Path) -> PretrainConfig:
    options: dict[str, Any] = {
        "out": folder / "pretrain",
        "store": folder / "store",
        "seed": config.seed,
        "licence": "CC0-1.0",
        "model.size": "nano",
        "model.drop_path": 0.0,
        # Small images and few views: smaller units, fewer of them hidden, and plain pixels, which
        # carry the shapes that a short run can learn.
        "model.mask_ratio": 0.6,
        "model.mask_unit_px": 8,
        "model.normalise_patches": False,
        "data.image_size": _IMAGE_SIZE,
        "data.batch_size": 32,
        "data.workers": 0,
        "data.rotate": 0.0,
        "optimizer.lr": 3e-3,
        "optimizer.lr_scaling": "none",
        "trainer.max_steps": _PRETRAIN_STEPS,
        "trainer.device": config.device,
        "trainer.checkpoint_every": 200,
        "trainer.picture_every": 0,
    }
    return build_config(PretrainConfig, "pretrain", options=options)


def _study_config(
    config: DemoConfig, folder: Path, archive: PhantomArchive, pretrained: PretrainResult
) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "out": folder / "study",
            "tasks": {
                "organs in MR": {"kind": "segment", "sources": [archive.segmentation_manifest]},
                "lesion in CT": {"kind": "classify", "sources": [archive.classification_manifest]},
            },
            "starts": {
                "pre-trained": {"init": pretrained.model},
                "from scratch": {"init": "none"},
            },
            "baseline": "from scratch",
            "label_fractions": _FRACTIONS,
            "seeds": list(range(config.seed, config.seed + _SEEDS)),
            "workers": _WORKERS,
            "settings": {**_FINETUNE, "trainer.device": config.device},
        }
    )


def _evaluate_one(config: StudyConfig, folder: Path, task: str) -> EvaluateResult:
    """Fine-tune the pre-trained start once more at the larger fraction and evaluate in full."""
    chosen = config.tasks[task]
    options = {
        **config.settings,
        "task.kind": chosen.kind,
        "data.sources": [config.out / "stores" / task],
        "out": folder / "models" / task.replace(" ", "_"),
        "init": config.starts["pre-trained"].init,
        "label_fraction": max(config.label_fractions),
    }
    run = build_config(FinetuneConfig, "finetune", options=options)
    return evaluate(
        EvaluateConfig(
            model=finetune(run).model,
            out=folder / "evaluations" / task.replace(" ", "_"),
            data=run.data,
            device=run.trainer.device,
        )
    )


def _draw_overview(
    folder: Path, pretrained: PretrainResult, evaluations: dict[str, EvaluateResult]
) -> None:
    """Put fill-ins beside segmented cases in one picture, ``figures/overview.png``."""
    paths = [pretrained.model.parent / "figures" / "fill_in.png"]
    paths += [result.folder / CASES_PICTURE for result in evaluations.values()]
    # The left half of each sheet: one example of every modality, and one of each kind of case.
    sheets = [np.asarray(Image.open(path).convert("RGB")) for path in paths if path.is_file()]
    halves = [sheet[:, : sheet.shape[1] // 2] for sheet in sheets]
    height = max(half.shape[0] for half in halves)
    columns = [
        np.pad(half, ((0, height - half.shape[0]), (0, 0), (0, 0)), constant_values=24)
        for half in halves
    ]
    save_png(folder / "figures" / "overview.png", np.concatenate(columns, axis=1))


def _write_report(
    path: Path,
    ingested: IngestResult,
    contact_sheet: Path,
    pretrained: PretrainResult,
    config: StudyConfig,
    studied: StudyResult,
    evaluations: dict[str, EvaluateResult],
    seconds: float,
) -> None:
    report = Report(
        "vismae demo", "masked pre-training on phantoms of five modalities, adapted and compared"
    )
    report.section("What was done")
    report.text(
        f"{ingested.stored} images were taken in from {ingested.files} DICOM, NIfTI and PNG files "
        "made on the spot; none shows a real person. A small Swin masked autoencoder was "
        f"pre-trained on them for {pretrained.steps} steps without labels, then fine-tuned, and "
        "compared with the same network from random weights: same labelled patients, same steps, "
        f"same order. All of it took {seconds:.0f} seconds."
    )
    report.figure(contact_sheet.read_bytes(), "Images from the phantom archive.")
    fill_in = pretrained.model.parent / "figures" / "fill_in.png"
    report.figure(
        fill_in.read_bytes(),
        "Fill-in: image, hidden patches in grey, what the network draws in their place.",
    )
    scores = pd.read_parquet(studied.folder / "scores.parquet")
    add_study(report, config, scores, studied.comparison)
    report.section("One model in full")
    for task, result in evaluations.items():
        report.table(
            result.summary_table[["class_name", "metric", "interval"]],
            f"{task}: the pre-trained start at the larger fraction, per {result.unit}. Pictures "
            f"and curves are in {result.folder.name}/report/index.html.",
        )
    report.section("Settings")
    report.code(to_yaml(config), "Settings of the comparison")
    report.write(path)
