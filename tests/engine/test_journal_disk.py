"""A journal on a network disk is refused where locks must hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from toapis_async import JournalError
from toapis_async.engine.journal.disk import refuse_network_disk

if TYPE_CHECKING:
    from pathlib import Path


def mounts(folder: Path, *lines: str) -> Path:
    path = folder / "mountinfo"
    path.write_text("".join(f"{line}\n" for line in ("22 1 254:0 / / rw,relatime - ext4 /dev/vda rw", *lines)))
    return path


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "lustre"])
def test_a_network_disk_is_refused_by_its_kind(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "on the net"
    escaped = str(place).replace(" ", "\\040")
    listed = mounts(tmp_path, f"30 22 0:45 / {escaped} rw shared:1 - {kind} server:/a rw")
    with pytest.raises(JournalError, match=rf"network disk \({kind}\).*nothing was sent"):
        refuse_network_disk(place / "deep" / "run.journal", listed)
    refuse_network_disk(tmp_path / "run.journal", listed)


def test_a_local_disk_below_a_network_disk_is_fine(tmp_path: Path) -> None:
    listed = mounts(
        tmp_path, f"30 22 0:45 / {tmp_path} rw - nfs4 a:/b rw", f"31 30 8:1 / {tmp_path}/local rw - xfs d rw"
    )
    refuse_network_disk(tmp_path / "local" / "run.journal", listed)
    with pytest.raises(JournalError):
        refuse_network_disk(tmp_path / "run.journal", listed)


@pytest.mark.parametrize("text", ["", "milk\n", "1 2 3\n - nfs\n"])
def test_where_mounts_cannot_be_read_nothing_is_refused(tmp_path: Path, text: str) -> None:
    refuse_network_disk(tmp_path / "run.journal", tmp_path / "missing")
    (tmp_path / "mountinfo").write_text(text)
    refuse_network_disk(tmp_path / "run.journal", tmp_path / "mountinfo")


def test_this_machines_own_disk_is_fine(tmp_path: Path) -> None:
    refuse_network_disk(tmp_path / "run.journal")
