"""Which receivers the console and a submission may name."""

from __future__ import annotations

import pytest
from yarl import URL

from toapis_async.sandbox import Sandbox
from toapis_async.sandbox import webhooks as module

from .kit import HTTPS, SECRET, Caller, Receiver, until


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example", "https://hooks.example:8443/a?b=c", "http://127.0.0.1:80/x", "http://localhost:8000",
        "http://[::1]:8000/hook", "https://8.8.8.8/hook", "https://127.0.0.1/hook",
    ],
)  # fmt: skip
def test_a_receiver_is_https_or_on_loopback(url: str) -> None:
    assert module.checked_receiver(url) == URL(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example", "http://8.8.8.8/hook", "http://0.0.0.0/", "ftp://hooks.example", "hooks.example", "",
        "https://", "https://user@hooks.example", "https://u:p@hooks.example", "https://hooks.example/#x",
        "https://10.0.0.1/hook", "https://169.254.169.254/", "http://localhost.example", "https://[::1", "http://10.0.0.1",
        "https://hooks.example:99999",
    ],
)  # fmt: skip
async def test_another_receiver_is_refused_by_the_console_and_in_a_request(
    url: str, sandbox: Sandbox, caller: Caller
) -> None:
    with pytest.raises(ValueError, match=r"URL|receiver|is empty"):
        Sandbox(webhook_url=url, webhook_secret=SECRET)
    sandbox.webhooks.configure(HTTPS, SECRET)
    reply = await caller.submit(callback_url=url)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "invalid_request", "callback_url")
    assert sandbox.ledger.entries == ()


@pytest.mark.parametrize("configured", [(None, None), (HTTPS, None), (None, SECRET)])
async def test_a_callback_needs_a_url_and_a_secret_on_the_key(
    configured: tuple[str | None, str | None], sandbox: Sandbox, caller: Caller
) -> None:
    sandbox.webhooks.configure(*configured)
    reply = await caller.submit(callback_url=HTTPS)
    assert (reply.status, reply.error["code"]) == (400, "webhook_not_configured")
    assert (await caller.submit()).status == 200


@pytest.mark.parametrize("url", ["https://other.example/hook", "https://hooks.example:8443/", "http://127.0.0.1:443/"])
async def test_a_callback_to_another_origin_is_refused(url: str, sandbox: Sandbox, caller: Caller) -> None:
    sandbox.webhooks.configure(HTTPS, SECRET)
    reply = await caller.submit(callback_url=url)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "invalid_request", "callback_url")


async def test_a_callback_that_is_no_text_is_refused(caller: Caller) -> None:
    reply = await caller.submit(callback_url=5)
    assert (reply.status, reply.error["param"]) == (400, "callback_url")


async def test_a_callback_of_the_same_origin_gets_the_event_instead(
    pushing: Sandbox, receiver: Receiver, caller: Caller
) -> None:
    other = receiver.url.replace("/hook", "/other/path")
    pushing.finish(await caller.task("one", callback_url=other))
    pushing.finish(await caller.task("two"))
    await until(lambda: len(receiver.seen) == 2)
    assert sorted(path for path, _, _ in receiver.seen) == ["/hook", "/other/path"]


def test_an_empty_secret_is_refused() -> None:
    for secret in ("", " ", ("a", "")):
        with pytest.raises(ValueError, match="a webhook secret is empty"):
            Sandbox(webhook_url=HTTPS, webhook_secret=secret)
