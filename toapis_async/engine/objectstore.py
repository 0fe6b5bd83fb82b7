"""Object stores (S3, GCS, Azure) as a sink. The only place that imports obstore, extra `[objectstore]`.

An object appears under its name when its upload is complete, and not before: the stores see to that.
"""

from __future__ import annotations

import mimetypes
import re
from typing import TYPE_CHECKING, Any, Final

from toapis_async.errors import InvalidRequest
from toapis_async.protocol.lenient import shorten

if TYPE_CHECKING:
    from pathlib import Path

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
SCHEMES: Final = frozenset({"s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl"})
_PROBE: Final = ".toapis-async"


def is_url(text: str) -> bool:
    """Whether a text is a URL, and no path (of Windows, with a drive's letter, neither)."""
    found = _URL.match(text)
    return found is not None and len(found[1]) > 1


class ObjectStore:
    """The objects under one URL. Credentials, region and endpoint come from the environment, by the names that the
    stores' own tools use (`AWS_…`, `GOOGLE_…`, `AZURE_…`). Pickles as its URL."""

    def __init__(self, url: str) -> None:
        """Raises `InvalidRequest` for a URL that is none of a store's, and `ImportError` without the extra."""
        scheme = url.partition("://")[0].lower()
        if "://" not in url or scheme not in SCHEMES:
            raise InvalidRequest(
                f"save_to={shorten(url, 60)!r}: a folder, or the URL of an object store as text: s3://bucket/folder, "
                "gs://…, az://…",
                field="save_to",
            )
        try:
            from obstore.store import from_url  # noqa: PLC0415  (20 MB, for those who save so)
        except ImportError as error:
            raise ImportError(f"save_to={scheme}://… needs obstore: pip install 'toapis-async[objectstore]'") from error
        base = url.rstrip("/")
        try:
            store: Any = from_url(base)
        except Exception as error:
            text = f"save_to: {shorten(base, 60)} can't be used: {_reason(error)}"
            raise InvalidRequest(text, field="save_to") from None
        self.base = base
        self._store = store

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectStore) and other.base == self.base

    def __hash__(self) -> int:
        return hash(self.base)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.base,)

    def url(self, name: str) -> str:
        """The URL of an object."""
        return f"{self.base}/{name}"

    async def put(self, name: str, file: Path) -> None:
        """Upload a file, in parts when it is large."""
        import obstore  # noqa: PLC0415

        label = mimetypes.guess_type(name)[0]
        attributes: Any = {"Content-Type": label} if label else None
        await obstore.put_async(self._store, name, file, attributes=attributes)

    async def size_bytes(self, name: str) -> int | None:
        """The size of an object; None when there is none."""
        import obstore  # noqa: PLC0415

        try:
            return (await obstore.head_async(self._store, name))["size"]
        except FileNotFoundError:
            return None

    async def check(self) -> None:
        """Write and remove an object. Raises `InvalidRequest` when that can't be."""
        import obstore  # noqa: PLC0415

        try:
            await obstore.put_async(self._store, _PROBE, b"")
            await obstore.delete_async(self._store, _PROBE)
        except Exception as error:
            text = f"save_to: can't write to {self.base}: {_reason(error)}; nothing was sent"
            raise InvalidRequest(text, field="save_to") from error


def _reason(error: Exception) -> str:
    """The first line of obstore's words, which go on for pages."""
    return shorten(next(iter(str(error).strip().splitlines()), type(error).__name__), 200)
