"""Cases that cannot be used, and what a user is told of them."""

import logging
from pathlib import Path

import numpy as np
import pytest

from cases_on_disk import SEQUENCES, VOXELS, case_volumes, write_cases
from factories import write_nifti
from vismae.core.config import IngestConfig
from vismae.core.errors import DataError
from vismae.workflows.case_selection import fitting_rows
from vismae.workflows.ingest import ingest


@pytest.mark.parametrize("one_fits", [True, False])
def test_what_ingest_left_out_is_told_where_a_sequence_is_lacking(
    tmp_path: Path, one_fits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    table = write_cases(tmp_path, ["train"] * 2, label_on=(0,))
    elsewhere = VOXELS + np.array([[0, 0, 0, 500.0], *[[0, 0, 0, 0]] * 3])
    write_nifti(tmp_path / "L0.nii.gz", case_volumes(0)[-1], elsewhere)
    (tmp_path / "P0_0000.nii.gz").write_bytes(b"")
    if not one_fits:
        (tmp_path / "P1_0001.nii.gz").unlink()
    store = ingest(
        IngestConfig(
            sources=(table,), store=tmp_path / "s", keep_column=("sequence",), executor="here"
        )
    ).store

    if one_fits:
        with caplog.at_level(logging.WARNING):
            assert fitting_rows(store, SEQUENCES, tmp_path).sum() == 6
        assert "ingest left out empty 1 " in caplog.text
    else:
        with pytest.raises(DataError, match=r"lacks T1.*empty 1, not-found 1"):
            fitting_rows(store, SEQUENCES, tmp_path)
