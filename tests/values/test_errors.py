"""One tree of errors, all of which travel."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from toapis_async import errors
from toapis_async.errors import (
    AuthenticationFailed,
    BudgetExceeded,
    ClientStateError,
    ContentRefused,
    DownloadFailed,
    InsufficientQuota,
    InvalidRequest,
    JournalError,
    JournalLocked,
    LinkExpired,
    RateLimited,
    ServiceError,
    SessionClosed,
    SubmitUncertain,
    TaskFailed,
    TaskNotFound,
    TaskOverdue,
    ToAPIsError,
    TransportError,
    UnreadableAnswer,
    WaitTimeout,
    WebhookRejected,
)
from toapis_async.task import Billing

if TYPE_CHECKING:
    from collections.abc import Callable

REFUND = Billing("refunded", Decimal("174.6"))
EXAMPLES: tuple[tuple[ToAPIsError, dict[str, object]], ...] = (
    (ToAPIsError("m"), {}),
    (InvalidRequest("m", field="size"), {"field": "size"}),
    (InvalidRequest("m"), {"field": None}),
    (ClientStateError("m"), {}),
    (
        SessionClosed("m", task_ids=iter(["a", "b"]), client_business_ids=["c"]),
        {"task_ids": ("a", "b"), "client_business_ids": ("c",)},
    ),
    (TransportError("m", may_have_been_accepted=True, sent=2), {"may_have_been_accepted": True, "sent": 2}),
    (ServiceError("m", status=500, code="c"), {"status": 500, "code": "c", "message": "m"}),
    (AuthenticationFailed("m", status=401, code="c"), {"status": 401, "code": "c", "message": "m"}),
    (InsufficientQuota("m", status=402), {"status": 402, "code": "", "message": "m"}),
    (TaskNotFound("m", status=404, code="c"), {"status": 404, "code": "c", "message": "m"}),
    (ContentRefused("m", status=422, code="c"), {"status": 422, "code": "c", "message": "m"}),
    (RateLimited("m", code="c", retry_after_s=1.5), {"status": 429, "code": "c", "retry_after_s": 1.5}),
    (
        UnreadableAnswer("m", status=200, place="$.url", text="{"),
        {"status": 200, "code": "unreadable", "place": "$.url", "text": "{", "message": "m @ $.url"},
    ),
    (SubmitUncertain("m", client_business_id="b"), {"client_business_id": "b", "task_id": None}),
    (
        TaskFailed("m", task_id="t", client_business_id="b", code="c", billing=REFUND),
        {"task_id": "t", "client_business_id": "b", "code": "c", "message": "m", "billing": REFUND},
    ),
    (TaskOverdue("m", task_id="t", client_business_id="b"), {"task_id": "t", "client_business_id": "b"}),
    (WaitTimeout("m", task_id="t", client_business_id="b"), {"task_id": "t", "client_business_id": "b"}),
    (DownloadFailed("m", url="https://x"), {"url": "https://x"}),
    (LinkExpired("m", url="https://x"), {"url": "https://x"}),
    (BudgetExceeded("m"), {}),
    (JournalError("m"), {}),
    (JournalLocked("m"), {}),
    (WebhookRejected("m"), {"status": 401}),
    (WebhookRejected("m", status=413), {"status": 413}),
)
CLASSES: set[type[BaseException]] = {
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == errors.__name__
}


def through_pickle(error: ToAPIsError) -> ToAPIsError:
    again: ToAPIsError = pickle.loads(pickle.dumps(error))  # noqa: S301
    return again


def tree_of(docstring: str) -> dict[str, str | None]:
    """Each class of the drawn tree with the class it hangs from."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in docstring.splitlines():
        if match := re.match(r"^    ((?:│   |    )*)(├── |└── )?(\w+)", line):
            depth = len(match[1]) // 4 + bool(match[2])
            path = [*path[:depth], match[3]]
            parents[match[3]] = path[depth - 1] if depth else None
    return parents


def test_the_tree_drawn_in_the_docstring_is_the_tree() -> None:
    drawn = tree_of(errors.__doc__ or "")
    ours = {cls.__name__: [base.__name__ for base in CLASSES.intersection(cls.__bases__)] for cls in CLASSES}
    assert {name: [parent] if parent else [] for name, parent in drawn.items()} == ours


def test_every_class_has_an_example_here() -> None:
    assert {type(error) for error, _ in EXAMPLES} == CLASSES


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [(InvalidRequest, ValueError), (ClientStateError, RuntimeError), (WaitTimeout, TimeoutError)],
)
def test_an_error_is_the_builtin_that_people_catch(cls: type[ToAPIsError], builtin: type[Exception]) -> None:
    assert issubclass(cls, builtin)
    assert [c for c in CLASSES if issubclass(c, builtin) and not issubclass(c, cls)] == []
    assert f"{cls.__name__} ({builtin.__name__})" in (errors.__doc__ or "")


@pytest.mark.parametrize(("error", "attributes"), EXAMPLES)
def test_an_error_has_its_attributes(error: ToAPIsError, attributes: dict[str, object]) -> None:
    assert {name: getattr(error, name) for name in attributes} == attributes


@pytest.mark.parametrize("travel", [through_pickle, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("error", [error for error, _ in EXAMPLES])
def test_an_error_travels_with_all_it_knows(error: ToAPIsError, travel: Callable[[ToAPIsError], ToAPIsError]) -> None:
    error = copy.copy(error).concerning("task", "business")
    error.add_note("a note")
    again = travel(error)
    assert again is not error
    assert type(again) is type(error)
    assert again.__dict__ == error.__dict__
    assert again.args == error.args == (error.args[0],)
    assert str(again) == str(error) != ""
    assert repr(again) == repr(error)
    assert again.task_id == (error.task_id or "task")
    assert again.__notes__ == ["a note"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ServiceError("too fast", status=429, code="slow"), "too fast (HTTP 429, slow)"),
        (ServiceError("hm", status=500), "hm (HTTP 500)"),
        (TaskFailed("no", task_id="t", code="c"), "task t failed: no (c)"),
        (TaskFailed("no", task_id="t"), "task t failed: no"),
        (
            UnreadableAnswer("expected text", status=200, place="$.url"),
            "expected text @ $.url (HTTP 200, unreadable)",
        ),
        (WaitTimeout("patience ended"), "patience ended"),
    ],
)
def test_an_error_says_what_happened_in_a_line(error: ToAPIsError, text: str) -> None:
    assert str(error) == text


def test_ids_are_filled_in_but_never_replaced() -> None:
    error = ToAPIsError("m")
    assert (error.task_id, error.client_business_id) == (None, None)
    assert error.concerning("t") is error
    error.concerning("other", "b").concerning("other", "other")
    assert (error.task_id, error.client_business_id) == ("t", "b")
    assert ToAPIsError("m").task_id is None


@pytest.mark.parametrize("cls", [type(error) for error, _ in EXAMPLES])
def test_a_class_says_what_it_means_and_takes_its_details_by_name(cls: type[ToAPIsError]) -> None:
    assert cls.__doc__
    if "__init__" in vars(cls):
        _message, *details = inspect.signature(cls).parameters.values()
        assert {parameter.kind for parameter in details} == {inspect.Parameter.KEYWORD_ONLY}
