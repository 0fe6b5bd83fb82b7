"""What there is to submit to and to ask, as values."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias
from urllib.parse import quote

from attrs import frozen

Kind: TypeAlias = Literal["image", "video"]


@frozen
class Endpoint:
    """Where tasks of one kind are submitted and asked for, below the API's root."""

    kind: Kind
    submit_path: str
    status_path: str

    def task_path(self, task_id: str) -> str:
        """The status path of a task, by its id or its client_business_id: opaque text, so every byte is encoded."""
        return f"{self.status_path}/{quote(task_id, safe='')}"


IMAGES: Final = Endpoint("image", "/images/generations", "/images/generations")
