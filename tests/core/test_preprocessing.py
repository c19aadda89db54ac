"""The preprocessing contract: what may differ, and how a difference is named."""

import pytest

from vismae.core.errors import PreprocessingError
from vismae.core.preprocessing import Preprocessing
from vismae.core.types import Modality, PixelUnit

CHANGED: dict[str, object] = {
    "in_channels": 1,
    "fit": "stretch",
    "ct_window_hu": (-160.0, 240.0),
    "pet_range_suv": (0.0, 5.0),
    "percentiles": (1.0, 99.0),
    "mean": 0.5,
    "std": 0.25,
    "neighbours": 1,
    "sequences": ("T1", "T2"),
}


@pytest.mark.parametrize("field", CHANGED)
def test_a_difference_names_the_field_and_both_values(field: str) -> None:
    model = Preprocessing()
    other = model.model_copy(update={field: CHANGED[field]})
    with pytest.raises(PreprocessingError) as caught:
        model.require_same(other, "task/")
    message = str(caught.value)
    assert f"preprocessing.{field}: the model has {getattr(model, field)}" in message
    assert f"task/ has {CHANGED[field]}" in message


def test_every_difference_is_named_at_once() -> None:
    model = Preprocessing()
    with pytest.raises(PreprocessingError) as caught:
        model.require_same(model.model_copy(update=CHANGED), "task/")
    assert all(f"preprocessing.{field}:" in str(caught.value) for field in CHANGED)


def test_every_field_is_compared_except_size_and_units() -> None:
    assert set(Preprocessing.model_fields) == {*CHANGED, "image_size", "pixel_units"}


def test_another_image_size_is_no_difference() -> None:
    model = Preprocessing()
    model.require_same(
        model.model_copy(
            update={"image_size": (96, 64), "pixel_units": {Modality.CT: (PixelUnit.HU,)}}
        ),
        "task/",
    )


@pytest.mark.parametrize(
    ("known", "found"),
    [
        (PixelUnit.HU, PixelUnit.DISPLAY),
        (PixelUnit.HU, PixelUnit.ARBITRARY),
        (PixelUnit.DISPLAY, PixelUnit.HU),
        (PixelUnit.SUV, PixelUnit.ARBITRARY),
        (PixelUnit.ARBITRARY, PixelUnit.SUV),
    ],
)
def test_physical_units_do_not_stand_for_grey_levels(known: PixelUnit, found: PixelUnit) -> None:
    model = Preprocessing(pixel_units={Modality.CT: (known,)})
    with pytest.raises(PreprocessingError, match=f"pixel_units.ct: .*{known}.*'{found}'"):
        model.require_units([(Modality.CT, found)], "task/")


@pytest.mark.parametrize(
    ("modality", "unit"),
    [
        (Modality.CT, PixelUnit.HU),
        (Modality.MR, PixelUnit.DISPLAY),
        (Modality.MR, PixelUnit.ARBITRARY),
        (Modality.US, PixelUnit.DISPLAY),
    ],
)
def test_known_and_exchangeable_units_and_new_modalities_pass(
    modality: Modality, unit: PixelUnit
) -> None:
    model = Preprocessing(
        pixel_units={Modality.CT: (PixelUnit.HU,), Modality.MR: (PixelUnit.ARBITRARY,)}
    )
    model.require_units([(modality, unit)], "task/")


def test_a_model_that_saw_both_takes_both() -> None:
    model = Preprocessing(pixel_units={Modality.CT: (PixelUnit.HU, PixelUnit.DISPLAY)})
    model.require_units([(Modality.CT, unit) for unit in (PixelUnit.HU, PixelUnit.DISPLAY)], "x")


def test_the_contract_survives_json() -> None:
    model = Preprocessing(image_size=(96, 64), pixel_units={Modality.PET: (PixelUnit.SUV,)})
    assert Preprocessing.model_validate_json(model.model_dump_json()) == model
