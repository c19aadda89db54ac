"""Fixtures every test may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder with parity fixtures and real images; tests that need it skip without it."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("VISMAE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"needs the test data folder, not found at {folder} (set VISMAE_TEST_DATA)")
    return folder
