"""What all tests share: where the real data lies, and the skip when it is absent."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("DETECTOR_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real weights, images and annotations (see the README); the test is skipped without it."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data of $DETECTOR_SHARED, and {SHARED} does not exist")
    return SHARED
