"""How the client behaves: one frozen object, every wrong value refused when it is made."""

from __future__ import annotations

import hashlib
import ipaddress
import math
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from attrs import field, fields, frozen

from toapis_async.errors import ClientStateError, InvalidRequest
from toapis_async.models import Learned
from toapis_async.proxies import Proxies, is_proxy_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from attrs import Attribute

    from toapis_async.events import Event

DEFAULT_BASE_URL = "https://toapis.com"
_ENDPOINT = re.compile(
    r"(/+(images|videos)/+(generations|edits)(/[^/]+)?|/+(chat/+)?completions|/+uploads/+(images|videos)|/+(user/+)?balance"
    r"|/+(models|pricing|responses|messages|embeddings))$"
)
"""An endpoint at the end of a base URL: people paste the whole address from an example."""
_MAX_KEY_FILE_BYTES = 4_096
Tier = Literal["auto", "default", "vip", "svip"]


def _short(value: object) -> str:
    try:
        return repr(value)[:40]
    except ValueError:  # an int of thousands of digits
        return f"a huge {type(value).__name__}"


def _number(low: float, high: float, *, whole: bool = False) -> Callable[[Any, Attribute[Any], object], None]:
    """A validator: a finite number in (0 or low)..high; the bounds themselves are allowed, 0 only as `low`."""

    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        kind = int if whole else int | float
        is_nan = isinstance(value, float) and math.isnan(value)
        if isinstance(value, bool) or not isinstance(value, kind) or is_nan:
            raise ValueError(f"{attribute.name} must be a {'whole ' if whole else ''}number, not {_short(value)}")
        if not low <= value <= high:
            raise ValueError(f"{attribute.name}={_short(value)} is out of range: {low:g} to {high:g}")

    return check


_TINY = 1e-6
_DAY_S = 86_400.0


@frozen(kw_only=True)
class RateLimits:
    """What the account may do, as two token buckets. Rates are per second, bursts the buckets' capacities."""

    submit_per_s: float = field(validator=_number(_TINY, 1e6))
    submit_burst: float = field(validator=_number(1, 1e6))
    query_per_s: float = field(validator=_number(_TINY, 1e6))
    query_burst: float = field(validator=_number(1, 1e6))


def _tier(submit_per_min: float, query_per_min: float) -> RateLimits:
    # The service documents ten seconds' worth as the burst, rounded up (167 for 166.7). We take the unrounded
    # figure: a token too few costs nothing, a token too many is a 429 of our own making.
    return RateLimits(
        submit_per_s=submit_per_min / 60,
        submit_burst=submit_per_min / 6,
        query_per_s=query_per_min / 60,
        query_burst=query_per_min / 6,
    )


TIERS: dict[str, RateLimits] = {
    "default": _tier(300, 3_000),
    "vip": _tier(1_000, 10_000),
    "svip": _tier(2_000, 30_000),
}
"""The documented tiers [docs]. All keys and processes of a user share one pair of buckets."""


def _check_tier(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or value not in {"auto", *TIERS}:
        raise ValueError(f"tier={_short(value)}: known are auto, {', '.join(TIERS)}; or give limits=RateLimits(…)")


def _check_uncertain(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value not in ("resubmit", "raise"):
        raise ValueError(f"uncertain_submits={_short(value)}: known are resubmit, raise")


def _check_limits(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, RateLimits):
        raise ValueError(f"limits must be a RateLimits, not {type(value).__name__}")


def _check_prior(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, Learned):
        raise ValueError(f"prior must be what client.learned() gave, not {type(value).__name__}")


def _check_proxy(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not is_proxy_url(value):  # it is not quoted: it may hold a password
        raise ValueError("proxy must be an http(s) URL")


def _prices(value: Any) -> dict[str, Decimal]:
    """A mapping of names to credits, exactly."""
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise ValueError(f"prices must map model/resolution/quality to credits, not be a {kind}")  # noqa: TRY004
    prices: dict[str, Decimal] = {}
    for name, price in cast("Mapping[object, object]", value).items():
        credits_ = as_credits(price)
        if not isinstance(name, str) or not name or credits_ is None:
            raise ValueError(f"prices: {_short(name)}: {_short(price)} is no price; it must be credits from 0")
        prices[name] = credits_
    return prices


def checked_budget(budget_credits: float | Decimal | None) -> Decimal | None:
    """A cap as an exact decimal, or `InvalidRequest`."""
    if budget_credits is None:
        return None
    amount = as_credits(budget_credits)
    if amount is None:
        raise InvalidRequest(f"budget_credits must be credits from 0, not {budget_credits!r}", field="budget_credits")
    return amount


def checked_images(max_images: int | None) -> int | None:
    """A cap on images, or `InvalidRequest`."""
    if max_images is not None and (type(max_images) is not int or max_images < 0):
        text = f"max_images must be a whole number from 0, not {_short(max_images)}"
        raise InvalidRequest(text, field="max_images")
    return max_images


def as_credits(value: object) -> Decimal | None:
    """An amount of credits, exactly; None for anything that is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        amount = Decimal(str(value))
    except ArithmeticError:
        return None
    return amount if amount.is_finite() and amount >= 0 else None


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _check_secrets(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple):
        raise ValueError(f"{attribute.name} must be text or a tuple of texts, not {type(value).__name__}")  # noqa: TRY004
    for secret in cast("tuple[object, ...]", value):
        if not isinstance(secret, str):
            raise ValueError(f"{attribute.name}: a secret must be text, not {type(secret).__name__}")  # noqa: TRY004
        if not secret or secret != secret.strip():
            raise ValueError(f"{attribute.name}: a secret is empty, or has white space around it (a line break?)")
        if not secret.isprintable():
            raise ValueError(f"{attribute.name}: a secret has characters that no secret has")


def _check_bool(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{attribute.name} must be True or False, not {_short(value)}")  # noqa: TRY004


def _listeners(
    value: Callable[[Event], None] | Iterable[Callable[[Event], None]] | None,
) -> tuple[Callable[[Event], None], ...]:
    """One callable, several or None as a tuple."""
    given: object = value
    listeners: tuple[object, ...] = () if given is None else (given,)
    if isinstance(given, tuple | list):
        listeners = tuple(cast("Iterable[object]", given))
    for listener in listeners:
        if not callable(listener):
            raise ValueError(f"on_event must be callable, or several in a tuple, not {type(listener).__name__}")  # noqa: TRY004
    return cast("tuple[Callable[[Event], None], ...]", listeners)


@frozen(kw_only=True, repr=False)
class Settings:
    """Every knob, with its unit, its reason and its range. The defaults suit the live service."""

    tier: Tier = field(default="auto", validator=_check_tier)
    """The account's tier: sets both buckets. `auto` starts at the lowest and moves where the service's headers say."""
    limits: RateLimits | None = field(default=None, validator=_check_limits)
    """The buckets in numbers, over `tier`: for private gateways, or to leave room for other processes."""

    max_in_flight: int = field(default=2_000, validator=_number(1, 1_000_000, whole=True))
    """Tasks the service works on for us at once (1 to 1,000,000)."""
    max_connections: int = field(default=100, validator=_number(1, 10_000, whole=True))
    """Connections to the API open at once (1 to 10,000); files have `download_concurrency` of their own."""

    first_poll_s: float = field(default=5.0, validator=_number(_TINY, _DAY_S))
    """Wait before the first poll of a new task; the provider asks for about 5 s."""
    min_poll_interval_s: float = field(default=5.0, validator=_number(_TINY, _DAY_S))
    """Floor between two polls of one task; the provider asks for 5 s or more. Jitter only lengthens it."""
    poll_jitter: float = field(default=0.08, validator=_number(0, 1))
    """How much the wait for a task's first poll may be lengthened at random, as a fraction of `min_poll_interval_s`
    (0 to 1), so that tasks begun together are not all polled together. Later polls follow from the first."""
    max_task_age_s: float = field(default=3_600.0, validator=_number(_TINY, 7 * _DAY_S))
    """A task still unfinished after this is given to its waiters as `TaskOverdue`, and no longer watched."""
    vanish_grace_s: float = field(default=30.0, validator=_number(0, _DAY_S))
    """How long a task may answer 404 after having been seen, before its waiters get `TaskNotFound`."""

    prior: Learned | None = field(default=None, validator=_check_prior)
    """What an earlier session learned about how long requests take (`client.learned()`), to start warm."""

    submit_retry_s: float = field(default=120.0, validator=_number(0, _DAY_S))
    """How long a submission that was certainly not accepted (not sent, 429, limiter down) is tried again."""
    reconcile_window_s: float = field(default=30.0, validator=_number(_TINY, _DAY_S))
    """How long a submission that may have been accepted is looked up by its id before the service's "not found" is
    believed. "Never pay twice" is exact while a task can be found within this time of its submission."""
    uncertain_submits: Literal["resubmit", "raise"] = field(default="resubmit", validator=_check_uncertain)
    """What follows a whole window of "not found": send it again under the same id (at most three times, each after
    another window), or raise `SubmitUncertain` and leave the last step to the caller."""
    max_retry_after_s: float = field(default=300.0, validator=_number(_TINY, _DAY_S))
    """A longer `Retry-After` is cut to this."""
    close_grace_s: float = field(default=5.0, validator=_number(0, 3_600))
    """How long closing waits for submissions under way, so that their answers are not lost."""

    connect_timeout_s: float = field(default=10.0, validator=_number(_TINY, 3_600))
    """To open one connection, after its name was looked up."""
    read_timeout_s: float = field(default=30.0, validator=_number(_TINY, 3_600))
    """Longest silence while an answer or a file is awaited."""
    request_timeout_s: float = field(default=60.0, validator=_number(_TINY, 3_600))
    """A whole request, from waiting for a connection to the last byte of its answer."""
    download_timeout_s: float = field(default=300.0, validator=_number(_TINY, _DAY_S))
    """One attempt at one file."""

    max_answer_bytes: int = field(default=4 * 2**20, validator=_number(1_024, 2**30, whole=True))
    """A longer answer of the API is refused as unreadable."""
    max_file_bytes: int = field(default=64 * 2**20, validator=_number(1_024, 2**34, whole=True))
    """A larger image is refused (`DownloadFailed`)."""
    max_video_bytes: int = field(default=2**30, validator=_number(1_024, 2**40, whole=True))
    """A larger video is refused (`DownloadFailed`)."""
    download_concurrency: int = field(default=8, validator=_number(1, 1_000, whole=True))
    """Files fetched at once."""
    download_tries: int = field(default=8, validator=_number(1, 100, whole=True))
    """Attempts at one file before `DownloadFailed`."""
    allow_private_links: bool = field(default=False, validator=_check_bool)
    """Fetch files from loopback and private addresses, too, though the API is at neither. Off: a link from outside must
    not reach into the machine's own networks."""

    proxy: str | None = field(default=None, validator=_check_proxy, repr=False)
    """An http(s) proxy for every request, over HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the environment. May hold a
    password, so it is never shown."""
    webhook_secrets: tuple[str, ...] = field(default=(), converter=_as_tuple, validator=_check_secrets, repr=False)
    """The key's webhook secret, as text, or several in a tuple (both, for 24 h after a rotation): turns on
    `client.webhooks`. Never shown."""
    on_event: tuple[Callable[[Event], None], ...] = field(default=(), converter=_listeners)
    """Called on the loop with each record of `toapis_async.events`; must return at once. One callable, or several."""
    prices: Mapping[str, Decimal] = field(factory=dict[str, Decimal], converter=_prices, hash=False)
    """What an image or a video costs in credits, for budgets: by `model/resolution/quality` (of a video its length:
    `seedance-2/720p/5s`), `model/resolution`, `model`, or `*` for all others; the most exact counts. Where you state
    none, the service's own are asked for."""
    events_with_prompts: bool = False
    """Put prompts into events and log lines; off, since prompts are user data."""

    def __repr__(self) -> str:
        changed = (
            f"{a.name}={getattr(self, a.name)!r}"
            for a in fields(type(self))
            if a.repr and getattr(self, a.name) not in (a.default, {})
        )
        return f"Settings({', '.join(changed)})"

    @property
    def rate_limits(self) -> RateLimits:
        """The buckets in force."""
        return self.limits or TIERS["default" if self.tier == "auto" else self.tier]

    @property
    def adopts_tier(self) -> bool:
        """Whether the buckets follow the tier that the service's headers show."""
        return self.limits is None and self.tier == "auto"


@frozen
class Journal:
    """Where submissions are written down before they are sent, so that a later process can take up what this one left.

    `path` is a file, which one process at a time may use; or with `per_process`, or when it exists as a folder, a
    folder in which any number of processes of one machine share a journal. Each has its own submissions in it; those of
    a process that is gone are taken over by one that starts, or within a minute by one that runs.

    On a local disk: file locks on network disks can't be relied on.
    """

    path: Path = field(converter=Path)
    per_process: bool = field(default=False, kw_only=True)
    """Whether `path` is a folder, made if missing, for several processes."""
    same_account: bool = field(default=False, kw_only=True)
    """Accept a journal written with another key: this very account's, which was rotated since."""


@frozen
class Credentials:
    """Where the API is, the key for it, and the proxies on the way. The key is in no repr; only the transport reads
    it."""

    api_key: str = field(repr=False)
    base_url: str  #: the API's root, ending in /v1
    proxies: Proxies = field(factory=Proxies)

    @classmethod
    def resolve(cls, api_key: str | None, base_url: str | None) -> Credentials:
        """From the arguments, else from the environment as it is now: TOAPIS_API_KEY or the file that
        TOAPIS_API_KEY_FILE names, and TOAPIS_BASE_URL; HTTPS_PROXY, HTTP_PROXY and NO_PROXY.

        Raises `ClientStateError` when there is no usable key or address.
        """
        given: object = api_key if api_key is not None else os.environ.get("TOAPIS_API_KEY") or _key_in_file()
        if not isinstance(given, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ClientStateError(f"the API key must be text, not {type(given).__name__}")
        key = given.strip()
        if not key:
            raise ClientStateError(
                "no API key: set TOAPIS_API_KEY or TOAPIS_API_KEY_FILE (or pass api_key=…); an account at "
                f"{DEFAULT_BASE_URL} makes keys; or try without one on the sandbox (`toapis sandbox`, or --sandbox on "
                "the command line)"
            )
        if not key.isascii() or not key.isprintable() or not {*" \"'"}.isdisjoint(key):
            raise ClientStateError("the API key has characters that no key has (a pasted line break or quote?)")
        url = normalise_base_url(base_url or os.environ.get("TOAPIS_BASE_URL") or DEFAULT_BASE_URL)
        return cls(key, url, Proxies.from_environment())

    def account(self, salt: str) -> str:
        """All that a journal keeps of the key: enough to know it again, and useless to everybody else."""
        return hashlib.sha256(f"toapis-async {salt} {self.api_key}".encode()).hexdigest()[:32]

    def new_salt(self) -> str:
        """For a journal that has none."""
        return secrets.token_hex(16)


def _key_in_file() -> str:
    """What the file that TOAPIS_API_KEY_FILE names holds; empty without the variable."""
    path = os.environ.get("TOAPIS_API_KEY_FILE", "")
    if not path:
        return ""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_KEY_FILE_BYTES + 1).decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it holds no text"
        raise ClientStateError(f"can't read the API key from TOAPIS_API_KEY_FILE={path!r}: {reason}") from None
    if not content.strip() or len(content) > _MAX_KEY_FILE_BYTES:
        raise ClientStateError(f"TOAPIS_API_KEY_FILE={path!r} holds no key")
    return content


def normalise_base_url(text: str) -> str:
    """One spelling for `https://host`, `https://host/`, `https://host/v1`, `https://host/v1/` and an endpoint's whole
    address. Raises `ClientStateError` for what is no base URL."""
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:  # its words may quote a password
        raise ClientStateError(f"base_url is not a URL; it must be like {DEFAULT_BASE_URL}") from None
    if parts.scheme not in {"http", "https"} or not host or port == 0 or " " in text.strip():
        raise ClientStateError(f"base_url must be like {DEFAULT_BASE_URL}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ClientStateError("base_url must have no user, password, query or fragment")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ClientStateError(f"base_url: http:// would send the key in the clear to {host}; use https://")
    path = _ENDPOINT.sub("", parts.path.rstrip("/"))
    while path.endswith("/v1"):
        path = path.removesuffix("/v1").rstrip("/")
    authority = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{authority}{f':{port}' if port else ''}{path}/v1"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
