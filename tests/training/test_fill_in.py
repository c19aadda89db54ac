"""The fill-in sheet shows every example and hides the same patches each time."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vismae.core.preprocessing import Preprocessing
from vismae.core.types import Modality
from vismae.models import SwinMAE
from vismae.training.fill_in import draw_fill_in_sheet


def test_a_sheet_has_a_row_for_each_modality_and_leaves_the_model_in_training(tmp_path: Path):
    model = SwinMAE.from_size("nano", in_channels=1).train()
    examples = {
        Modality.CT: torch.randn(2, 1, 32, 48),
        Modality.US: torch.randn(2, 1, 32, 48),
    }
    paths = [tmp_path / name for name in ("one.png", "two.png", "ct.png")]
    for path in paths[:2]:
        draw_fill_in_sheet(path, model, examples, Preprocessing(in_channels=1))
    draw_fill_in_sheet(paths[2], model, {Modality.CT: examples[Modality.CT]}, Preprocessing())
    assert model.training
    one, two, ct = (np.asarray(Image.open(path)) for path in paths)
    assert np.array_equal(one, two)
    assert one.shape[0] > 1.8 * ct.shape[0] - 50
    assert one.shape[1] == ct.shape[1]
