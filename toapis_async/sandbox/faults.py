"""Faults on demand: what can go wrong, and the plan that says for which request it does.

For every request a plan gives the faults of that request, from a script (first come, first served) or by
chance (drawn from the seed, the request's subject and how often that subject came: the
same whatever the order of arrival).
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, get_args

Kind = Literal["submit", "query", "upload", "balance", "models", "pricing", "file", "event", "unknown"]
"""What a request is for: an endpoint of the API, a `file`, an `event` on its way to a receiver, or none of these."""
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


class Fault(StrEnum):
    """Every fault there is. "Accepted" means: handled in full (recorded, charged) before it goes wrong."""

    # The connection
    DROPPED = "dropped"  # closed without an answer; nothing was recorded
    DROPPED_RESET = "dropped_reset"  # the same with a TCP reset
    LOST_ANSWER = "lost_answer"  # accepted, then closed without an answer
    LOST_ANSWER_RESET = "lost_answer_reset"  # the same with a TCP reset
    BREAKS_OFF = "breaks_off"  # accepted; the body ends in the middle, short of its Content-Length
    SLOW = "slow"  # accepted; the answer comes late: SLOW.lasting(30) seconds, divided by the speed
    # Answers instead of the right one
    RATE_LIMITED = "rate_limited"  # 429, not accepted; RATE_LIMITED.lasting(7) sets Retry-After
    LIMITER_DOWN = "limiter_down"  # 503 rate_limit_unavailable, not accepted
    QUOTA_403 = "quota_403"  # too low a balance as 403 insufficient_user_quota, not accepted
    MODEL_FORBIDDEN = "model_forbidden"  # 403: the key may not use the model
    FAIL_TO_FETCH = "fail_to_fetch"  # 400 fail_to_fetch_task: a real person in a reference; the reason is JSON as text
    PRICING_UNAVAILABLE = "pricing_unavailable"  # 503 pricing_unavailable
    UNAUTHORIZED = "unauthorized"  # 401 in the form seen in the field: empty code, type new_api_error
    ERROR_500 = "error_500"  # 500 internal_error, not accepted
    ERROR_500_ACCEPTED = "error_500_accepted"
    HTML_502 = "html_502"  # a gateway's page of hundreds of kB, not accepted
    HTML_502_ACCEPTED = "html_502_accepted"
    HTML_503 = "html_503"
    HTML_503_ACCEPTED = "html_503_accepted"
    HTML_504 = "html_504"
    HTML_504_ACCEPTED = "html_504_accepted"
    HTML_524 = "html_524"
    HTML_524_ACCEPTED = "html_524_accepted"
    REDIRECT = "redirect"  # 307; of the API to another path, of a file to the same file
    NOT_FOUND = "not_found"  # 404 this once: the next query finds the task (or file) again
    NOT_EXIST = "not_exist"  # the same as 400 {"message": "task_not_exist"}
    SUCCESS_FALSE = "success_false"  # HTTP 200 {"success": false, "message": …}, nothing stored
    # The right answer, written another way. On "submit" these stick to the task: all its status answers have
    # them
    TRUNCATED_JSON = "truncated_json"  # accepted; a whole HTTP answer whose JSON ends in the middle (this answer only)
    NUMERIC_CODES = "numeric_codes"  # error codes as numbers: 404 with type not_found_error, 402 payment_required …
    EMPTY_CODES = "empty_codes"  # error codes as ""
    FINISHED_AT_ONCE = "finished_at_once"  # the task is completed when it is accepted, and the answer has its result
    CREATED_201 = "created_201"  # the submission is answered 201 (this answer only)
    TASK_ID_FOR_ID = "task_id_for_id"
    TASK_ID_BESIDE_ID = "task_id_beside_id"  # id names something else that can't be queried, and object is "video"
    WITHOUT_METADATA = "without_metadata"
    STATUS_SUBMITTED = "status_submitted"  # these five replace the status of an unfinished task
    STATUS_PENDING = "status_pending"
    STATUS_PROCESSING = "status_processing"
    STATUS_UNKNOWN = "status_unknown"  # a word nobody documented: "rendering"
    STATUS_EMPTY = "status_empty"  # "", as seen on videos
    RESULT_TOP_URL = "result_top_url"  # {"url": …}
    RESULT_TOP_DATA = "result_top_data"  # {"data": [{"url": …}]}
    RESULT_OUTPUT_STRINGS = "result_output_strings"  # {"output": [url, …]} and so on
    RESULT_OUTPUT_OBJECTS = "result_output_objects"
    RESULT_OUTPUTS_STRINGS = "result_outputs_strings"
    RESULT_OUTPUTS_OBJECTS = "result_outputs_objects"
    RESULT_IMAGES_STRINGS = "result_images_strings"
    RESULT_IMAGES_OBJECTS = "result_images_objects"
    RESULT_EXTRA_FIELDS = "result_extra_fields"  # result.data[] with size, output_format, z_index
    # The task itself. On "submit" at its appointed time, on "query" at once
    TASK_FAILS = "task_fails"  # error {"code": "generation_failed", "message": …}, refunded
    TASK_FAILS_FAIL_REASON = "task_fails_fail_reason"  # as a fail_reason text
    TASK_FAILS_ERROR_TEXT = "task_fails_error_text"  # as error: "text"
    TASK_FAILS_MESSAGE = "task_fails_message"  # no error, a top-level message
    TASK_FAILS_AT_100 = "task_fails_at_100"  # at progress 100, with an upstream's code
    TASK_VANISHES = "task_vanishes"  # 404 from now on; the ledger keeps it
    TASK_VANISHES_400 = "task_vanishes_400"  # the same as 400 {"message": "task_not_exist"}
    BILL_PENDING = "bill_pending"  # its bill stays pending for good, whatever becomes of it
    FILES_EXPIRE = "files_expire"  # completed, and its files are gone that moment instead of a day later
    # Events on their way to a receiver, which can also be DROPPED (lost for good) or SLOW (late)
    DUPLICATED = "duplicated"  # sent twice

    def lasting(self, seconds: float) -> TimedFault:
        """This fault with a duration, in seconds of the service's time (divided by the sandbox's speed)."""
        if self not in TIMED:
            raise ValueError(f"Fault.{self.name} has no duration")
        return TimedFault(self, seconds)


@dataclass(frozen=True, slots=True)
class TimedFault:
    """A fault and how long it lasts; made by `Fault.SLOW.lasting(…)`."""

    fault: Fault
    seconds: float


Step = Fault | TimedFault | tuple[Fault | TimedFault, ...] | None
"""What happens to one request: nothing, one fault, or several together."""
Drawn = dict[Fault, float | None]
"""The faults of one request, each with its duration when it was given one."""

TIMED: Final = frozenset({Fault.SLOW, Fault.RATE_LIMITED})
DEFAULT_SLOW_S: Final = 30.0
HTML_PAGES: Final = {
    fault: (int(fault.value[5:8]), fault.value.endswith("_accepted"))
    for fault in Fault
    if fault.value.startswith("html_")
}
STATUS_WORDS: Final = {
    Fault.STATUS_SUBMITTED: "submitted",
    Fault.STATUS_PENDING: "pending",
    Fault.STATUS_PROCESSING: "processing",
    Fault.STATUS_UNKNOWN: "rendering",
    Fault.STATUS_EMPTY: "",
}
FAILURES: Final = frozenset(fault for fault in Fault if fault.value.startswith("task_fails"))
VANISHINGS: Final = frozenset({Fault.TASK_VANISHES, Fault.TASK_VANISHES_400})
OF_EVENTS: Final = frozenset({Fault.DROPPED, Fault.SLOW, Fault.DUPLICATED})
_RESULT_SHAPES = frozenset(fault for fault in Fault if fault.value.startswith("result_"))
STICKY: Final = (
    FAILURES
    | VANISHINGS
    | _RESULT_SHAPES
    | frozenset(STATUS_WORDS)
    | {
        Fault.NUMERIC_CODES,
        Fault.EMPTY_CODES,
        Fault.TASK_ID_FOR_ID,
        Fault.TASK_ID_BESIDE_ID,
        Fault.WITHOUT_METADATA,
        Fault.FILES_EXPIRE,
        Fault.BILL_PENDING,
    }
)
"""Faults that, drawn by a submission, become traits of its task."""

_CODES = {Fault.NUMERIC_CODES, Fault.EMPTY_CODES}
_API_ONLY = {Fault.TRUNCATED_JSON, Fault.UNAUTHORIZED, *_CODES}
_SUBMIT_ONLY = (
    Fault.LIMITER_DOWN, Fault.FILES_EXPIRE, Fault.BILL_PENDING, Fault.CREATED_201, Fault.FINISHED_AT_ONCE,
    Fault.QUOTA_403, Fault.MODEL_FORBIDDEN, Fault.FAIL_TO_FETCH,
)  # fmt: skip
_ONLY_AT: Final[dict[Fault, frozenset[Kind]]] = {
    **dict.fromkeys(STICKY - _CODES, frozenset[Kind]({"submit", "query"})),
    **dict.fromkeys(_API_ONLY, frozenset[Kind]({"submit", "query", "upload", "balance", "models", "pricing"})),
    **dict.fromkeys(_SUBMIT_ONLY, frozenset[Kind]({"submit"})),
    Fault.PRICING_UNAVAILABLE: frozenset({"pricing"}),
    Fault.DUPLICATED: frozenset({"event"}),
    Fault.NOT_FOUND: frozenset({"query", "file"}),
    Fault.NOT_EXIST: frozenset({"query"}),
    Fault.SUCCESS_FALSE: frozenset({"upload", "balance"}),
}


class FaultPlan:
    """Which request meets which fault.

    Examples:
        >>> plan = FaultPlan()
        >>> plan.script("submit", Fault.LOST_ANSWER, None, Fault.RATE_LIMITED.lasting(2))
        >>> [list(plan.draw("submit")) for _ in range(4)]
        [[<Fault.LOST_ANSWER: 'lost_answer'>], [], [<Fault.RATE_LIMITED: 'rate_limited'>], []]
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._scripts: dict[tuple[Kind, str | None], deque[Step]] = {}
        self._chances: list[tuple[Kind, Fault | TimedFault, float]] = []
        self._seen: Counter[tuple[Kind, str]] = Counter()
        self.drawn: Counter[tuple[Kind, Fault]] = Counter()
        """How often each fault really happened."""

    def script(self, kind: Kind, *steps: Step, about: str | None = None) -> None:
        """Queue steps for the next requests of a kind, one step a request; `None` lets one pass.

        With `about`, only requests about that subject consume them: a submission's `client_business_id` or
        prompt, a query's task id or `client_business_id`, a file's task id or name. Such scripts go first.
        """
        for step in steps:
            for fault in _faults_of(step):
                check_applies(kind, fault)
        self._scripts.setdefault((kind, about), deque()).extend(steps)

    def chance(self, kind: Kind, fault: Fault | TimedFault, probability: float) -> None:
        """Let a fault meet requests of a kind with this probability, when no script has a step for them."""
        check_applies(kind, fault.fault if isinstance(fault, TimedFault) else fault)
        if not 0 <= probability <= 1:
            raise ValueError(f"a probability lies between 0 and 1, not at {probability}")
        self._chances.append((kind, fault, probability))

    @property
    def scripts(self) -> tuple[tuple[Kind, str | None, tuple[Step, ...]], ...]:
        """The steps that wait: kind, what they are about, and what will happen."""
        return tuple((kind, about, tuple(steps)) for (kind, about), steps in self._scripts.items() if steps)

    @property
    def chances(self) -> tuple[tuple[Kind, Fault | TimedFault, float], ...]:
        """What happens now and then: kind, fault, probability."""
        return tuple(self._chances)

    def clear(self) -> None:
        """Forget all scripts and chances; what was drawn stays counted."""
        self._scripts.clear()
        self._chances.clear()

    def reset(self) -> None:
        """As it was when made: `clear`, and nothing was drawn yet."""
        self.clear()
        self.drawn.clear()
        self._seen.clear()

    def pending(self, kind: Kind) -> int:
        """Scripted steps of a kind that no request has consumed yet."""
        return sum(len(steps) for (of, _), steps in self._scripts.items() if of == kind)

    def draw(self, kind: Kind, subjects: tuple[str, ...] = ()) -> Drawn:
        """The faults of the next request of this kind; consumes a step of a script."""
        step, scripted = self._scripted(kind, subjects)
        drawn = _drawn(step) if scripted else self._by_chance(kind, subjects[0] if subjects else "")
        self.drawn.update((kind, fault) for fault in drawn)
        return drawn

    def _scripted(self, kind: Kind, subjects: tuple[str, ...]) -> tuple[Step, bool]:
        for about in (*subjects, None):
            steps = self._scripts.get((kind, about))
            if steps:
                return steps.popleft(), True
        return None, False

    def _by_chance(self, kind: Kind, subject: str) -> Drawn:
        wanted = [(fault, probability) for of, fault, probability in self._chances if of == kind]
        if not wanted:
            return {}
        occurrence = self._seen[kind, subject]
        self._seen[kind, subject] += 1
        drawn: Drawn = {}
        for index, (fault, probability) in enumerate(wanted):
            if uniform(self._seed, "fault", kind, subject, occurrence, index) < probability:
                drawn |= _drawn(fault)
        return drawn


def check_applies(kind: Kind, fault: Fault) -> None:
    """Refuse a fault that could never show at requests of this kind."""
    if kind not in KINDS:
        raise ValueError(f"no requests of kind {kind!r}; there are {', '.join(KINDS)}")
    if kind == "event" and fault not in OF_EVENTS:
        raise ValueError(f"Fault.{fault.name} means nothing at 'event', which may be {', '.join(sorted(OF_EVENTS))}")
    allowed = _ONLY_AT.get(fault)
    if allowed is not None and kind not in allowed:
        raise ValueError(f"Fault.{fault.name} means nothing at {kind!r}, only at {', '.join(sorted(allowed))}")


def uniform(*parts: object) -> float:
    """A number in (0, 1), always the same for the same parts."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return (int.from_bytes(digest) + 0.5) / 2**64


def _faults_of(step: Step) -> list[Fault]:
    return list(_drawn(step))


def _drawn(step: Step) -> Drawn:
    if step is None:
        return {}
    if isinstance(step, TimedFault):
        return {step.fault: step.seconds}
    if isinstance(step, Fault):
        return {step: None}
    drawn: Drawn = {}
    for part in step:
        drawn |= _drawn(part)
    return drawn
