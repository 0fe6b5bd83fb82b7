"""What an answer to a submission means for the next step, and how long to wait before it."""

from __future__ import annotations

import enum
import math
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from toapis_async.errors import InsufficientQuota, ServiceError, TransportError

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from toapis_async.errors import ToAPIsError


class RefusalKind(enum.Enum):
    """What became of a submission that got an answer other than a task."""

    FINAL = enum.auto()  #: certainly not accepted; sending it again gets the same
    RETRYABLE = enum.auto()  #: certainly not accepted; sending it again after a pause may succeed
    UNCERTAIN = enum.auto()  #: may have been accepted; must not be sent again blindly


LIMITER_DOWN = "rate_limit_unavailable"
NO_CHANNEL = "model_not_found"


def refusal_kind(error: ServiceError | TransportError) -> RefusalKind:
    """The last column of the service's error table, as a function of the error that a submission got."""
    if isinstance(error, TransportError):
        if error.may_have_been_accepted:
            return RefusalKind.UNCERTAIN
        return RefusalKind.RETRYABLE if error.retryable else RefusalKind.FINAL
    if isinstance(error, InsufficientQuota):  # whatever the status it came with, 429 and 200 included
        return RefusalKind.FINAL
    if error.status == 429 or (error.status == 503 and error.code == LIMITER_DOWN):
        return RefusalKind.RETRYABLE
    if 300 <= error.status < 500 or (error.status == 503 and error.code == NO_CHANNEL):
        return RefusalKind.FINAL
    return RefusalKind.UNCERTAIN


def may_pass(error: ToAPIsError) -> bool:
    """Whether a query that ended in this error may get an answer when it is sent again a little later."""
    if isinstance(error, TransportError):
        return error.retryable
    if isinstance(error, ServiceError):
        is_passing = error.status == 429 or (error.status >= 500 and error.code != NO_CHANNEL)
        return is_passing and not isinstance(error, InsufficientQuota)
    return False


def retry_after_s(value: str | None, now_unix_s: float, cap_s: float) -> float | None:
    """A `Retry-After` header, seconds or an HTTP date, as seconds from now, 0 to `cap_s`; None if it is neither."""
    if not value:
        return None
    try:
        wait_s = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, TypeError, OverflowError):
            return None
        # A date without a zone is in UTC (RFC 5322's -0000), never in this machine's zone.
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        wait_s = moment.timestamp() - now_unix_s
    if math.isnan(wait_s):
        return None
    return min(max(wait_s, 0.0), cap_s)


def backoff_s(failures: int, *, base_s: float, cap_s: float, rng: random.Random, jitter: float = 0.5) -> float:
    """Exponential back-off after `failures` (1, 2, …) in a row, shortened at random by up to `jitter` of itself so that
    clients spread out."""
    return min(base_s * 2.0 ** min(failures - 1, 30), cap_s) * rng.uniform(1.0 - jitter, 1.0)


_LOOK_UP_GROWTH = 1.6
_FIRST_LOOK_UP = 1 / 60  #: of the window: half a second of 30


def look_up_gaps_s(window_s: float) -> Iterator[float]:
    """The waits before each look-up of an uncertain submission: growing, one of them ending with the window, and then
    as many again, for the case that the one at the end got no answer."""
    moment_s, gap_s = 0.0, window_s * _FIRST_LOOK_UP
    while moment_s + gap_s * _LOOK_UP_GROWTH < window_s:
        yield gap_s
        moment_s, gap_s = moment_s + gap_s, gap_s * _LOOK_UP_GROWTH
    yield window_s - moment_s
    yield from (window_s * share for share in (0.05, 0.1, 0.2, 0.3, 0.35))
