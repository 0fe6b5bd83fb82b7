"""Every test of this folder ends without tasks left over, and shares nothing with what else runs on this machine."""

from pathlib import Path

import pytest

from .kit import PATIENCE, PATIENT_S


@pytest.fixture(autouse=True)
def _clean(clean: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("TOAPIS_SHARED", raising=False)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, a store that answers late is not lost."""
    for bound in PATIENCE:
        monkeypatch.setattr(bound, PATIENT_S)
