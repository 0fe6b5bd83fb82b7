"""Every test of this folder ends without tasks left over, and shares nothing with what else runs on this machine."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _clean(clean: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("TOAPIS_SHARED", raising=False)
