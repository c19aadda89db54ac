"""Figures of an account: well-formed, one panel for each modality and scale, shares add up."""

from xml.etree import ElementTree

import numpy as np
import pytest

from vismae.core.counting import Histogram
from vismae.core.intake_account import (
    INTENSITY_BINS,
    SIDE_BINS_PX,
    SPACING_BINS_MM,
    IntensityScale,
    ModalityAccount,
)
from vismae.core.types import Modality
from vismae.evaluation.intake_figures import intensity_figure, sizes_figure, spacing_figure

SIDE = SIDE_BINS_PX.count + 2
LAST = SIDE - 1


def modality_account(**changes: object) -> ModalityAccount:
    facts: dict[str, object] = {
        "images": 3,
        "sides": Histogram({10 * SIDE + 11: 2, 0: 1, LAST * SIDE + LAST: 1}),
        "spacing_in_plane_mm": Histogram({0: 1, 12: 5, SPACING_BINS_MM.count + 1: 1}, unknown=2),
        "spacing_slices_mm": Histogram({30: 5}),
        "intensities": {
            scale.value: Histogram({0: 3, 5: 900, bins.count + 1: 2})
            for scale, bins in INTENSITY_BINS.items()
        },
    }
    return ModalityAccount(**{**facts, **changes})


MODALITIES = {
    Modality.CT: modality_account(),
    Modality.US: modality_account(spacing_slices_mm=Histogram({}, unknown=5)),
}
FIGURES = {"sizes": sizes_figure, "spacing": spacing_figure, "intensity": intensity_figure}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_one_well_formed_svg_in_the_pages_ink(name: str) -> None:
    svg = FIGURES[name](MODALITIES)
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "currentColor" in svg
    assert "#1b1c1e" not in svg


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("count", [1, 2, len(Modality)])
def test_a_panel_is_drawn_for_each_modality(name: str, count: int) -> None:
    few = FIGURES[name](dict.fromkeys(list(Modality)[:1], modality_account()))
    many = FIGURES[name](dict.fromkeys(list(Modality)[:count], modality_account()))
    # Every panel brings its own axes, of which matplotlib draws the lower one once.
    assert many.count("clip-path=") == count * few.count("clip-path=")


def test_values_beyond_the_axis_are_drawn_in_its_last_bins() -> None:
    bins = INTENSITY_BINS[IntensityScale.SUV]
    outside = modality_account(intensities={"suv": Histogram({0: 1, bins.count + 1: 3})})
    inside = modality_account(intensities={"suv": Histogram({1: 1, bins.count: 3})})
    assert intensity_figure({Modality.PET: outside}) == intensity_figure({Modality.PET: inside})


def test_the_figure_depends_on_shares_and_not_on_how_many_were_counted() -> None:
    few = modality_account(intensities={"hu": Histogram({4: 1, 9: 3})})
    many = modality_account(intensities={"hu": Histogram({4: 10**9, 9: 3 * 10**9})})
    assert intensity_figure({Modality.CT: few}) == intensity_figure({Modality.CT: many})
    other = modality_account(intensities={"hu": Histogram({4: 3, 9: 1})})
    assert intensity_figure({Modality.CT: few}) != intensity_figure({Modality.CT: other})


def test_the_axes_of_sizes_reach_over_all_images() -> None:
    small = modality_account(sides=Histogram({5 * SIDE + 5: 1}))
    large = modality_account(sides=Histogram({15 * SIDE + 15: 1}))
    one = sizes_figure({Modality.CT: small})
    assert one.count("<use") < sizes_figure({Modality.CT: small + large}).count("<use")
    assert np.isfinite(SIDE_BINS_PX.edges).all()
