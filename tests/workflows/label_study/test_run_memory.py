"""A process that does one run of a study after another keeps no network of the ones before."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vismae.core.config import FinetuneConfig
from vismae.models.classifier import SwinClassifier
from vismae.workflows.label_study.plan import Budget, Cell
from vismae.workflows.label_study.run import Job, run_cell


@pytest.fixture
def without_collection() -> Iterator[None]:
    """As long as it takes, Python looks for no circles of references by itself."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("fails", [False, True])
def test_no_network_is_left_in_memory(
    fails: bool,
    finetune_config: Callable[..., FinetuneConfig],
    shades: Path,
    tmp_path: Path,
    without_collection: None,
) -> None:
    cell = Cell("shades", "from scratch", Budget(fraction=1.0), None, 0)
    config = finetune_config("classify", cell.folder(tmp_path), shades)
    before = networks()
    # Scoring fails: there is no table of patients to leave out.
    leave_out = tmp_path / "gone.csv" if fails else None
    outcome = run_cell(Job(cell, config, (), False, None, leave_out), lambda _: None)
    assert (outcome.failure is not None) == fails
    assert networks() == before


def networks() -> int:
    return sum(type(one) is SwinClassifier for one in gc.get_objects())
