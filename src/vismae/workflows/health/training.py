"""A real training of three steps, on phantoms, through the whole road from files to a model."""

import logging
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from vismae.core.config import PretrainConfig
from vismae.core.errors import VismaeError
from vismae.core.settings import build_config
from vismae.files.phantom_archive import write_phantom_archive
from vismae.models.weights import load_model
from vismae.workflows.health.check import Check
from vismae.workflows.pretrain import pretrain

STEPS = 3


def training_check(device: str) -> Check:
    """Make phantoms, ingest them, pre-train the smallest network, and read the model back.

    Args:
        device: As for ``trainer.device``.
    """
    name = f"{STEPS} steps of pre-training"
    start = time.perf_counter()
    try:
        with _untold(), tempfile.TemporaryDirectory(prefix="vismae-doctor-") as temporary:
            _train(Path(temporary), device)
    except VismaeError as error:
        return Check(name, "failed", str(error), "The sentence says what to do.")
    # Whatever breaks here is what the user wants to know; a doctor must not fall over it.
    except Exception as error:
        cure = "Run vismae demo --verbose for the whole traceback, and report it."
        return Check(name, "failed", f"{type(error).__name__}: {error}", cure)
    seconds = time.perf_counter() - start
    return Check(name, "ok", f"phantoms, store, training on {device}, {seconds:.0f} s")


@contextmanager
def _untold() -> Generator[None]:
    """Keep vismae's news inside the runs' own logs."""
    logger, nowhere = logging.getLogger("vismae"), logging.NullHandler()
    logger.addHandler(nowhere)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(nowhere)


def _train(folder: Path, device: str) -> None:
    archive = write_phantom_archive(
        folder / "archive",
        patients=2,
        size=40,
        slices_per_volume=3,
        ultrasound_frames=2,
        segmentation_patients=(1, 1, 1),
        segmentation_slices=1,
        classification_patients=(2, 2, 2),
        classification_slices=1,
    )
    options = {
        "out": folder / "run",
        "data.sources": [archive.unlabelled / "manifest.csv"],
        "data.image_size": 32,
        "data.batch_size": 4,
        "data.workers": 0,
        "model.size": "nano",
        "trainer.max_steps": STEPS,
        "trainer.device": device,
        "trainer.picture_every": 0,
        "monitor.every": 0,
        "monitor.mlflow": "off",
    }
    pretrain(build_config(PretrainConfig, "pretrain", options=options))
    load_model(folder / "run" / "model")
