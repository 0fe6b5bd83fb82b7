"""Every error this library raises, in one tree that says who is to blame and what to do next.

    ToAPIsError
    ├── InvalidRequest (ValueError)        the caller: the request can't be right; nothing was sent
    ├── ClientStateError (RuntimeError)    the caller: the client is not open, belongs to another loop, ...
    │   └── SessionClosed                  the client was closed; carries the ids to attach again
    ├── TransportError                     the network: not sent, or the answer to a harmless query was lost
    ├── ServiceError                       the service said no (status, code, message)
    │   ├── AuthenticationFailed           401, and a 403 with an error object to a status query
    │   ├── InsufficientQuota              402, or any status with a quota code
    │   ├── TaskNotFound                   404, or "task_not_exist"
    │   ├── ContentRefused                 422
    │   ├── RateLimited                    429 (retry_after_s)
    │   └── UnreadableAnswer               an answer that can't be understood (place, text)
    ├── SubmitUncertain                    nobody knows whether the submission was accepted
    ├── TaskFailed                         the service gave the task up
    ├── TaskOverdue                        still unfinished after Settings.max_task_age_s
    ├── WaitTimeout (TimeoutError)         the caller's patience ended; the task still runs and is still paid for
    ├── DownloadFailed                     a file could not be fetched or saved (files, missing)
    │   └── LinkExpired                    its link is past the 24 hours
    ├── BudgetExceeded                     sending would pass the caller's budget
    ├── JournalError                       the journal can't be used
    │   └── JournalLocked                  another process has it open
    └── WebhookRejected                    an event that can't be trusted

All of them survive pickling and copying, with every attribute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from toapis_async.task import Billing


class ToAPIsError(Exception):
    """Base of everything raised here. `task_id` and `client_business_id` are set where a task is concerned."""

    task_id: str | None = None
    client_business_id: str | None = None

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own __reduce__ calls the class with `args` alone, which fails for keyword-only attributes.
        return _blank, (type(self), self.args), dict(self.__dict__)

    def concerning(self, task_id: str | None = None, client_business_id: str | None = None) -> Self:
        """Fill in the ids that are still missing, and return this very error."""
        self.task_id = self.task_id or task_id
        self.client_business_id = self.client_business_id or client_business_id
        return self


def _blank(cls: type[ToAPIsError], args: tuple[object, ...]) -> ToAPIsError:
    error = cls.__new__(cls, *args)
    error.args = args  # OSError's __new__ (WaitTimeout's) leaves them to an __init__ that is not run here
    return error


class InvalidRequest(ToAPIsError, ValueError):
    """The request can't be right. Nothing was sent; `field` names what to change."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ClientStateError(ToAPIsError, RuntimeError):
    """The client, a handle or a batch was used in a way its state does not allow."""


class SessionClosed(ClientStateError):
    """The client was closed while this was pending. Nothing is lost: `attach` the task ids again, `find` the others."""

    def __init__(self, message: str, *, task_ids: Iterable[str] = (), client_business_ids: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.task_ids: tuple[str, ...] = tuple(task_ids)
        self.client_business_ids: tuple[str, ...] = tuple(client_business_ids)


class TransportError(ToAPIsError):
    """The network failed.

    `may_have_been_accepted` is False when the request certainly never reached the service, and for a harmless
    query (a GET) whose answer was lost. `sent` counts how often it went out (0: it never did). `retryable` is False
    when trying again gets the same: a certificate nobody trusts or a name that does not exist, of a host that has not
    answered this client before, or a proxy that wants a login.
    """

    def __init__(
        self, message: str, *, may_have_been_accepted: bool = False, sent: int = 0, retryable: bool = True
    ) -> None:
        super().__init__(message)
        self.may_have_been_accepted = may_have_been_accepted
        self.sent = sent
        self.retryable = retryable


class ServiceError(ToAPIsError):
    """The service answered, and the answer is no. `status` is the HTTP status (2xx when the error stood in a good
    answer), `code` the service's own word, `request_id` what its support asks for, None when it told none;
    `retry_after_s` how many seconds to wait, where it said so."""

    request_id: str | None = None
    retry_after_s: float | None = None

    def __init__(self, message: str, *, status: int, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def __str__(self) -> str:
        details = [f"HTTP {self.status}"]
        if self.code:
            details.append(self.code)
        if self.request_id and self.request_id not in self.message:
            details.append(f"request id {self.request_id}")
        return f"{self.message} ({', '.join(details)})"


class AuthenticationFailed(ServiceError):
    """401: the key is missing, wrong or disabled. Also a 403 with an error object to a status query."""

    def __str__(self) -> str:
        return f"the service refuses the API key: {super().__str__()}"


class InsufficientQuota(ServiceError):
    """402, or any status with a quota code (`insufficient_quota`, `insufficient_user_quota`, `quota_not_enough`): the
    balance is too low for this request."""

    def __str__(self) -> str:
        return f"the balance is too low: {super().__str__()}"


class TaskNotFound(ServiceError):
    """404, or `task_not_exist` under another status: the service knows no such task."""

    def __str__(self) -> str:
        asked_id = self.task_id or self.client_business_id
        text = super().__str__()
        return text if not asked_id or asked_id in text else f"{text}: {asked_id}"


class ContentRefused(ServiceError):
    """422: the content policy refuses this request."""


class RateLimited(ServiceError):
    """429: too fast. `retry_after_s` is what the service asked for, None when it did not say."""

    def __init__(self, message: str, *, status: int = 429, code: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, status=status, code=code)
        self.retry_after_s = retry_after_s


class UnreadableAnswer(ServiceError):
    """An answer that can't be understood. `place` is where (`$.result.data[0].url`), `text` its shortened body."""

    def __init__(self, message: str, *, status: int, place: str = "$", text: str = "") -> None:
        super().__init__(f"{message} @ {place}", status=status, code="unreadable")
        self.place = place
        self.text = text

    @property
    def is_of_result(self) -> bool:
        """Whether the answer was that of a finished task, and only its result could not be read."""
        return self.place not in {"$", "$.id"}


class SubmitUncertain(ToAPIsError):
    """Nobody knows whether the service accepted the submission; ask `client.find(error.client_business_id)`."""

    def __init__(self, message: str, *, client_business_id: str) -> None:
        super().__init__(message)
        self.client_business_id: str = client_business_id  # pyright: ignore[reportIncompatibleVariableOverride]  (it is always known)


class TaskFailed(ToAPIsError):
    """The service gave the task up. `code` is open-ended; `billing` is what it said of a refund, if anything."""

    def __init__(
        self,
        message: str,
        *,
        task_id: str,
        client_business_id: str | None = None,
        code: str = "",
        billing: Billing | None = None,
    ) -> None:
        super().__init__(message)
        self.task_id: str = task_id  # pyright: ignore[reportIncompatibleVariableOverride]  (it is always known)
        self.client_business_id = client_business_id
        self.code = code
        self.message = message
        self.billing = billing

    def __str__(self) -> str:
        return f"task {self.task_id} failed: {self.message}{f' ({self.code})' if self.code else ''}"


class TaskOverdue(ToAPIsError):
    """The task is unfinished after `Settings.max_task_age_s`. It may still finish: `attach(error.task_id)` later."""

    def __init__(self, message: str, *, task_id: str, client_business_id: str | None = None) -> None:
        super().__init__(message)
        self.task_id: str = task_id  # pyright: ignore[reportIncompatibleVariableOverride]  (it is always known)
        self.client_business_id = client_business_id


class WaitTimeout(ToAPIsError, TimeoutError):
    """The caller's time-out passed. The service can't cancel a task: it still runs and is still paid for. `token` is
    what `client.attach` takes, in any process; None when the service had not taken the task yet."""

    def __init__(
        self,
        message: str,
        *,
        task_id: str | None = None,
        client_business_id: str | None = None,
        token: str | None = None,
    ) -> None:
        super().__init__(message)
        self.task_id = task_id
        self.client_business_id = client_business_id
        self.token = token


class DownloadFailed(ToAPIsError):
    """A file could not be fetched or saved. `url` is its link, which may work again until it expires.

    Each file of a generation is saved on its own: `files` are those that are there, in their order, and `missing` the
    numbers (from 1) of those that are not.
    """

    def __init__(
        self,
        message: str,
        *,
        url: str | None = None,
        files: Iterable[Path] = (),
        missing: Iterable[int] = (),
    ) -> None:
        super().__init__(message)
        self.url = url
        self.files: tuple[Path, ...] = tuple(files)
        self.missing: tuple[int, ...] = tuple(missing)


class LinkExpired(DownloadFailed):
    """The links of all missing files are past their 24 hours by their hosts' own clocks; the files are gone."""


class BudgetExceeded(ToAPIsError):
    """Sending this request would pass the budget; it was not sent."""


class JournalError(ToAPIsError):
    """The journal can't be used: damaged, another account's, or not ours."""


class JournalLocked(JournalError):
    """Another process has this journal open."""


class WebhookRejected(ToAPIsError):
    """An event that can't be trusted, read or taken. `status` is the HTTP status to answer it with: 401 for whatever is
    wrong with its signature, in one and the same text; 413 for a body that is too large; 400 for one that is no event;
    503 while there is no open client, and for one that could not be handed on to the process that has its task, so that
    the service comes again."""

    def __init__(self, message: str, *, status: int = 401) -> None:
        super().__init__(message)
        self.status = status
