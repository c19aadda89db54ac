"""What the web page is told of an upload: every image has its answer, or a note says why not."""

from pathlib import Path

import numpy as np
import torch

from factories import ultrasound_region, write_dicom_slice, write_zip
from models_on_disk import write_classifier
from vismae.inference.ensemble import load_ensemble
from vismae.workflows.viewing.answers import ModelRun, ask
from vismae.workflows.viewing.upload import read_upload


def test_a_map_that_cannot_be_written_takes_no_probabilities_away(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # A stack of two pictures cut out at different places, and a picture of another size.
    for number, rows in enumerate(((5, 40), (6, 41), (5, 30))):
        write_dicom_slice(
            tmp_path / "us" / f"{number}.dcm",
            rng.integers(1, 255, (48, 38)).astype(np.uint8),
            Modality="US",
            SeriesInstanceUID="1.2.3",
            InstanceNumber=number,
            ImagePositionPatient=[0.0, 0.0, float(number)],
            ImageOrientationPatient=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            PixelSpacing=[1.0, 1.0],
            SequenceOfUltrasoundRegions=[ultrasound_region((*rows, 8, 34))],
        )
    file = write_zip(
        tmp_path / "us.zip", {path.name: path.read_bytes() for path in (tmp_path / "us").iterdir()}
    )
    (tmp_path / "work").mkdir()
    upload = read_upload(file, tmp_path / "work", None, 10**8)
    [item] = upload.inputs
    assert len(item.shown) == 2
    model = write_classifier(tmp_path / "model")
    run = ModelRun("model", 0, model, load_ensemble([model], torch.device("cpu")), 4)
    answer = ask(upload, run, lambda: None)
    assert "different regions" in answer.notes[0]
    assert [len(image["classes"]) for image in answer.images] == [2, 2]
