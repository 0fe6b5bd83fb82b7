"""What a user gets wrong: each line with a mark, and no other, must be an error of both checkers. It is not run."""

from __future__ import annotations

from toapis_async import ImageFields, ImageRequest, ImageRow, ToAPIs


async def mistakes(client: ToAPIs) -> None:
    await client.generate("a red kite", quality="hihg")  # wrong
    await client.generate("a red kite", sice="16:9")  # wrong
    await client.generate("a red kite", n="2")  # wrong
    await client.generate("a red kite", resolution="8k")  # wrong
    await client.generate("a red kite", background="none")  # wrong
    await client.generate(5)  # wrong
    ImageRequest("a red kite", quality="hihg")  # wrong
    ImageRequest("a red kite", sice="16:9")  # wrong
    look: ImageFields = {"quality": "hihg"}  # wrong
    row: ImageRow = {"prompt": "a red kite", "sice": "16:9"}  # wrong
    without_prompt: ImageRow = {"quality": "low"}  # wrong
    client.batch(["a kite"], progress="yes")  # wrong
    client.batch("a kite", kind="picture")  # wrong
    handle = await client.submit("a red kite")
    handle.images  # wrong  # noqa: B018
    async for item in client.batch([look, row, without_prompt]):
        item.generation.pictures  # wrong  # noqa: B018
    for left in client.batch(["a kite"]).running():
        left.generation  # wrong  # noqa: B018
