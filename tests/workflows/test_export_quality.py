"""What an export loses is measured by the same rules as an evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vismae
from factories import write_nifti
from models_on_disk import SMALL_CONTRACT, write_classifier, write_segmenter
from stores import disc, record, segmentation_store
from vismae.core.errors import DataError, PreprocessingError
from vismae.core.types import Modality, PixelUnit
from vismae.data.store import StoreWriter
from vismae.inference.deployed import deployed
from vismae.models.weights import load_model
from vismae.workflows.exporting.quality import Quality, quality_on


class Thresholded:
    """Stands for an onnxruntime session of two outputs: bright pixels, or images, are the second.

    Args:
        segments: Answers are logits and no probabilities.
    """

    def __init__(self, segments: bool) -> None:
        self.segments = segments

    def run(self, _: object, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        pixels = given["pixels"]
        if self.segments:
            return [np.concatenate([np.full_like(pixels, 120.0), pixels], axis=1)]
        bright = pixels.mean(axis=(1, 2, 3)) / 255.0
        return [np.stack([1.0 - bright, bright], axis=1)]


def measured(model: Path, store: Path) -> Quality:
    body = deployed(load_model(model))
    session = Thresholded(body.kind == "segmenter")
    return quality_on((store,), body, {"float32": session, "int8": session})


def test_one_class_is_the_same_under_any_value(tmp_path: Path) -> None:
    model = write_segmenter(tmp_path / "model", ("background", "disc"))
    segmentation_store(tmp_path / "store", patients=2, value=255)
    found = measured(model, tmp_path / "store")
    assert found.scores["float32"] == 1.0
    assert (found.loss, found.images, found.patients) == (0.0, 4, 2)


def test_a_slice_is_scored_by_its_own_answer_among_its_neighbours(tmp_path: Path) -> None:
    contract = SMALL_CONTRACT.model_copy(update={"neighbours": 2})
    model = write_segmenter(tmp_path / "model", ("background", "disc"), preprocessing=contract)
    store = segmentation_store(tmp_path / "store", patients=2, slices=4)
    body = deployed(load_model(model))
    seen: list[np.ndarray] = []

    class Watched(Thresholded):
        def run(self, _: object, given: dict[str, np.ndarray]) -> list[np.ndarray]:
            seen.append(given["pixels"][:, 0])
            return super().run(_, given)

    session = Watched(segments=True)
    found = quality_on((tmp_path / "store",), body, {"float32": session, "int8": session})
    # Discs of other slices lie elsewhere: the answer to one of them would miss.
    assert found.scores["float32"] == 1.0
    slices = [store.read(row).pixels for row in range(4)]
    for row, places in enumerate(([0, 0, 0, 1, 2], [0, 0, 1, 2, 3], [0, 1, 2, 3, 3])):
        assert np.array_equal(seen[row], np.stack([slices[place] for place in places]))


def test_pixels_that_nobody_annotated_are_refused(tmp_path: Path) -> None:
    label_map = (disc((32, 32), (10, 10), 4) + 2 * disc((32, 32), (24, 24), 4))[..., None]
    write_nifti(tmp_path / "d/imagesTs/c_0000.nii.gz", label_map.astype(np.int16))
    write_nifti(tmp_path / "d/labelsTs/c.nii.gz", label_map)
    (tmp_path / "d/dataset.json").write_text('{"labels": {"x": 1, "ignore": 2}}')
    vismae.ingest(tmp_path / "d", store=tmp_path / "store", executor="here")
    model = write_segmenter(tmp_path / "model", ("background", "x", "y"))
    with pytest.raises(DataError, match="the value 2 of the label maps is called 'ignore'"):
        measured(model, tmp_path / "store")


def labelled_store(folder: Path, labels: tuple[str | None, ...], **facts: Any) -> Path:
    """Images of one grey level each, the brighter the later, with these labels."""
    with StoreWriter(folder) as writer:
        for number, label in enumerate(labels):
            pixels = np.full((20, 20), 30 + 20 * number, np.uint8)
            pixels[0, 0] = 0
            writer.add(record(f"image{number}", pixels, label=label, **facts), pixels)
    return folder


def test_images_of_which_no_class_is_true_count(tmp_path: Path) -> None:
    model = write_classifier(tmp_path / "model", ("pale", "bright"), multi_label=True)
    store = labelled_store(tmp_path / "store", (None, "pale", None, "bright", "pale|bright"))
    found = measured(model, store)
    assert found.images == 5
    # The bright ones are the brightest two; the first pale one is darker than two of the others.
    assert found.scores["float32"] == pytest.approx((1.0 + 2 / 6) / 2)


def test_images_in_another_unit_are_refused(tmp_path: Path) -> None:
    contract = SMALL_CONTRACT.model_copy(update={"pixel_units": {Modality.XR: (PixelUnit.HU,)}})
    model = write_classifier(tmp_path / "model", ("pale", "bright"), preprocessing=contract)
    store = labelled_store(tmp_path / "store", ("pale", "bright"))
    with pytest.raises(PreprocessingError, match=r"preprocessing\.pixel_units\.xr"):
        measured(model, store)
