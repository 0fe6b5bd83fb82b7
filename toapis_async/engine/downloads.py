"""Files on the way down: each of a generation on its own, checked, and named only when it is whole."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, Unpack

import anyio

from toapis_async.engine.connections import FAILURES
from toapis_async.engine.limiter import Gate, Permits, Priority
from toapis_async.engine.part import Part, TooLarge, Unfit, is_saved
from toapis_async.engine.remotefile import Passing, RemoteFile
from toapis_async.engine.renewal import Renewal
from toapis_async.engine.threads import in_thread
from toapis_async.errors import DownloadFailed, LinkExpired, TransportError
from toapis_async.events import FileFailed, FileSaved
from toapis_async.protocol.links import LINK_LIFE, answered_at, decode_data, is_data
from toapis_async.protocol.naming import file_stem, plain_stem
from toapis_async.protocol.refusals import error_of
from toapis_async.protocol.retry import backoff_s, retry_after_s
from toapis_async.task import GeneratedImage

if TYPE_CHECKING:
    import os
    import random
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    import aiohttp

    from toapis_async.engine.emitter import Emitter
    from toapis_async.engine.renewal import Link
    from toapis_async.engine.transport import Transport
    from toapis_async.models import Generation
    from toapis_async.settings import Settings

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_NOT_YET: Final = frozenset({202, 204, 404, 408, 416, 425, 429})
"""With those from 500 on: what another attempt may mend."""
_RENEWALS: Final = 2
"""How often a refused link is queried anew at once: the first answer may be one that another file has had."""
_GONE: Final = frozenset({403, 404, 410})


class Downloads:
    """Fetches and saves files, a few at once. Never sends the key."""

    def __init__(
        self,
        transport: Transport,
        settings: Settings,
        rng: random.Random,
        emit: Emitter,
        links_now: Callable[[Generation], Awaitable[Sequence[Link]]],
    ) -> None:
        """`links_now` queries a generation's links anew."""
        self._links_now = links_now
        self._transport = transport
        self._settings = settings
        self._rng = rng
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._turns = Gate(Permits(settings.download_concurrency))
        self.saved: int = 0
        self.saved_bytes: int = 0

    async def save(
        self,
        generation: Generation,
        folder: str | os.PathLike[str],
        stem: str | None = None,
        *,
        have: Collection[str] = (),
        known_since: float | None = None,
        then: Callable[[Path], Awaitable[str]] | None = None,
    ) -> tuple[Path, ...]:
        """Every file of a generation in `folder`, named `stem` (else the task's id), numbered if there are several.

        A relative `folder` is taken from the working directory of this moment; the paths begin as it does. Files whose
        names are in `have`, and which are there, are not fetched again. `known_since` (Unix seconds) is when an earlier
        process wrote down that the task is completed: it tells a link that has died from one that is refused where the
        host sends no `Date`. `then` is awaited with each file that was fetched, and returns where that is now; one for
        which it raises `DownloadFailed` counts as missing.

        Raises `DownloadFailed` when some can't be had; its `files` are those that are there nevertheless, its `missing`
        the numbers of the others. It is `LinkExpired` when the missing ones are certainly gone from the service.
        """
        name = stem or file_stem(generation.task_id)
        ids = (generation.task_id, generation.client_business_id)
        count = len(generation.files)
        if not count:
            text = f"the service called the task completed but named no file{_reason(generation)}"
            raise DownloadFailed(text).concerning(*ids)
        try:
            base = _absolute(folder)
        except OSError as error:  # the working directory is gone
            raise DownloadFailed(f"can't save the image: {error.strerror}").concerning(*ids) from error
        targets = [base / (f"{name}-{number}" if count > 1 else name) for number in range(1, count + 1)]
        kept: dict[Path, Path | DownloadFailed] = await in_thread(_kept, targets, have) if have else {}
        renewal = Renewal(partial(self._links_now, generation))
        fetches = {
            target: self._fetch(ids, self._file(generation, number, target, known_since, renewal), then)
            for number, target in enumerate(targets)
            if target not in kept
        }
        ended = kept | await _all_ended(fetches)
        return _paths(Path(folder), [ended[target] for target in targets], ids)

    def _file(
        self, generation: Generation, number: int, target: Path, known_since: float | None, renewal: Renewal
    ) -> RemoteFile:
        link, renew = generation.files[number], partial(renewal.link, number, len(generation.files))
        limit_name = "max_file_bytes" if isinstance(link, GeneratedImage) else "max_video_bytes"
        part = Part(target, getattr(self._settings, limit_name))
        return RemoteFile(link.url, generation.completed_at, link.expires_at, known_since, part, limit_name, renew)

    async def _fetch(
        self, ids: tuple[str, str | None], file: RemoteFile, then: Callable[[Path], Awaitable[str]] | None
    ) -> Path:
        started_s = self._loop.time()
        try:
            try:
                path = await self._tried(file)
            except DownloadFailed:
                if not await file.renewed():
                    raise
                path = await self._tried(file)
            where = str(path) if then is None else await then(path)
        except DownloadFailed as error:
            self._emit(FileFailed, *ids, type(error).__name__, file.attempts, self._loop.time() - started_s)
            raise
        else:
            self.saved += 1
            self.saved_bytes += file.part.size_bytes
            took_s = self._loop.time() - started_s
            self._emit(FileSaved, *ids, where, file.part.size_bytes, file.attempts, took_s)
            return path
        finally:
            if file.part.is_on_disk:
                await _discard(file.part)

    async def _tried(self, file: RemoteFile) -> Path:
        """Attempts at a link until one succeeds, or `download_tries` are over."""
        tries = 0
        while True:
            tries += 1
            try:
                return await self._attempt(file)
            except Passing as error:
                if tries >= self._settings.download_tries:
                    raise DownloadFailed(f"{error} (tried {tries} times)", url=file.link) from None
                wait_s = backoff_s(tries, base_s=0.5, cap_s=30.0, rng=self._rng, jitter=error.jitter)
                with anyio.move_on_after(max(wait_s, error.wait_s)):
                    await self._transport.closed.wait()  # then there is no next attempt to wait for

    async def _attempt(self, file: RemoteFile) -> Path:
        if is_data(file.url):
            file.attempts += 1
            return await _on_disk(file, _finish_data, file)
        await self._turns.acquire(Priority.URGENT if _closes_soon(file) else Priority.ORDINARY)
        try:
            while True:
                try:
                    return await self._exchange(file)
                except (Passing, DownloadFailed):
                    # In this turn: a link may live shorter than it takes to wait for another.
                    if file.renewals >= _RENEWALS or not await file.renewed():
                        raise
        finally:
            self._turns.give_back()

    async def _exchange(self, file: RemoteFile) -> Path:
        file.attempts += 1
        file.is_refused = False
        try:
            async with self._transport.download(file.url, file.range_headers()) as response:
                self._check_status(response, file)
                return await self._receive(response, file)
        except TransportError as error:
            raise Passing(f"could not fetch the file: {error}") from None
        except FAILURES as error:
            raise Passing(f"the file broke off: {self._transport.lost(error)}") from None

    def _check_status(self, response: aiohttp.ClientResponse, file: RemoteFile) -> None:
        status = response.status
        if status in {200, 206}:
            return
        message = f"the file host answered HTTP {status}"
        file.is_refused = status in {400, 401} | _GONE
        if status in _GONE:
            answered = answered_at(response.headers.get("Date"))
            if file.is_over(answered):
                raise LinkExpired(
                    f"{message}: the link has expired (files live 24 hours); the file is gone from the service",
                    url=file.link,
                )
            if status != 410 and file.is_fresh(answered):
                raise Passing(message, jitter=0.0)
        if status == 416:
            file.part.restart()
        if status in _NOT_YET or status >= 500:
            cap_s = self._settings.max_retry_after_s
            raise Passing(message, retry_after_s(response.headers.get("Retry-After"), time.time(), cap_s))
        raise DownloadFailed(message, url=file.link)

    async def _receive(self, response: aiohttp.ClientResponse, file: RemoteFile) -> Path:
        part = file.part
        file.begin(response.status, response.headers, response.content_length)
        async for chunk in response.content.iter_any():
            part.add(chunk)
            if part.size_bytes > part.limit_bytes:
                raise file.too_large()
            if part.is_full:
                await _on_disk(file, part.flush)
        if part.size_bytes < (file.total_bytes or 0):
            raise Passing("the host sent a part of the file only")
        tells_its_end = response.content_length is not None or "Transfer-Encoding" in response.headers
        return await _on_disk(file, _finish, file, response.content_type, tells_its_end)


def _finish(file: RemoteFile, content_type: str, is_complete: bool) -> Path:
    try:
        return file.part.finish(content_type, is_complete=is_complete)
    except TooLarge:
        raise file.too_large() from None
    except Unfit as error:
        file.part.restart()
        raise Passing(str(error)) from None


def _finish_data(file: RemoteFile) -> Path:
    """Save what a `data:` link holds."""
    try:
        label, content = decode_data(file.url)
    except ValueError as error:
        raise DownloadFailed(f"the data in the answer can't be read: {error}", url=file.link) from None
    if len(content) > file.part.limit_bytes:
        raise file.too_large()
    file.part.add(content)
    try:
        return file.part.finish(label, is_complete=True)
    except TooLarge:
        raise file.too_large() from None
    except Unfit as error:
        raise DownloadFailed(str(error), url=file.link) from None


async def _all_ended(fetches: Mapping[Path, Awaitable[Path]]) -> dict[Path, Path | DownloadFailed]:
    """Let all of them end, side by side, and tell how each did. Raises what is no `DownloadFailed`, after their end.

    A caller that is cancelled cancels them, and goes on when they have cleaned up.
    """
    if len(fetches) == 1:  # the usual case needs no task of its own
        [(target, fetch)] = fetches.items()
        try:
            return {target: await fetch}
        except DownloadFailed as error:
            return {target: error}
    outcomes = await asyncio.gather(*fetches.values(), return_exceptions=True)
    ended: dict[Path, Path | DownloadFailed] = {}
    for target, outcome in zip(fetches, outcomes, strict=True):
        if not isinstance(outcome, Path | DownloadFailed):
            raise outcome
        ended[target] = outcome
    return ended


def _absolute(folder: str | os.PathLike[str]) -> Path:
    """The folder wherever the working directory moves to. Links in it stay, and nothing of it need exist."""
    return Path(folder).absolute()


def _kept(targets: Sequence[Path], have: Collection[str]) -> dict[Path, Path | DownloadFailed]:
    """Which of the targets are there already, under which names. Blocks."""
    names = {name.rpartition(".")[0]: name for name in have if Path(name).name == name}
    found = {target: names.get(target.name) or names.get(plain_stem(target.name)) for target in targets}
    paths = {target: target.with_name(name) for target, name in found.items() if name is not None}
    return {target: path for target, path in paths.items() if is_saved(path)}


def _paths(folder: Path, outcomes: Sequence[Path | DownloadFailed], ids: tuple[str, str | None]) -> tuple[Path, ...]:
    """The files, in their order, or the one error for those that are missing."""
    files = tuple(folder / outcome.name for outcome in outcomes if isinstance(outcome, Path))
    failed = {number: each for number, each in enumerate(outcomes, 1) if isinstance(each, DownloadFailed)}
    if not failed:
        return files
    numbers: dict[str, list[str]] = {}
    for number, error in failed.items():
        numbers.setdefault(str(error), []).append(str(number))
    reasons = [f"{', '.join(each)} of {len(outcomes)}: {reason}" for reason, each in numbers.items()]
    first = next(iter(failed.values()))
    kind = LinkExpired if all(isinstance(error, LinkExpired) for error in failed.values()) else DownloadFailed
    message = f"file {'; '.join(reasons)}" if len(outcomes) > 1 else str(first)
    raise kind(message, url=first.url, files=files, missing=failed).concerning(*ids) from first


def _reason(generation: Generation) -> str:
    """What the service says beside a result without files."""
    reasons = (error_of(generation.raw.get(name)) for name in ("error", "fail_reason", "message"))
    return next((f": {error.message}" for error in reasons if error is not None), "")


def _closes_soon(file: RemoteFile) -> bool:
    """Whether a link has lived half of its day: such downloads go first."""
    return file.expires_at is not None and file.expires_at - datetime.now(UTC) < LINK_LIFE / 2


async def _on_disk(file: RemoteFile, act: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]) -> T:
    """Run a blocking step; its errors are the disk's, not the network's, and are not retried."""
    try:
        return await in_thread(act, *args)
    except (Passing, DownloadFailed):
        raise
    except Exception as error:  # also a NUL in a name (ValueError), or no thread to be had (RuntimeError)
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DownloadFailed(f"can't save the file: {reason}", url=file.link) from error


async def _discard(part: Part) -> None:
    try:
        await in_thread(part.discard)
    except RuntimeError:  # no thread to be had, and why the file can't be saved is told already
        part.discard()
