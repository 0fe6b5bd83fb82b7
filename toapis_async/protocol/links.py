"""Links to result files: which URL a link is, where it may lead, how long it lives, and files that a link holds."""

from __future__ import annotations

import base64
import re
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit

if TYPE_CHECKING:
    from datetime import datetime

LINK_LIFE: Final = timedelta(hours=24)
"""How long the service keeps a file [docs]."""

_NOT_IN_A_URL: Final = re.compile(r"[^\w.~!$&'()*+,;=:@/?%\[\]|-]|%(?![0-9A-Fa-f]{2})", re.ASCII)
_BLANK: Final = re.compile(r"\s")


# ---------------------------------------------------------------------------------------------- spelling


def absolute(link: str, base_url: str) -> str | None:
    """A link as an absolute http(s) URL. One without a host is on `base_url`'s; None for what is no such link.

    Unlike `urljoin`, it leaves a path that begins with a slash as it is.
    """
    link = link.strip()
    try:
        parts = urlsplit(link)
        if not parts.scheme and "/" in link and (link.startswith("/") or not _BLANK.search(link)):
            origin = urljoin(base_url, "/")
            link = urljoin(origin, link) if link[:1] != "/" or link[:2] == "//" else origin + link[1:]
            parts = urlsplit(link)
        has_host = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return None
    return link if has_host else None


def target_of(url: str) -> str:
    """Path and query as they go out: what is valid in the very spelling it came in, for a signature covers it; blanks,
    letters beyond ASCII and other characters that can't stand in a URL are percent-encoded."""
    parts = urlsplit(url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    return _NOT_IN_A_URL.sub(lambda found: quote(found[0].encode("utf-8", "surrogateescape"), safe=""), target)


# ---------------------------------------------------------------------------------------------- addresses

_LOCAL_V4: Final = tuple(
    IPv4Network(text)
    for text in ("0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
)
"""Not 100.64.0.0/10 nor 198.18.0.0/15: carriers and proxies with made-up addresses use them for the open internet."""
_LOCAL_V6: Final = tuple(IPv6Network(text) for text in ("::/128", "::1/128", "fc00::/7", "fe80::/10", "fec0::/10"))
_CARRIES_V4: Final = tuple(
    (IPv6Network(text), shift)
    for text, shift in (
        ("::ffff:0:0/96", 0),
        ("64:ff9b::/96", 0),
        ("64:ff9b:1::/48", 0),
        ("2002::/16", 80),
        ("::/96", 0),
    )
)
"""Networks whose addresses stand for an IPv4 address, and how many bits follow it."""


@lru_cache(maxsize=1_024)
def is_local(host: str) -> bool:
    """Whether a host is an address of this machine or of a network around it, however written; not other names."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    if isinstance(address, IPv4Address):
        return any(address in network for network in _LOCAL_V4)
    if address is None:
        return False
    if any(address in network for network in _LOCAL_V6):
        return True
    for network, shift in _CARRIES_V4:
        if address in network:
            return is_local(str(IPv4Address((int(address) >> shift) & 0xFFFFFFFF)))
    return False


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return _legacy_v4(host)


def _legacy_v4(host: str) -> IPv4Address | None:
    """`127.1`, `0x7f000001`, `0177.0.0.1`, `2130706433`: what C libraries read as an address, and proxies with them."""
    try:
        *first, last = [_c_number(part) for part in host.split(".")]
        if len(first) > 3 or any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
            return None
    except ValueError:
        return None
    return IPv4Address(sum(number << 8 * (3 - place) for place, number in enumerate(first)) + last)


def _c_number(text: str) -> int:
    if not text.isascii() or not text.isalnum() or len(text) > 40:
        raise ValueError(text)
    return int(text, 16 if text.startswith("0x") else 8 if text.startswith("0") else 10)


# ---------------------------------------------------------------------------------------------- life


def answered_at(date: str | None) -> datetime | None:
    """The moment of an answer by its host's own clock, from its `Date` header: the clock here may be wrong."""
    if not date:
        return None
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


# ---------------------------------------------------------------------------------------------- data


def is_data(link: str) -> bool:
    """Whether a link holds its file itself (`data:…`)."""
    return link[:5].lower() == "data:"


def decode_data(link: str) -> tuple[str, bytes]:
    """The label and the bytes of a `data:` link. Raises `ValueError` when they can't be read."""
    label, comma, body = link[5:].partition(",")
    if not comma:
        raise ValueError("no comma in a data: link")
    mime_type, *options = (part.strip().lower() for part in label.split(";"))
    content = unquote_to_bytes(body) if "%" in body else body.encode("ascii")
    if "base64" not in options:
        return mime_type, content
    packed = b"".join(content.split()).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    return mime_type, base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
