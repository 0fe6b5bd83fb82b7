"""Every test of this folder ends without tasks left over, and may use virtual time."""

import pytest


@pytest.fixture(autouse=True)
def _clean(clean: None) -> None: ...
