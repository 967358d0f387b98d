"""Measured tables that are not part of this repository."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def rubick_data() -> Path:
    """The tables of the Rubick artifact; skips where they are not at hand."""
    folder = os.environ.get("HEADRACE_DATA")
    if not folder:
        pytest.skip("HEADRACE_DATA names no folder with the artifact's tables (rubick/measured)")
    found = Path(folder) / "rubick"
    if not (found / "measured").is_dir():
        pytest.skip(f"HEADRACE_DATA has no {found / 'measured'}")
    return found
