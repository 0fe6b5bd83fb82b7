"""Signatures: by the published recipe, checked against openssl, and refused alike whatever is wrong."""

from __future__ import annotations

import hmac
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from toapis_async.errors import WebhookRejected
from toapis_async.protocol import signature
from toapis_async.protocol.signature import MAX_BODY_BYTES, MOST_SIGNATURES, sign, verify
from toapis_async.sandbox import webhooks as twin

if TYPE_CHECKING:
    from collections.abc import Iterable

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVENT_ID = "evt_01K3"
NOW = 1_755_000_000
BODY = '{"id":"evt_01K3","type":"generation.completed","data":{"model":"模型 ü"}}'.encode()

#: event id, timestamp, secret, body, signature; made with `openssl dgst -sha256 -hmac SECRET`
VECTORS = (
    (
        EVENT_ID, "1755000000", SECRET, BODY,
        "003b7a3040963a57568801937bb7b0d15934e881c5d9d13ecb5da1594c934a3e",
    ),
    ("evt_1", "1", "s", b"", "c143ae57d8dfb0b078bab3c36593eadaf11afeb50e77a3b545a0f523ec8b5e0b"),
    (
        "evt_1", "1755000000", "secret with spaces", b"\x00\xff.\r\n",
        "bdf507185264daf717fa16f68e4d281d52764640c69e49741884ef6082e5eff6",
    ),
    (
        "evt_1", "1755000000", "geheimnis-\u00fc", b"{}",
        "d309ad2814d59598cc9e2dbbfb27b675e3ffd6d8a82d69fe15affb2f37fc0ba0",
    ),
)  # fmt: skip


def headers(
    *signatures: str, event_id: str = EVENT_ID, timestamp: object = NOW, case: Any = str.title
) -> dict[str, str]:
    return {
        case("x-toapis-webhook-id"): event_id,
        case("x-toapis-webhook-timestamp"): str(timestamp),
        case("x-toapis-webhook-signature"): ",".join(f"v1={value}" for value in signatures),
    }


def good(**changes: Any) -> dict[str, str]:
    event_id, timestamp = changes.get("event_id", EVENT_ID), str(changes.get("timestamp", NOW))
    return headers(sign(event_id, timestamp, BODY, SECRET), **changes)


def verified(given: Any, *, body: bytes = BODY, secrets: Iterable[str] = (SECRET,), now_s: float = NOW) -> str:
    return verify(body, given, secrets, now_s)


# ------------------------------------------------------------------------------------------------ the recipe


@pytest.mark.parametrize(("event_id", "timestamp", "secret", "body", "expected"), VECTORS)
def test_the_fixed_vectors_hold(event_id: str, timestamp: str, secret: str, body: bytes, expected: str) -> None:
    assert sign(event_id, timestamp, body, secret) == expected
    assert twin.signature(secret, event_id, timestamp, body) == expected
    given = headers(expected, event_id=event_id, timestamp=timestamp)
    assert verified(given, body=body, secrets=[secret], now_s=int(timestamp)) == event_id


@pytest.mark.parametrize("vector", VECTORS)
def test_openssl_signs_as_we_do(vector: tuple[str, str, str, bytes, str]) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed here; the fixed vectors were made with it")
    event_id, timestamp, secret, body, expected = vector
    signed = event_id.encode() + b"." + timestamp.encode() + b"." + body
    key = f"hexkey:{secret.encode().hex()}"
    command = [openssl, "dgst", "-sha256", "-mac", "HMAC", "-macopt", key, "-r"]
    done = subprocess.run(command, input=signed, capture_output=True, check=True, timeout=60)  # noqa: S603
    assert done.stdout.split()[0].decode() == expected


# ------------------------------------------------------------------------------------------------ what is accepted


@pytest.mark.parametrize("case", [str.lower, str.upper, str.title, lambda name: name.replace("toapis", "ToAPIs")])
def test_header_names_come_in_any_case(case: Any) -> None:
    assert verified(good(case=case)) == EVENT_ID


@pytest.mark.parametrize(
    "shape",
    [
        dict,
        lambda h: {name.encode(): value.encode() for name, value in h.items()},
        lambda h: list(h.items()),
        lambda h: [(name.encode(), value.encode()) for name, value in h.items()],
        lambda h: iter(h.items()),
        CIMultiDict,
        lambda h: CIMultiDict([*h.items(), ("Other", "1"), ("Other", "2")]),
        lambda h: [(b"x-\xff", b"\xff\xfe"), *((n.encode(), v.encode()) for n, v in h.items())],
    ],
)
def test_headers_come_in_any_shape_that_frameworks_have(shape: Any) -> None:
    assert verified(shape(good())) == EVENT_ID


def test_any_of_several_signatures_and_any_of_several_secrets_will_do() -> None:
    right, wrong = sign(EVENT_ID, str(NOW), BODY, SECRET), "0" * 64
    assert verified(headers(wrong, right)) == EVENT_ID
    assert verified(headers(right, wrong)) == EVENT_ID
    assert verified(good(), secrets=["old", SECRET]) == EVENT_ID
    given = good()
    given["X-Toapis-Webhook-Signature"] = f" v2=abc , v1={right} ,v1=,nonsense"
    assert verified(given) == EVENT_ID


def test_a_signature_header_that_came_twice_counts_as_one() -> None:
    pairs = [*good().items(), ("X-ToAPIs-Webhook-Signature", "v1=00")]
    assert verified(pairs) == EVENT_ID
    assert verified(pairs[::-1]) == EVENT_ID


@pytest.mark.parametrize("off_s", [0, 299.5, 300, -299.5, -300])
def test_a_timestamp_within_five_minutes_either_way_is_near_enough(off_s: float) -> None:
    assert verified(good(), now_s=NOW + off_s) == EVENT_ID


# ------------------------------------------------------------------------------------------------ what is refused


def changed(**changes: str | None) -> dict[str, str]:
    given: dict[str, str | None] = {**good(), **{f"X-Toapis-Webhook-{name}": value for name, value in changes.items()}}
    return {name: value for name, value in given.items() if value is not None}


RIGHT = sign(EVENT_ID, str(NOW), BODY, SECRET)
REFUSED: dict[str, Any] = {
    "no headers": {},
    "no id": changed(Id=None),
    "no timestamp": changed(Timestamp=None),
    "no signature": changed(Signature=None),
    "an empty signature": changed(Signature=""),
    "no version": changed(Signature=RIGHT),
    "another version": changed(Signature=f"v2={RIGHT}"),
    "upper case": changed(Signature=f"v1={RIGHT.upper()}"),
    "cut": changed(Signature=f"v1={RIGHT[:-1]}"),
    "longer": changed(Signature=f"v1={RIGHT}0"),
    "spaced": changed(Signature=f"v1= {RIGHT}"),
    "not ASCII": changed(Signature=f"v1={RIGHT[:-1]}\u00e9"),
    "a lone surrogate": changed(Signature=f"v1={RIGHT[:-1]}\udce9"),
    "too many": changed(Signature=",".join(["v1=0"] * MOST_SIGNATURES + [f"v1={RIGHT}"])),
    "too long": changed(Signature=f"v1={RIGHT},{' ' * 2_000}v1=0"),
    "another id": changed(Id="evt_other"),
    "another timestamp": changed(Timestamp=str(NOW + 1)),
    "an id that came twice": [*good().items(), ("x-toapis-webhook-id", EVENT_ID)],
    "a timestamp that came twice": [*good().items(), ("x-toapis-webhook-timestamp", str(NOW))],
    **{
        f"signed, but its timestamp is {timestamp!r}": good(timestamp=timestamp)
        for timestamp in (
            "", "-1", f"+{NOW}", f"{NOW}.0", f"{NOW:_}", f"0x{NOW:x}", "nan", "\u0661\u0662", "9" * 13, f"{NOW}000",
            NOW + 301, NOW - 301, "\udce9", f"{NOW}\n1",
        )
    },
    **{
        f"signed, but its id is {event_id!r}": good(event_id=event_id)
        for event_id in ("", "evt 1", "evt_\u00e9", "evt_\udce9", "e" * 201, "evt\t1")
    },
}  # fmt: skip


@pytest.mark.parametrize("given", REFUSED.values(), ids=REFUSED)
def test_whatever_is_wrong_it_is_refused_in_the_same_words(given: Any) -> None:
    with pytest.raises(WebhookRejected) as caught:
        verified(given)
    with pytest.raises(WebhookRejected) as other:
        verified(good(), secrets=["another"])
    assert str(caught.value) == str(other.value)
    assert caught.value.status == other.value.status == 401
    assert caught.value.__context__ is None  # nothing that says more travels along


@pytest.mark.parametrize("body", [BODY + b" ", BODY[:-1], b"", BODY.replace(b"evt", b"Evt")])
def test_a_body_that_was_touched_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookRejected):
        verified(good(), body=body)


def test_an_event_for_another_secret_or_for_none_is_refused() -> None:
    for secrets in ((), ("",), (SECRET + " ",)):
        with pytest.raises(WebhookRejected):
            verified(good(), secrets=secrets)


def test_a_body_that_is_too_large_is_refused_before_it_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    given = good()
    monkeypatch.delattr(signature, "sign")
    with pytest.raises(WebhookRejected, match="too large") as caught:
        verified(given, body=b"x" * (MAX_BODY_BYTES + 1))
    assert caught.value.status == 413


def test_every_pair_is_compared_in_constant_time_also_after_a_match(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    really = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return really(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert verified(headers(RIGHT, "0" * 64), secrets=[SECRET, "old"]) == EVENT_ID
    assert len(compared) == 4


@settings(max_examples=200)
@given(
    values=st.dictionaries(
        st.sampled_from(["X-ToAPIs-Webhook-Id", "X-ToAPIs-Webhook-Timestamp", "X-ToAPIs-Webhook-Signature", "Other"]),
        st.text(max_size=80) | st.sampled_from([EVENT_ID, str(NOW), "v1=,v1=0"]),
    )
)
def test_what_a_stranger_sends_never_raises_anything_else(values: dict[str, str]) -> None:
    with pytest.raises(WebhookRejected):
        verified(values)
