"""Which fields a model reads: references under the names that its page lists, and `/v1/images/edits`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from toapis_async.sandbox.catalogue import IMAGE_MODELS

from .kit import VIP, Caller, Clock

if TYPE_CHECKING:
    from toapis_async.sandbox import Sandbox

URL = "https://a.example/b.png"
BOTH = {"reference_images", "image_urls"}
LISTED: dict[str, set[str]] = {
    VIP: BOTH,
    "gpt-image-2": BOTH,
    **{f"gpt-image-2.5-{flavour}{way}": BOTH for flavour in ("flare", "sunburst") for way in ("", "-vip")},
    "grok-imagine-1.0": set(),
}
"""Every other model's page lists `image_urls` alone."""


@pytest.mark.parametrize("name", ["reference_images", "image_urls"])
@pytest.mark.parametrize("model", list(IMAGE_MODELS))
async def test_a_reference_is_read_under_the_names_of_the_models_page_alone(
    sandbox: Sandbox, caller: Caller, model: str, name: str
) -> None:
    listed = LISTED.get(model, {"image_urls"})
    edits = model == "grok-imagine-1.0-edit"
    path = "/v1/images/edits" if edits else "/v1/images/generations"
    reply = await caller.call("POST", path, json={"model": model, "prompt": "a kite", name: [URL]})

    if edits and name == "reference_images":
        assert (reply.status, reply.error["param"]) == (400, "image_urls")
        return
    [entry] = sandbox.ledger
    assert reply.status == 200
    assert entry.references == ((URL,) if name in listed else ())
    assert entry.request[name] == [URL]


def form(model: str, **parts: str) -> aiohttp.FormData:
    data = aiohttp.FormData(quote_fields=False)
    for name, value in {"model": model, "prompt": "bluer", **parts}.items():
        data.add_field(name, value, content_type="text/plain")
    return data


async def edited(caller: Caller, data: Any) -> Any:
    return await caller.call("POST", "/v1/images/edits", data=data() if callable(data) else data)


async def test_edits_of_the_25_vip_models_come_as_a_form(sandbox: Sandbox, caller: Caller, clock: Clock) -> None:
    parts = form("gpt-image-2.5-flare-vip", image=URL, size="1536x1024", quality="low", n="1")
    parts._is_multipart = True
    reply = await edited(caller, parts)
    assert reply.status == 200, reply.raw
    [entry] = sandbox.ledger
    assert (entry.references, entry.n, entry.kind) == ((URL,), 1, "image")
    clock.advance(10)
    assert (await caller.query(entry.task_id)).body["status"] == "completed"


async def test_an_edit_in_the_wrong_encoding_or_without_its_image_is_refused(caller: Caller, sandbox: Sandbox) -> None:
    json_for_form = {"model": "gpt-image-2.5-flare-vip", "prompt": "bluer", "image": URL}
    refused = [
        await caller.call("POST", "/v1/images/edits", json=json_for_form),
        await caller.call("POST", "/v1/images/edits", json={"model": VIP, "prompt": "bluer", "image_urls": [URL]}),
        await caller.call("POST", "/v1/images/edits", json={"model": "grok-imagine-1.0-edit", "prompt": "bluer"}),
    ]
    for parts in ({}, {"image": "data:image/png;base64,AAAA"}, {"image": URL, "n": "1.5"}):
        data = form("gpt-image-2.5-flare-vip", **parts)
        data._is_multipart = True
        refused.append(await edited(caller, data))
    with_file = form("gpt-image-2.5-flare-vip")
    with_file.add_field("image", b"\x89PNG", filename="a.png", content_type="image/png")
    refused.extend((await edited(caller, with_file), await edited(caller, b"no form")))
    assert [reply.status for reply in refused] == [400] * len(refused)
    assert len(sandbox.ledger) == 0


async def test_layers_come_with_the_whole_picture_first(caller: Caller, clock: Clock) -> None:
    reply = await caller.submit(model="doubao-seedream-5-0-pro", layer_decomposition=True)
    clock.advance(10)
    layers = (await caller.query(reply.body["id"])).body["result"]["data"]

    assert [layer["z_index"] for layer in layers] == [0, 1, 2]
    assert layers[0].keys() == {"url", "size", "output_format", "z_index", "bounding_box", "name", "description"}
    assert layers[0]["bounding_box"]["absolute"] == [0, 0, 2048, 2048]
    for layer in layers:
        assert (await caller.file(layer["url"])).status == 200


async def test_a_field_that_is_not_read_leaves_the_others_alone(caller: Caller, sandbox: Sandbox) -> None:
    await caller.submit(model="gpt-image-2-official", reference_images=["no url"], image_urls=[URL, URL])

    [entry] = sandbox.ledger
    assert entry.references == (URL, URL)
