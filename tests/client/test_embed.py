"""Saved files that say how they were made."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.engine.kit import PNG, fast, served
from toapis_async import DownloadFailed, ImageRequest, ToAPIs
from toapis_async.engine import describing
from toapis_async.protocol.metadata import described

if TYPE_CHECKING:
    from pathlib import Path


def facts_in(path: Path) -> Any:
    with Image.open(path) as image:
        return json.loads(getattr(image, "text")["toapis"])  # noqa: B009


REQUEST = ImageRequest(
    "a red kite",
    size="16:9",
    n=2,
    reference_images=[PNG],
    client_business_id="secret-1",
    metadata={"style": "oil", "client_business_id": "mine"},
)


async def test_a_file_says_what_was_asked_for_and_nothing_of_who_asked(tmp_path: Path) -> None:
    async with served() as (_, client):
        generation = await client.generate(REQUEST)
        plain = await generation.save(tmp_path / "plain")
        files = await generation.save(tmp_path, embed=True)
    assert [path.name for path in files] == [path.name for path in plain]
    assert b"toapis" not in plain[0].read_bytes()
    facts = facts_in(files[1])
    assert facts["prompt"] == "a red kite"
    assert facts["model"] == "gpt-image-2-vip"
    assert facts["settings"] == {"size": "16:9", "n": 2, "metadata": {"style": "oil"}}
    assert facts["task_id"] == generation.task_id
    assert generation.completed_at is not None
    assert facts["completed_at"] == generation.completed_at.isoformat()
    assert "secret" not in json.dumps(facts)


async def test_the_files_of_a_batch_and_of_handles_say_it_too(tmp_path: Path) -> None:
    async with served() as (_, client):
        [item] = await client.batch(["a blue kite"], save_to=tmp_path, embed=True).gather()
        handle = await client.submit("a green kite")
        [file] = await (await handle).save(tmp_path, embed=True)
        attached = await (await client.attach(handle.task_id)).save(tmp_path / "again", embed=True)
    assert facts_in(item.files[0])["prompt"] == "a blue kite"
    assert facts_in(file)["prompt"] == "a green kite"
    assert "prompt" not in facts_in(attached[0])  # who attaches does not know it


async def test_what_a_file_can_not_hold_stands_beside_it(tmp_path: Path) -> None:
    signed = b"\0\0\0\x20jumb\0\0\0\x1ejumdc2pa"
    chunk = struct.pack(">I", len(signed)) + b"caBX" + signed + struct.pack(">I", zlib.crc32(b"caBX" + signed))
    for name, content in {"a.png": PNG[:33] + chunk + PNG[33:], "b.gif": b"GIF89a", "c.mp4": b""}.items():
        (tmp_path / name).write_bytes(content)
        describing.describe(tmp_path / name, {"prompt": "海"})
        assert (tmp_path / name).read_bytes() == content
        assert json.loads((tmp_path / f"{name}.json").read_text("utf-8")) == {"prompt": "海"}


async def test_a_picture_whose_facts_can_not_be_written_is_told_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("toapis_async.engine.saving.describe", full)
    async with served() as (_, client):
        generation = await client.generate("a kite")
        with pytest.raises(DownloadFailed, match="is saved, but how it was made can't be written") as told:
            await generation.save(tmp_path, embed=True)
    assert [path.is_file() for path in told.value.files] == [True]


async def test_a_journal_knows_the_request_of_an_earlier_process(tmp_path: Path) -> None:
    journal = tmp_path / "a.journal"
    async with served() as (sandbox, _):
        options: dict[str, Any] = {"base_url": sandbox.base_url, "journal": journal, "settings": fast()}
        async with ToAPIs("sk-any", **options) as first:
            await (await first.submit("a kite of before"))
        async with ToAPIs("sk-any", **options) as second:
            [handle] = second.recovered()
            [file] = await (await handle).save(tmp_path, embed=True)
    assert facts_in(file)["prompt"] == "a kite of before"


def test_pillow_is_not_needed() -> None:
    assert described(PNG, {"prompt": "a"}) != PNG
