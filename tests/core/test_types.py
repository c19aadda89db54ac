"""Words for modalities."""

import pytest

from vismae.core.types import Modality


@pytest.mark.parametrize(
    ("word", "modality"),
    [
        ("CT", Modality.CT),
        ("mr", Modality.MR),
        ("MRI", Modality.MR),
        ("PT", Modality.PET),
        ("pet", Modality.PET),
        ("CR", Modality.XR),
        ("DX", Modality.XR),
        ("mg", Modality.XR),
        (" Xr ", Modality.XR),
        ("US", Modality.US),
        ("other", Modality.OTHER),
        ("fundus photograph", Modality.OTHER),
        ("", Modality.OTHER),
        (None, Modality.OTHER),
    ],
)
def test_words_for_modalities_are_understood_in_any_case(
    word: str | None, modality: Modality
) -> None:
    assert Modality.parse(word) is modality


def test_every_modality_understands_its_own_word() -> None:
    assert [Modality.parse(str(modality)) for modality in Modality] == list(Modality)
