"""Which file system a path is on. Blocks: a network disk may not answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from toapis_async.errors import JournalError

MOUNTS: Final = Path("/proc/self/mountinfo")
NETWORK: Final = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|afs|ceph|glusterfs|lustre|beegfs|fuse\.(sshfs|s3fs|glusterfs|ceph.*|gcsfuse)"
)


def refuse_network_disk(path: Path, mounts: Path = MOUNTS) -> None:
    """Raise `JournalError` for a path on a network disk, where known (Linux): its locks can't be relied on."""
    kind = _file_system(path, mounts)
    if kind is not None and NETWORK.fullmatch(kind):
        raise JournalError(
            f"the journal {path} would be on a network disk ({kind}), whose locks can't be relied on: "
            "nothing was sent; give journal= a path on a disk of the scheduler's machine"
        )


def _file_system(path: Path, mounts: Path) -> str | None:
    """The type of the file system that a path is on, or will be; None where that can't be told."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    place, found = path.resolve(), dict[Path, str]()
    for line in lines:
        mounted, _, source = line.partition(" - ")
        fields, kind = mounted.split(" "), source.partition(" ")[0]
        if len(fields) > 4 and kind:
            found[Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))] = kind
    return next((found[parent] for parent in (place, *place.parents) if parent in found), None)
