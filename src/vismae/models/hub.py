"""A model folder that ``from_pretrained`` reads: Hugging Face's mixin round any of our networks.

Needs ``huggingface_hub`` (extra ``hub``). The folder is a model folder of this package too, and
safetensors and JSON alone; no pickle is read from a hub.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from torch import Tensor, nn

from vismae.core.errors import ModelError
from vismae.core.model_card import ModelCard
from vismae.models.weights import CARD_FILE, WEIGHTS_FILE, Model, load_model, save_model


class HubModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="vismae",
    tags=["medical-imaging", "swin-transformer", "self-supervised-learning"],
):
    """A network from a model folder, with the hub's ``from_pretrained`` and ``save_pretrained``.

    Args:
        network: From ``load_model``, so that it has its card.

    Raises:
        ModelError: The network has no card.
    """

    def __init__(self, network: Model) -> None:
        super().__init__()
        if network.card is None:
            raise ModelError("A network without a model card cannot be shared; use load_model.")
        self.network = network

    @property
    def card(self) -> ModelCard:
        """What the model folder says of it."""
        card = self.network.card
        if card is None:
            raise ModelError("The network has lost its model card; load it again.")
        return card

    def forward(self, images: Tensor) -> Any:
        """Return what the network gives for normalised images, (B, C, H, W)."""
        return self.network(images)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(self.network, self.card, save_directory)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **_: Any,
    ) -> "HubModel":
        folder = Path(model_id)
        if not folder.is_dir():
            found = [
                hf_hub_download(
                    repo_id=model_id,
                    filename=name,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
                for name in (CARD_FILE, WEIGHTS_FILE)
            ]
            folder = Path(found[0]).parent
        return cls(load_model(folder))
