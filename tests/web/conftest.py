"""A server with three small models, and one file of each kind to send to it."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from factories import write_dicom_series, write_nifti, write_png, write_zip
from models_on_disk import write_classifier, write_mae, write_segmenter
from web_server import (
    PATIENT,
    UPLOAD_MIB,
    RunningServer,
    marked_picture,
    marked_volume,
    start_server,
    stop_server,
)

FRAME = {"FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.1"}


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A segmenter, a classifier and a masked autoencoder of the smallest size."""
    home = tmp_path_factory.mktemp("models")
    return {
        "organs": write_segmenter(home / "organs" / "model"),
        "finding": write_classifier(home / "finding" / "model"),
        "mae": write_mae(home / "mae" / "model"),
    }


@pytest.fixture(scope="session")
def server(
    model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """The server that most tests share."""
    options = [f"--model={folder}" for folder in model_folders.values()]
    limits = [f"--set=max_upload_mib={UPLOAD_MIB}", "--set=max_expanded_mib=8"]
    home = tmp_path_factory.mktemp("server")
    started = start_server(home, *options, *limits, "--stop-after=120")
    yield started
    assert stop_server(started) == 0, "".join(started.lines)
    assert list(home.glob("vismae-*")) == []


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each kind that people drop; every volume holds ``marked_volume``."""
    folder = tmp_path_factory.mktemp("files")
    volume = marked_volume()
    # In NIfTI's own directions: the first axis to the right, the second to the front.
    ras = np.ascontiguousarray(volume.transpose(2, 1, 0)[::-1, ::-1])
    series = write_dicom_series(
        folder / "series", (volume + 1024).astype(np.uint16), (4.0, 1.0, 1.0), PatientID=PATIENT,
        PatientName=PATIENT, **FRAME,
    )  # fmt: skip
    return {
        "nifti": write_nifti(folder / "head_ct.nii.gz", ras, np.diag([1.0, 1.0, 4.0, 1.0])),
        "zip": write_zip(folder / "series.zip", {f"ct/{path.name}": path for path in series}),
        "dicom": series[2],
        "png": write_png(folder / "film.png", marked_picture()),
        "text": _text(folder / "letter.txt"),
    }


def _text(path: Path) -> Path:
    path.write_text("No image.")
    return path


@pytest.fixture
def finish(server: RunningServer) -> Callable[[httpx.Client, str], dict[str, Any]]:
    """Wait until an upload of the page is done, and return what is known of it."""

    def wait(client: httpx.Client, key: str) -> dict[str, Any]:
        for _ in range(600):
            found = json.loads(client.get(f"/page/studies/{key}").text)
            if found["state"] in ("done", "failed"):
                return found
            threading.Event().wait(0.1)
        raise AssertionError("the upload was not worked on in a minute")

    return wait
