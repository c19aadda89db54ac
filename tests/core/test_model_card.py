"""``model.json`` reads back, and refuses fields it does not know."""

import pytest
from pydantic import ValidationError

from vismae.core.model_card import FingerprintCard, ModelCard, TaskCard
from vismae.core.preprocessing import Preprocessing
from vismae.core.types import Modality

CARD = ModelCard(
    kind="segmenter",
    architecture={"size": "nano", "in_channels": 1},
    preprocessing=Preprocessing(image_size=(96, 64), in_channels=1),
    task=TaskCard(classes=("background", "lung"), label_values={0: 0, 255: 1}),
    modalities=(Modality.CT,),
    training={"pretrain": FingerprintCard(images=3, by_modality={"ct": 3})},
)


def test_a_card_survives_json() -> None:
    assert ModelCard.model_validate_json(CARD.model_dump_json()) == CARD


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="surprise"):
        ModelCard.model_validate({**CARD.model_dump(), "surprise": 1})
