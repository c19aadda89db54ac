"""The contract of a run: the start model's, the user's wishes, and the data's units."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vismae.core.errors import DataError, PreprocessingError, SettingError
from vismae.core.preprocessing import Preprocessing
from vismae.core.sections import PreprocessingSettings
from vismae.core.types import Modality, PixelUnit
from vismae.data.intensity import normalise
from vismae.data.store import Store
from vismae.models import SwinClassifier
from vismae.models.foreign import ForeignAccount
from vismae.workflows.preparation import (
    load_start,
    network_config,
    of_modality,
    resolve_preprocessing,
    with_units,
)

START = Preprocessing(image_size=(96, 64), in_channels=3, fit="stretch", mean=0.0, std=1.0)


def test_without_a_start_model_wishes_fill_the_defaults():
    wishes = PreprocessingSettings(fit="stretch", ct_window_hu=(-160, 240))
    found = resolve_preprocessing(wishes, (64, 48), 3, None)
    assert found == Preprocessing(
        image_size=(64, 48), in_channels=3, fit="stretch", ct_window_hu=(-160, 240)
    )
    assert resolve_preprocessing(PreprocessingSettings(), None, None, None) == Preprocessing(
        image_size=(224, 224), in_channels=1
    )


def test_what_is_not_wished_follows_the_start_model():
    assert resolve_preprocessing(PreprocessingSettings(), None, None, START) == START
    same = resolve_preprocessing(PreprocessingSettings(mean=0.0), (32, 32), 1, START)
    assert same == START.model_copy(update={"image_size": (32, 32), "in_channels": 1})


def test_weights_of_another_project_are_given_images_as_in_their_training():
    source = SwinClassifier.from_size("nano", 3, num_classes=2)
    ours = resolve_preprocessing(PreprocessingSettings(), None, None, None, source=source)
    assert (ours.mean, ours.std) == (0.223, 0.202)
    source.origin = ForeignAccount("timm", 3)
    theirs = resolve_preprocessing(PreprocessingSettings(), None, 3, None, source=source)
    assert theirs == ours.model_copy(update={"mean": 0.449, "std": 0.226, "in_channels": 3})
    pixels = np.linspace(0, 1, 5, dtype=np.float32)
    each = [(pixels - m) / s for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    assert max(np.abs(normalise(pixels, theirs) - one).max() for one in each) < 0.25
    wished = PreprocessingSettings(mean=0.5)
    found = resolve_preprocessing(wished, None, None, None, source=source)
    assert (found.mean, found.std) == (0.5, 0.226)
    assert resolve_preprocessing(PreprocessingSettings(), None, None, START, source=source) == START


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        (PreprocessingSettings(fit="pad"), "fit"),
        (PreprocessingSettings(ct_window_hu=(-200, 300)), "ct_window_hu"),
        (PreprocessingSettings(std=0.5), "std"),
    ],
)
def test_a_wish_against_the_start_model_is_refused_by_field(
    wishes: PreprocessingSettings, field: str
):
    with pytest.raises(PreprocessingError, match=rf"preprocessing\.{field}"):
        resolve_preprocessing(wishes, None, None, START)


def index(*pairs: tuple[Modality, PixelUnit]) -> pd.DataFrame:
    return pd.DataFrame([(str(m), str(u)) for m, u in pairs], columns=["modality", "unit"])


def test_units_of_the_data_are_added_to_the_contract():
    known = Preprocessing(pixel_units={Modality.CT: (PixelUnit.HU,)})
    data = index(
        (Modality.MR, PixelUnit.ARBITRARY),
        (Modality.CT, PixelUnit.HU),
        (Modality.MR, PixelUnit.DISPLAY),
    )
    found, modalities = with_units(known, data, "the store")
    assert found.pixel_units == {
        Modality.CT: (PixelUnit.HU,),
        Modality.MR: (PixelUnit.ARBITRARY, PixelUnit.DISPLAY),
    }
    assert modalities == (Modality.CT, Modality.MR)
    lost = index((Modality.CT, PixelUnit.DISPLAY))
    with pytest.raises(PreprocessingError, match=r"pixel_units\.ct.*the store"):
        with_units(known, lost, "the store")


def test_a_modality_that_is_not_there_is_refused_with_what_is(unlabelled: Path):
    rows = Store(unlabelled).index
    assert len(of_modality(rows, (Modality.CT, Modality.US), "s")) == 8
    assert len(of_modality(rows, (), "s")) == 12
    with pytest.raises(DataError, match=r"no image of modality pet.*4 ct, 4 mr, 4 us"):
        of_modality(rows, (Modality.PET,), "s")


def test_the_network_is_the_start_models_or_a_named_one(pretrained: Path):
    start, contract = load_start(pretrained)
    assert start is not None
    assert contract is not None
    assert contract.image_size == (32, 32)
    found = network_config(start, "vismae", drop_path=0.5)
    assert (found.embed_dim, found.depths, found.drop_path) == (32, (1, 1, 2), 0.5)
    assert network_config(None, "vismae").embed_dim == 96
    assert load_start(None) == (None, None)
    with pytest.raises(SettingError, match="vismae"):
        network_config(None, "vismea")
