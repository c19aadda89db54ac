"""Writing the published checkpoint layout from a model folder."""

from pathlib import Path

import pytest
import torch

from vismae.core.config_model import ExportConfig
from vismae.core.errors import ModelError, RunFolderError
from vismae.core.model_card import ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.models import SwinMAE, load_reference_checkpoint
from vismae.models.weights import architecture_of, save_model
from vismae.workflows.export import export


def save(model: SwinMAE, folder: Path) -> Path:
    card = ModelCard(kind="mae", architecture=architecture_of(model), preprocessing=Preprocessing())
    save_model(model, card, folder)
    return folder


def test_the_exported_checkpoint_gives_the_same_loss(tmp_path: Path) -> None:
    model = SwinMAE.from_size("nano", in_channels=3).eval()
    path = export(ExportConfig(model=save(model, tmp_path / "model"), out=tmp_path / "out"))

    copy = load_reference_checkpoint(path)
    images, keys = torch.randn(2, 3, 48, 32), torch.arange(2)
    with torch.inference_mode():
        assert torch.equal(copy(images, keys=keys).loss, model(images, keys=keys).loss)


def test_a_network_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    folder = save(SwinMAE.from_size("nano", norm_eps=1e-5), tmp_path / "model")
    with pytest.raises(ModelError, match="norm_eps"):
        export(ExportConfig(model=folder, out=tmp_path / "out"))


def test_a_full_output_folder_is_refused(tmp_path: Path) -> None:
    folder = save(SwinMAE.from_size("nano"), tmp_path / "model")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(RunFolderError, match="overwrite"):
        export(ExportConfig(model=folder, out=tmp_path / "out"))
