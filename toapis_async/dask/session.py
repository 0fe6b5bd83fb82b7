"""A run's hold on a Dask cluster: the connection, the desk's session, and parts as tasks."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, cast

import dask.config
from attrs import evolve
from distributed import Client, LocalCluster
from distributed.scheduler import KilledWorker

from toapis_async.batch.item import item_of
from toapis_async.batch.source import rows_of_frame
from toapis_async.dask.plugins import (
    Crew,
    DeskPlugin,
    Recipe,
    ask_desk,
    bound_as,
    crew_name,
    do_part,
    packed,
    service_prices,
    who_am_i,
)
from toapis_async.engine.desk.server import Opening
from toapis_async.errors import ClientStateError, InvalidRequest, ToAPIsError
from toapis_async.log import logger
from toapis_async.parts import iterated
from toapis_async.protocol.naming import slug

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from distributed.deploy.cluster import Cluster

    from toapis_async.batch.item import BatchItem
    from toapis_async.engine.journal.records import Record
    from toapis_async.parts import Part
    from toapis_async.protocol.pricing import ServicePrices
    from toapis_async.settings import Journal

WORKERS_S: Final = 60.0
"""How long a cluster without workers is waited for."""
WATCH_S: Final = 5.0
"""How often it is seen to that there are workers."""
LOST_S: Final = 300.0
"""How long Dask waits for a local worker that died to be back; by default 15 s, which a busy machine may need."""
CLOSE_S: Final = 20.0
"""How long closing waits for the workers' engines."""
ROUNDS: Final = 3
"""How often a part is handed out that Dask has given up on, which it does when four workers died with it."""
MOST_LOCAL: Final = 4
"""Worker processes on one machine, when no cluster is given."""

# Dask's own annotations say little of these.
_local_cluster: Any = LocalCluster
_client: Any = Client
_config: Any = dask.config


class ClusterSession:
    """One pass's. Made and closed by its `Bulk`."""

    def __init__(
        self, recipe: Recipe, cluster: str | Cluster | Client | None, *, journal: Journal | None, fresh: bool
    ) -> None:
        self._recipe = recipe
        self._name = recipe.session
        self._run = recipe.options.run
        self._cluster = cluster
        self._journal = journal
        self._fresh = fresh
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._local: Any = cluster if isinstance(cluster, LocalCluster) else None

    async def open(self) -> None:
        """Connect, and have the desk and the engines made. Raises `ClientStateError` when another driver is at the run,
        or a worker has no key, and `JournalError`."""
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _open(self) -> None:
        client = self._client = await self._connect()
        self._stack.push_async_callback(self._leave)
        try:
            await client.register_plugin(DeskPlugin())
            await client.register_plugin(Crew(self._recipe))
        except ImportError as error:
            raise ClientStateError(
                f"the cluster can't load this library ({error}): install toapis-async[dask] where its scheduler and "
                "its workers run"
            ) from error
        try:
            async with asyncio.timeout(WORKERS_S):
                account, base_url = await self._ask_a_worker(who_am_i, "account")
        except TimeoutError:
            raise ClientStateError(f"the Dask cluster had no worker for {WORKERS_S:g} s: start some") from None
        given = None if self._journal is None else str(self._journal.path)
        salt, path = cast("tuple[str, Path]", await ask_desk(client.scheduler, "salt", self._run, account, given))
        opening = Opening(
            session=self._name,
            driver=client.id,
            run=self._run,
            journal=path,
            account=account,
            salt=salt,
            bound_as=await self._ask_a_worker(bound_as, "journal", salt),
            same_account=self._journal is not None and self._journal.same_account,
            base_url=base_url,
            fresh=self._fresh,
        )
        refusal = await ask_desk(client.scheduler, "begin", opening)
        if refusal is not None:
            raise ClientStateError(str(refusal))
        if self._local is not None:
            self._stack.enter_context(_config.set({"distributed.deploy.lost-worker-timeout": LOST_S}))
        watching = asyncio.create_task(self._watch(), name="toapis-workers")
        self._stack.push_async_callback(asyncio.wait, [watching])
        self._stack.callback(watching.cancel)

    async def _connect(self) -> Any:
        cluster: Any = self._cluster
        if isinstance(cluster, Client):
            if cluster.status in {"closing", "closed"}:
                raise InvalidRequest("this Client is closed", field="cluster")
            if cluster.asynchronous:
                return await cluster
            scheduler: Any = cluster.scheduler
            client = _client(scheduler.address, security=cluster.security, asynchronous=True)
            return await self._stack.enter_async_context(client)
        if cluster is None:
            workers = min(os.cpu_count() or 1, MOST_LOCAL)
            local = _local_cluster(
                n_workers=workers, threads_per_worker=1, asynchronous=True, dashboard_address="127.0.0.1:0"
            )
            cluster = self._local = await self._stack.enter_async_context(local)
        elif not isinstance(cluster, str) and not cluster.asynchronous:  # it has a loop of its own
            client = _client(cluster.scheduler_address, security=cluster.security, asynchronous=True)
            return await self._stack.enter_async_context(client)
        return await self._stack.enter_async_context(_client(cluster, asynchronous=True))

    async def _watch(self) -> None:
        """Dask gives up a local worker that is not back some time after it died, and starts no other; and
        a run on a cluster without workers would wait without a word."""
        local, without_s = self._local, 0.0
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                if local is not None and local.worker_spec.keys() - local.workers.keys():
                    local.scale(len(local.worker_spec))
                has_workers = await ask_desk(self._client.scheduler, "workers")
            except Exception as error:  # nobody awaits this task; that the scheduler is gone, parts tell
                logger.debug("the cluster's workers could not be counted: %s", error)
                continue
            if has_workers:
                without_s = 0.0
                continue
            without_s += WATCH_S
            if without_s == WORKERS_S:
                logger.warning("the Dask cluster has had no worker for %g s: the run waits for some", without_s)

    async def rows_of(self, source: Any) -> AsyncGenerator[Any]:
        """The rows of a source; of a Dask bag or data frame a partition at a time, computed on the cluster."""
        if not hasattr(source, "to_delayed"):
            async for row in iterated(source):
                yield row
            return
        for partition in source.to_delayed():
            for row in rows_of_frame(await self._client.compute(partition)):
                yield row

    async def aclose(self) -> None:
        """Close the engines, the journal, and what was opened here."""
        await self._stack.aclose()

    async def _leave(self) -> None:
        """Close the engines, then the journal: what they noted at last is in it."""
        for leave in (
            lambda: self._client.unregister_worker_plugin(crew_name(self._name)),
            lambda: ask_desk(self._client.scheduler, "end", self._name),
        ):
            with suppress(Exception):  # the cluster may be gone
                async with asyncio.timeout(CLOSE_S):
                    await leave()

    async def stop(self) -> None:
        """Have the desk allow nothing more to be sent."""
        try:
            await ask_desk(self._client.scheduler, "stop", self._name)
        except Exception as error:  # nobody awaits this task
            logger.warning("the scheduler could not be told to stop: %s", error)

    async def _ask_a_worker(self, what: Any, name: str, *args: str) -> Any:
        return await self._client.submit(what, self._name, *args, key=f"toapis {name}-{self._name}", pure=False)

    async def prices(self) -> ServicePrices:
        """What the service charges the workers' key."""
        prices: ServicePrices = await self._ask_a_worker(service_prices, "prices")
        return prices

    async def paid_earlier(self) -> AsyncIterator[Record]:
        """The rows of the run that the service has charged, or may have."""
        after = 0
        while True:
            found: Any = await ask_desk(self._client.scheduler, "paid_page", self._name, after)
            if not found:
                return
            for record in found:
                yield record
            after = found[-1].number

    async def do(self, part: Part, name: str) -> list[BatchItem]:
        """Have a part done by the cluster, which does it again when a worker dies. A part that saw many of them die is
        mostly innocent, and is handed out anew; in the end its rows are tried one by one, so that what kills workers is
        found."""
        for time in range(1, ROUNDS + 1):
            items = await self._done(part, name if time == 1 else f"{name} for the {time}. time")
            if items is not None:
                return items
        if len(part.rows) == 1:
            return [item_of(part.rows[0], error=ToAPIsError("every worker that was given this row died"))]
        singles = (evolve(part, rows=(row,)) for row in part.rows)
        done = await asyncio.gather(*(self.do(each, f"row {each.rows[0].index}") for each in singles))
        return [item for items in done for item in items]

    async def _done(self, part: Part, name: str) -> list[BatchItem] | None:
        """A part's items; None when as many workers died of it as Dask allows."""
        key = f"toapis {slug(self._run)}-{self._name}-{name}"
        future = self._client.submit(do_part, packed(part), self._name, key, key=key, pure=False)
        try:
            return list(await future)
        except KilledWorker:
            logger.warning("several workers died while they had %s", name)
            return None
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise ClientStateError(
                "the Dask scheduler has gone, or was restarted: the same call takes the run up"
            ) from None
        finally:
            future.release()
