"""Submissions under one id of the caller's own, without a journal: paid once for all who ask while it is under way."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING

from attrs import define

from toapis_async.engine.fingerprint import fingerprint
from toapis_async.engine.submission import Submission
from toapis_async.errors import InvalidRequest, SubmitUncertain

if TYPE_CHECKING:
    from toapis_async.engine.entry import Entry
    from toapis_async.engine.parts import Parts
    from toapis_async.protocol.budget import Budget
    from toapis_async.request import Request


@define(eq=False)
class _Live:
    """One submission, from its beginning to the end of its task."""

    digest: str
    fate: asyncio.Future[Entry | SubmitUncertain | None]
    """Its task; that nobody knows; or None: certainly not accepted."""


class InCommon:
    """The submissions of this process that are under way, by their ids. With a journal, that decides instead."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._live: dict[str, _Live] = {}

    async def submit(self, request: Request, client_business_id: str, budget: Budget | None) -> Entry:
        """The entry of the task of `request`: of one that was submitted under this id and has not ended, or a new one.

        Who comes while another's is unanswered waits for it, and gets its task, or its doubt; when it certainly was not
        accepted, the next sends its own. Raises `InvalidRequest` when the other is another request.
        """
        digest = (await fingerprint(request)).digest
        while (live := self._live.get(client_business_id)) is not None:
            if live.digest != digest:
                raise InvalidRequest(
                    f"client_business_id {client_business_id!r} is that of another request, which is under way: "
                    "take another id",
                    field="client_business_id",
                )
            await asyncio.wait([live.fate])
            fate = live.fate.result()
            if isinstance(fate, SubmitUncertain):
                raise copy.copy(fate)
            if fate is not None:
                return fate.current
        live = self._live[client_business_id] = _Live(digest, self._loop.create_future())
        submission = Submission(self._parts, request, client_business_id, budget=budget)
        try:
            entry = await submission.run()
        except BaseException as error:
            if submission.attempt is None:
                self._known(client_business_id, live, error)
            else:  # its caller was cancelled, and the client receives the answer
                submission.attempt.add_done_callback(
                    lambda left: self._known(client_business_id, live, left.exception() or left.result())
                )
            raise
        self._known(client_business_id, live, entry)
        return entry

    def _known(self, client_business_id: str, live: _Live, outcome: Entry | BaseException) -> None:
        """Tell those who wait. It is kept while its task runs."""
        if not isinstance(outcome, BaseException):
            live.fate.set_result(outcome)
        else:
            live.fate.set_result(outcome if isinstance(outcome, SubmitUncertain) else None)
        if isinstance(outcome, BaseException) or outcome.current.ended:
            del self._live[client_business_id]

    def ended(self, entry: Entry) -> None:
        """The task of an entry has ended, or its watch: who comes now submits anew."""
        live = self._live.get(entry.client_business_id or "")
        if live is None or not live.fate.done():
            return
        fate = live.fate.result()
        if fate is not None and not isinstance(fate, SubmitUncertain) and fate.current is entry:
            del self._live[entry.client_business_id or ""]
