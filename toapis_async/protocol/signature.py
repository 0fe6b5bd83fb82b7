"""Is an event the service's own? HMAC-SHA256 over `event id . timestamp . raw body`, keyed with the secret's text."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias, cast

from toapis_async.errors import WebhookRejected

Headers: TypeAlias = (
    Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str, str]] | Iterable[tuple[bytes, bytes]]
)
"""HTTP headers as frameworks have them: a mapping or pairs, text or bytes, names in any case."""

WINDOW_S: Final = 300
"""How far an event's timestamp may lie from our clock, either way [docs]. Retries come with fresh ones."""
MAX_BODY_BYTES: Final = 2**20
"""A longer body is refused unread: an event holds links and messages, a few kB of them."""
MOST_SIGNATURES: Final = 8
"""`v1` values compared from one header; the service sends two at most (24 h after a rotation) [docs]."""
_MAX_HEADER_CHARACTERS: Final = 1_024
_SIGNED: Final = ("x-toapis-webhook-id", "x-toapis-webhook-timestamp", "x-toapis-webhook-signature")
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
_EVENT_ID: Final = re.compile(r"[!-~]{1,200}")

_TOO_LARGE: Final = "the body is too large for an event"
_UNTRUSTED: Final = (
    "not signed with a secret of ours, or not within five minutes of our clock (are the secrets and the clock right, "
    "and is the body given exactly as it came?)"
)


def sign(event_id: str, timestamp: str, body: bytes, secret: str) -> str:
    """The signature in lower-case hex."""
    signed = f"{event_id}.{timestamp}.".encode("utf-8", "replace") + body
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def check_headers(headers: Headers, now_s: float) -> None:
    """Judge a delivery before its body is read; `now_s` in Unix seconds.

    Raises `WebhookRejected`: 401 when it can't be signed rightly, whatever its body, 400 for a body that is encoded
    (the signature is of the plain one), 413 for one whose `Content-Length` is too large.
    """
    event_id, timestamp, signatures = _signed_headers(headers)
    if not (_is_timely(event_id, timestamp, now_s) and any(_v1_values(signatures))):
        raise WebhookRejected(_UNTRUSTED)
    encoding, length = _headers(headers, ("content-encoding", "content-length"))
    if encoding.lower() not in {"", "identity"}:
        raise WebhookRejected("send the body as it is, without Content-Encoding", status=400)
    if length.isascii() and length.isdigit() and int(length[:20]) > MAX_BODY_BYTES:
        raise WebhookRejected(_TOO_LARGE, status=413)


def verify(body: bytes, headers: Headers, secrets: Iterable[str], now_s: float) -> str:
    """The event's id, when one of the `v1` signatures is by one of our secrets and `now_s` (Unix seconds) is near.

    Raises `WebhookRejected`: 413 for a body that is too large, else 401 with one text for every reason, so that
    trying teaches nothing. A mismatch takes as long wherever it is: all pairs are compared, each in constant time.
    """
    if len(body) > MAX_BODY_BYTES:
        raise WebhookRejected(_TOO_LARGE, status=413)
    event_id, timestamp, signatures = _signed_headers(headers)
    candidates = [value for value in _v1_values(signatures) if value]
    matches = False
    for secret in secrets:
        expected = sign(event_id, timestamp, body, secret).encode()
        for candidate in candidates:
            matches |= hmac.compare_digest(expected, candidate)
    if not (matches and _is_timely(event_id, timestamp, now_s)):
        raise WebhookRejected(_UNTRUSTED)
    return event_id


def _is_timely(event_id: str, timestamp: str, now_s: float) -> bool:
    """Whether the signed headers are well formed, and of these minutes."""
    well_formed = _EVENT_ID.fullmatch(event_id) and _TIMESTAMP.fullmatch(timestamp)
    return well_formed is not None and abs(now_s - int(timestamp)) <= WINDOW_S


def _signed_headers(headers: Headers) -> tuple[str, str, str]:
    """The id, the timestamp and the signatures."""
    event_id, timestamp, signatures = _headers(headers, _SIGNED)
    return event_id, timestamp, signatures


def _headers(headers: Headers, names: Sequence[str]) -> list[str]:
    """These headers; one that is missing or too long is empty, one that came twice is joined as HTTP says."""
    found: dict[str, str] = {}
    pairs = cast("Mapping[str, str]", headers).items() if isinstance(headers, Mapping) else headers
    for raw_name, raw_value in cast("Iterable[tuple[str | bytes, str | bytes]]", pairs):
        name = _text(raw_name).lower()
        if name in names:
            found[name] = f"{found[name]},{_text(raw_value)}" if name in found else _text(raw_value)
    return [value if len(value := found.get(name, "").strip()) <= _MAX_HEADER_CHARACTERS else "" for name in names]


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _v1_values(signatures: str) -> list[bytes]:
    parts = (part.strip().partition("=") for part in signatures.split(",")[:MOST_SIGNATURES])
    return [value.encode("utf-8", "replace") for version, _, value in parts if version == "v1"]
