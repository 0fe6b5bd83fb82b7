"""What a later session does with what an earlier one wrote down: single submissions, callers who go, and closing."""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from toapis_async import (
    BudgetExceeded,
    ClientStateError,
    ContentRefused,
    InvalidRequest,
    JournalError,
    JournalLocked,
    SessionClosed,
    SubmitUncertain,
    TaskFailed,
    TaskNotFound,
    TaskOverdue,
    ToAPIs,
)
from toapis_async.engine.fingerprint import fingerprint
from toapis_async.engine.journal import records as journal_records
from toapis_async.engine.journal.records import State
from toapis_async.engine.journal.writer import JournalWriter
from toapis_async.engine.poller import Poller

from ..engine.journal_kit import ADDRESS, journal_threads, leave, no_thread_left, opened, record, state_of
from ..engine.kit import KEY, FakeService, Hold, answer, fast, lost, refusal, task, turns, until
from .events import SECRET, deliver, event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROW = {"prompt": "kite", "client_business_id": "mine"}
CHANGED = {**ROW, "prompt": "another kite"}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    with no_thread_left():
        yield tmp_path / "journal.sqlite"


@pytest.fixture(autouse=True)
def quick(service: FakeService) -> None:
    service.service_time_s = 0.02


def client_of(path: Path | None, **settings: Any) -> ToAPIs:
    return ToAPIs(KEY, base_url=ADDRESS, settings=fast(**settings), journal=path)


# ------------------------------------------------------------------------------------------- one submission


async def test_from_intent_to_outcome_everything_is_written_down(service: FakeService, path: Path) -> None:
    async with client_of(path) as client:
        handle = await client.submit(ROW)
        await handle
    known = record(path, "mine")
    assert known is not None
    assert (known.state, known.task_id, known.query_id) == (State.COMPLETED, "task_1", "task_1")
    assert json.loads(known.intent.request) == {**ROW, "model": "gpt-image-2-vip"}
    assert json.loads(known.answer or "")["result"]["data"] == [{"url": "https://files.example/a.png"}]
    assert known.accepted_at is not None
    assert known.ended_at is not None
    assert known.intended_at <= known.accepted_at <= known.ended_at


async def test_the_intent_is_on_disk_before_the_post(service: FakeService, path: Path) -> None:
    async with client_of(path) as client:
        hold = Hold()
        service.on_submit.append(hold)
        submitting = asyncio.create_task(client.submit(ROW))
        await hold.reached.wait()
        other = sqlite3.connect(path)
        assert other.execute("SELECT client_business_id, state FROM submission").fetchall() == [("mine", "intent")]
        other.close()
        hold.answer(answer(200, task()))
        await submitting


async def test_what_may_be_tried_again_is_withdrawn_and_what_may_not_is_refused(
    service: FakeService, path: Path
) -> None:
    service.on_submit.extend([refusal(402, "insufficient_quota"), refusal(401), refusal(429), refusal(422, "policy")])
    async with client_of(path) as client:
        for business_id in ("poor", "strange", "hasty", "rude"):
            with pytest.raises(Exception, match="no"):
                await client.submit({"prompt": "kite", "client_business_id": business_id})
    states = {business_id: state_of(path, business_id) for business_id in ("poor", "strange", "hasty", "rude")}
    assert states == {
        "poor": State.WITHDRAWN,
        "strange": State.WITHDRAWN,
        "hasty": State.WITHDRAWN,
        "rude": State.REFUSED,
    }


async def test_a_lost_answer_stays_an_intent(service: FakeService, path: Path) -> None:
    service.on_submit.append(lost())
    async with client_of(path) as client:
        with pytest.raises(SubmitUncertain):
            await client.submit(ROW)
    assert state_of(path, "mine") is State.INTENT


async def test_what_a_bug_of_ours_ends_stays_an_intent(service: FakeService, path: Path) -> None:
    service.on_submit.append(KeyError("a bug"))
    async with client_of(path) as client:
        with pytest.raises(KeyError):
            await client.submit(ROW)
    assert state_of(path, "mine") is State.INTENT


async def test_without_an_id_of_its_own_yesterdays_picture_never_answers(service: FakeService, path: Path) -> None:
    for _ in range(2):
        async with client_of(path) as client:
            await client.generate("kite")
            await client.generate("kite")
    assert len(service.of("submit")) == len(service.tasks) == 4


# ------------------------------------------------------------------------------------------- an id of the caller's own


@pytest.mark.parametrize("row", [ROW, {"prompt": "kite", "extra": {"client_business_id": "mine"}}])
async def test_completed_it_is_given_without_a_question(service: FakeService, path: Path, row: Any) -> None:
    leave(path, "mine", row, State.COMPLETED)
    async with client_of(path) as client:
        generation = await client.generate(row)
        assert client.statistics().in_flight == 0
    assert (generation.task_id, generation.client_business_id) == ("task_1", "mine")
    assert [image.url for image in generation.images] == ["https://files.example/a.png"]
    assert service.seen == []


async def test_failed_it_fails_without_a_question(service: FakeService, path: Path) -> None:
    leave(path, "mine", ROW, State.FAILED)
    async with client_of(path) as client:
        with pytest.raises(TaskFailed, match="no luck") as caught:
            await client.generate(ROW)
        assert caught.value.code == "bad"
        with pytest.raises(InvalidRequest, match=r"another request, which failed: take another id"):
            await client.generate(CHANGED)
    assert service.seen == []


async def test_accepted_it_is_watched_again_at_once_and_paid_no_more(service: FakeService, path: Path) -> None:
    leave(path, "mine", ROW, State.ACCEPTED)
    service.accept(ROW)
    async with client_of(path, first_poll_s=30, max_in_flight=1) as client:
        one, two = await asyncio.gather(client.submit(ROW), client.submit(ROW))
        assert (await one).task_id == (await two).task_id == "task_1"
        await client.submit("its permit came back")
    assert len(service.of("submit")) == 1
    assert state_of(path, "mine") is State.COMPLETED


@pytest.mark.parametrize("state", [State.WITHDRAWN, State.REFUSED])
@pytest.mark.parametrize("row", [ROW, CHANGED])
async def test_certainly_not_accepted_it_is_sent_under_its_id(
    service: FakeService, path: Path, state: State, row: Any
) -> None:
    leave(path, "mine", ROW, state)
    async with client_of(path) as client:
        await client.generate(row)
    assert [seen.body["client_business_id"] for seen in service.of("submit")] == ["mine"]
    assert service.queries("mine") == []
    assert state_of(path, "mine") is State.COMPLETED


async def test_an_intent_is_looked_up_before_anything_is_sent(service: FakeService, path: Path) -> None:
    leave(path, "mine", ROW, State.INTENT)
    service.accept(ROW)
    async with client_of(path) as client:
        assert (await client.generate(ROW)).task_id == "task_1"
        assert client.statistics().adopted == 1
    assert service.of("submit") == []
    known = record(path, "mine")
    assert known is not None
    assert (known.state, known.task_id, known.query_id) == (State.COMPLETED, "task_1", "mine")


async def test_an_intent_that_nobody_knows_is_sent_after_a_whole_window(service: FakeService, path: Path) -> None:
    leave(path, "mine", ROW, State.INTENT)
    async with client_of(path, uncertain_submits="resubmit") as client:
        await client.generate(ROW)
    assert [seen.kind for seen in service.seen][:8] == ["query"] * 8
    assert len(service.of("submit")) == 1
    first, sent = service.seen[0], service.of("submit")[0]
    assert sent.at_s - first.at_s >= 0.02 * 0.9


async def test_an_intent_that_nobody_knows_is_left_to_the_caller_when_asked_so(
    service: FakeService, path: Path
) -> None:
    leave(path, "mine", ROW, State.INTENT)
    async with client_of(path) as client:
        with pytest.raises(SubmitUncertain, match="an earlier process ended"):
            await client.generate(ROW)
    assert service.of("submit") == []
    assert state_of(path, "mine") is State.INTENT


async def test_an_intent_that_is_refused_after_its_window_is_written_down_as_such(
    service: FakeService, path: Path
) -> None:
    leave(path, "mine", ROW, State.INTENT)
    service.on_submit.append(refusal(422))
    async with client_of(path, uncertain_submits="resubmit") as client:
        with pytest.raises(ContentRefused):
            await client.generate(ROW)
    assert state_of(path, "mine") is State.REFUSED


async def test_no_budget_keeps_an_intent_from_being_looked_up_and_it_counts(service: FakeService, path: Path) -> None:
    leave(path, "mine", ROW, State.INTENT)
    service.accept({"prompt": "kite", "client_business_id": "mine"})
    settings = fast(prices={"*": 2})
    async with ToAPIs(KEY, base_url=ADDRESS, settings=settings, journal=path, budget_credits=1) as client:
        assert (await client.submit(ROW)).task_id == "task_1"
        with pytest.raises(BudgetExceeded, match="of which 2 are spent or reserved"):
            await client.submit("next")
    assert service.of("submit") == []


@pytest.mark.parametrize(
    ("state", "name"), [(State.INTENT, "mine"), (State.ACCEPTED, "task task_1"), (State.COMPLETED, "task task_1")]
)
async def test_another_request_under_an_id_that_may_be_paid_for_is_refused(
    service: FakeService, path: Path, state: State, name: str
) -> None:
    leave(path, "mine", ROW, state)
    async with client_of(path) as client:
        with pytest.raises(
            InvalidRequest, match=f"changed since it was sent as {name}: .*client_business_id"
        ) as caught:
            await client.generate(CHANGED)
    assert caught.value.client_business_id == "mine"
    assert service.seen == []
    assert state_of(path, "mine") is state


async def test_two_at_once_under_one_id_are_paid_once(service: FakeService, path: Path) -> None:
    service.latency_s = 0.005
    async with client_of(path) as client:
        handles = await asyncio.gather(*(client.submit(ROW) for _ in range(5)))
        assert {(await handle).task_id for handle in handles} == {"task_1"}
        with pytest.raises(InvalidRequest, match="changed since it was sent"):
            await client.submit(CHANGED)
    assert len(service.of("submit")) == 1


async def test_one_who_comes_while_an_abandoned_post_is_under_way_waits_for_its_answer(
    service: FakeService, path: Path
) -> None:
    async with client_of(path) as client:
        hold = Hold()
        service.on_submit.append(hold)
        first = asyncio.create_task(client.submit(ROW))
        await hold.reached.wait()
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(client.submit(ROW))
        await asyncio.sleep(0.05)  # longer than the window of look-ups
        assert not second.done()
        hold.answer(service.accept(ROW))
        assert (await second).task_id == "task_1"
        assert client.unclaimed() == ()
        await second.result()
    assert len(service.of("submit")) == 1
    assert service.queries("mine") == []


async def test_one_whose_turn_does_not_come_leaves_the_id_free(service: FakeService, path: Path) -> None:
    async with client_of(path) as client:
        hold = Hold()
        service.on_submit.append(hold)
        first, second = (asyncio.create_task(client.submit(ROW)) for _ in range(2))
        await hold.reached.wait()
        second.cancel()
        await asyncio.wait([second])
        third = asyncio.create_task(client.submit(ROW))
        hold.answer(refusal(429))
        with pytest.raises(Exception, match="no"):
            await first
        await third
    assert len(service.tasks) == 1


# ------------------------------------------------------------------------------------------- recovered


async def test_recovered_are_the_unfinished_and_unsaved_plain_submissions_the_same_at_every_call(
    service: FakeService, path: Path
) -> None:
    leave(path, "running", "a", State.ACCEPTED, task_id="task_1")
    leave(path, "doubtful", "b", State.INTENT)
    leave(path, "row", "c", State.ACCEPTED, task_id="task_3", run="r")
    for number, state in enumerate((State.COMPLETED, State.FAILED, State.WITHDRAWN, State.REFUSED)):  # long ago
        leave(path, f"ended {number}", "d", state, task_id=f"ended {number}")
    service.accept({"prompt": "a", "client_business_id": "running"})
    service.accept({"prompt": "b", "client_business_id": "doubtful"})
    async with client_of(path) as client:
        handles = client.recovered()
        assert [handle.client_business_id for handle in handles] == ["running", "doubtful"]
        results = await asyncio.gather(*handles)
        assert [generation.client_business_id for generation in results] == ["running", "doubtful"]
        assert [handle.client_business_id for handle in client.recovered()] == ["running", "doubtful"]
        await asyncio.gather(*client.recovered())
    known = record(path, "doubtful")
    assert known is not None
    assert known.state is State.COMPLETED
    assert known.task_id is not None
    assert service.of("submit") == []
    async with client_of(path) as client:  # finished meanwhile, and nobody has their pictures
        unsaved = client.recovered()
        assert [(handle.task_id, handle.done, handle.snapshot) for handle in unsaved] == [
            ("task_1", True, None),
            ("task_2", True, None),
        ]
        assert client.statistics().recoverable == 2
        assert (await unsaved[0]).images == results[0].images
        assert [snapshot.status async for snapshot in unsaved[1].updates()] == ["completed"]
        unsaved[0].acknowledge()
        (await unsaved[1]).acknowledge()
        assert (await client.generate({"prompt": "b", "client_business_id": "other"})).task_id == "task_3"
    async with client_of(path) as client:
        assert [handle.task_id for handle in client.recovered()] == ["task_3"]


async def test_what_was_recovered_answers_its_id_from_then_on(service: FakeService, path: Path) -> None:
    leave(path, "mine", ROW, State.INTENT)
    service.accept(ROW)
    async with client_of(path) as client:
        [handle] = client.recovered()
        await handle
    async with client_of(path) as client:
        assert (await client.generate(ROW)).client_business_id == "mine"
    assert service.of("submit") == []


async def test_updates_of_a_recovered_one_begin_with_how_it_stands(service: FakeService, path: Path) -> None:
    leave(path, "mine", ROW, State.ACCEPTED)
    service.on_query.extend([answer(200, task()), answer(200, task()), answer(200, task(status="completed"))])
    async with client_of(path) as client:
        [handle] = client.recovered()
        assert [snapshot.status async for snapshot in handle.updates()] == ["queued", "completed"]


async def test_what_the_service_never_took_is_not_found_and_withdrawn(service: FakeService, path: Path) -> None:
    leave(path, "mine", ROW, State.INTENT)
    async with client_of(path) as client:
        [handle] = client.recovered()
        with pytest.raises(TaskNotFound):
            await handle
    assert state_of(path, "mine") is State.WITHDRAWN
    assert service.of("submit") == []


async def test_an_intent_is_withdrawn_only_after_a_whole_window(service: FakeService, path: Path) -> None:
    leave(path, "mine", ROW, State.INTENT)
    async with client_of(path, reconcile_window_s=60, vanish_grace_s=0) as client:
        [handle] = client.recovered()
        with pytest.raises(TaskNotFound):
            await handle
    assert state_of(path, "mine") is State.INTENT


async def test_an_intent_that_was_seen_and_vanished_was_accepted(service: FakeService, path: Path) -> None:
    leave(path, "mine", ROW, State.INTENT)
    service.on_query.append(answer(200, task("task_1", client_business_id="mine")))
    async with client_of(path) as client:
        [handle] = client.recovered()
        with pytest.raises(TaskNotFound):
            await handle
    assert state_of(path, "mine") is State.INTENT


async def test_an_accepted_one_that_vanished_stays_accepted(service: FakeService, path: Path) -> None:
    leave(path, "mine", ROW, State.ACCEPTED)
    async with client_of(path) as client:
        with pytest.raises(TaskNotFound):
            await client.generate(ROW)
    assert state_of(path, "mine") is State.ACCEPTED


async def test_a_task_that_is_watched_already_is_shared_and_takes_no_second_permit(
    service: FakeService, path: Path
) -> None:
    leave(path, "accepted", {**ROW, "client_business_id": "accepted"}, State.ACCEPTED, task_id="task_1")
    leave(path, "intent", {**ROW, "client_business_id": "intent"}, State.INTENT)
    leave(path, "plain", "kite", State.ACCEPTED, task_id="task_3")
    for business_id in ("accepted", "intent", "plain"):
        service.accept({**ROW, "client_business_id": business_id})
    service.service_time_s = 60
    hold = Hold()
    service.on_submit.append(hold)
    async with client_of(path, max_in_flight=1) as client:
        holding = asyncio.create_task(client.submit("holds the permit"))
        await hold.reached.wait()
        resuming = [
            asyncio.create_task(client.submit({**ROW, "client_business_id": business_id}))
            for business_id in ("accepted", "intent")
        ]
        await until(lambda: client.statistics().waiting == len(resuming))
        attached = [client.attach(f"task_{number}") for number in (1, 2, 3)]
        assert {handle.task_id for handle in client.recovered()} == {"task_1", "intent", "task_3"}
        hold.answer(refusal(422))
        with pytest.raises(ContentRefused):
            await holding
        handles = [await each for each in resuming]
        assert [handle.task_id for handle in handles] == ["task_1", "task_2"]
        assert client.statistics().in_flight == 3
        service.service_time_s = 0
        assert {(await handle).task_id for handle in (*handles, *attached)} == {"task_1", "task_2", "task_3"}
        await client.generate("the permit came back")
    assert len(service.of("submit")) == 2


# ------------------------------------------------------------------------------------------- ends that are none


async def test_the_end_of_a_session_is_no_outcome(service: FakeService, path: Path) -> None:
    service.service_time_s = 60
    async with client_of(path) as client:
        handle = await client.submit(ROW)
        await until(lambda: handle.status == "in_progress")
    with pytest.raises(SessionClosed):
        await handle
    assert state_of(path, "mine") is State.ACCEPTED


async def test_an_overdue_task_is_no_outcome_and_is_taken_up_again(service: FakeService, path: Path) -> None:
    service.service_time_s = 60
    async with client_of(path, max_task_age_s=0.03) as client:
        with pytest.raises(TaskOverdue):
            await client.generate(ROW)
        journal = client._used_engine().journal
        assert journal is not None
        await journal.flush()  # notes are written without waiting
        assert state_in(path) == ["accepted"]
        service.service_time_s = 0
        await client.generate(ROW)
    assert len(service.of("submit")) == 1


def state_in(path: Path) -> list[str]:
    """The states in a journal that is in use."""
    other = sqlite3.connect(path)
    states = [state for (state,) in other.execute("SELECT state FROM submission ORDER BY id")]
    other.close()
    return states


async def test_a_completed_task_without_a_link_is_asked_for_again_by_the_next_session(
    service: FakeService, path: Path
) -> None:
    empty = task("task_1", "completed", result={"data": []})
    service.on_query.extend([answer(200, empty)] * 6)
    async with client_of(path) as client:
        assert (await client.generate(ROW)).images == ()
    assert len(service.of("query")) == 6
    assert state_of(path, "mine") is State.ACCEPTED
    async with client_of(path) as client:
        assert len((await client.generate(ROW)).images) == 1
    assert len(service.of("submit")) == 1


@pytest.mark.parametrize("word", ["SUCCESS", "a word we do not know"])
async def test_what_an_event_told_is_given_again_as_it_was(service: FakeService, path: Path, word: str) -> None:
    service.service_time_s = 60
    async with client_of(path, webhook_secrets=SECRET) as client:
        handle = await client.submit(ROW)
        await deliver(client, event(handle.task_id, "mine", status=word))
        first = await handle
    async with client_of(path) as client:
        again = await client.generate(ROW)
    assert (again.images, again.created_at, again.completed_at) == (first.images, first.created_at, first.completed_at)
    assert again.completed_at is not None
    assert len(again.images) == 1


async def test_an_answer_too_deep_to_be_written_down_is_given_all_the_same(
    service: FakeService, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_deep(_: object) -> str:
        raise RecursionError

    monkeypatch.setattr("toapis_async.engine.journal.resume.json", SimpleNamespace(dumps=too_deep))
    async with client_of(path, max_in_flight=1) as client:
        await client.generate(ROW)
        await client.submit("next")
    assert state_of(path, "mine") is State.ACCEPTED


async def test_closing_over_many_tasks_reads_none_of_their_answers(
    service: FakeService, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.service_time_s = 60
    client = await client_of(path).start()
    handles = [await client.submit(f"kite {number}") for number in range(100)]
    await until(lambda: all(handle.status == "in_progress" for handle in handles))
    read = Mock()
    monkeypatch.setattr("toapis_async.engine.entry.decode_task", read)
    await client.aclose()
    read.assert_not_called()
    with opened(path) as journal:
        assert len(journal_records.recoverable(journal.connection, 0.0)[0]) == 100


async def test_a_task_from_elsewhere_is_nothing_for_the_journal(service: FakeService, path: Path) -> None:
    service.accept({"prompt": "x"})
    async with client_of(path) as client:
        await client.attach("task_1")
    with opened(path) as journal:
        assert journal.connection.execute("SELECT count(*) FROM submission").fetchone() == (0,)


# ------------------------------------------------------------------------------------------- callers who go


@pytest.fixture
def slow_commits(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Intents are on disk, and their submissions learn of it when the event is set."""
    free = asyncio.Event()
    intend = JournalWriter.intend

    async def slow(self: JournalWriter, intent: Any) -> None:
        await intend(self, intent)
        await free.wait()

    monkeypatch.setattr(JournalWriter, "intend", slow)
    return free


async def test_cancelled_while_its_intent_is_committed_nothing_is_sent(
    service: FakeService, path: Path, slow_commits: asyncio.Event
) -> None:
    async with client_of(path, max_in_flight=1) as client:
        submitting = asyncio.create_task(client.submit(ROW))
        await until(lambda: state_in(path) == ["intent"])
        level = client.statistics().submit.level
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        assert client.statistics().submit.level > level  # the token came back
        assert client.unclaimed() == ()
        slow_commits.set()
        await client.submit("next")
    assert state_of(path, "mine") is State.WITHDRAWN
    assert len(service.of("submit")) == 1


async def test_a_poller_that_ends_by_a_bug_while_an_intent_is_looked_up_leaves_it_in_doubt(
    service: FakeService, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise KeyError("a bug")

    leave(path, "mine", ROW, State.INTENT)
    async with client_of(path, reconcile_window_s=5) as client:
        service.service_time_s = 60
        await client.submit("watched")
        submitting = asyncio.create_task(client.submit(ROW))
        await until(lambda: service.queries("mine"))
        monkeypatch.setattr(Poller, "_report", bug)
        with pytest.raises(SubmitUncertain) as caught:
            await submitting
        assert isinstance(caught.value.__cause__, SessionClosed)
    assert state_of(path, "mine") is State.INTENT


async def test_cancelled_in_every_turn_it_is_a_cancellation_and_is_paid_at_most_once(
    service: FakeService, path: Path
) -> None:
    for turn in range(40):
        business_id = f"b{turn}"
        async with client_of(path, max_in_flight=1) as client:
            submitting = asyncio.create_task(client.submit({**ROW, "client_business_id": business_id}))
            for _ in range(turn):
                await asyncio.sleep(0.0002)
            submitting.cancel()
            await asyncio.wait([submitting])
            if submitting.cancelled():
                with pytest.raises(asyncio.CancelledError):
                    submitting.result()
            await client.generate({**ROW, "client_business_id": business_id})
            await client.submit(f"next {turn}")  # its permit came back
        paid = [made for made in service.tasks.values() if made.client_business_id == business_id]
        assert len(paid) == 1


async def test_closed_while_an_intent_is_committed_nothing_is_sent(
    service: FakeService, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await client_of(path).start()
    put_intent = journal_records.put_intent
    closings: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()

    def closing_meanwhile(*args: Any) -> None:
        put_intent(*args)
        asyncio.run_coroutine_threadsafe(begin_to_close(), loop).result(10)

    async def begin_to_close() -> None:
        closings.append(asyncio.create_task(client.aclose()))
        await turns(3)

    monkeypatch.setattr(journal_records, "put_intent", closing_meanwhile)
    with pytest.raises(SessionClosed):
        await client.submit(ROW)
    await closings[0]
    assert service.seen == []
    assert state_of(path, "mine") is State.WITHDRAWN


async def test_who_asks_the_journal_of_a_closed_client_is_told_that_it_is_closed(
    service: FakeService, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = asyncio.Event()

    async def slow(request: Any) -> Any:
        await read.wait()
        return await fingerprint(request)

    monkeypatch.setattr("toapis_async.engine.submitter.fingerprint", slow)
    client = await client_of(path).start()
    submitting = asyncio.create_task(client.submit(ROW))
    await asyncio.sleep(0)
    await client.aclose()
    read.set()
    with pytest.raises(SessionClosed):
        await submitting


async def test_a_full_disk_sends_nothing_and_names_each_its_own_id(
    service: FakeService, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    put_intent = journal_records.put_intent
    async with client_of(path, max_in_flight=3) as client:
        monkeypatch.setattr(journal_records, "put_intent", full)
        ids = ("one", "two", "three")
        tries = [client.submit({**ROW, "client_business_id": business_id}) for business_id in ids]
        errors = await asyncio.gather(*tries, return_exceptions=True)
        assert all(isinstance(error, JournalError) for error in errors)
        assert tuple(getattr(error, "client_business_id", None) for error in errors) == ids
        assert service.seen == []
        monkeypatch.setattr(journal_records, "put_intent", put_intent)
        await asyncio.gather(*(client.generate({**ROW, "client_business_id": business_id}) for business_id in ids))


# ------------------------------------------------------------------------------------------- opening and closing


async def test_two_clients_cannot_share_a_journal(service: FakeService, path: Path) -> None:
    async with client_of(path):
        second = client_of(path)
        with pytest.raises(JournalLocked, match="process"):
            await second.start()
    async with second:  # it may be tried again
        await second.generate(ROW)


@pytest.mark.parametrize("step", ["open", "recoverable"])
async def test_a_start_that_is_cancelled_leaves_no_lock(
    service: FakeService, path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    reached = asyncio.Event()
    real = getattr(JournalWriter, step)

    async def slow(*args: Any) -> Any:
        outcome = await real(*args)
        reached.set()
        if step == "recoverable":
            await asyncio.Event().wait()
        return outcome

    client = client_of(path)
    with monkeypatch.context() as patched:
        patched.setattr(JournalWriter, step, slow)
        starting = asyncio.create_task(client.start())
        if step == "recoverable":
            await reached.wait()
        else:
            await until(path.exists)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert journal_threads() == []
    async with client:
        await client.generate(ROW)


async def test_an_engine_that_cannot_be_made_leaves_no_lock(
    service: FakeService, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(path)
    with monkeypatch.context() as patched:
        patched.setattr("toapis_async.engine.core.Poller", None)
        with pytest.raises(TypeError):
            await client.start()
    async with client:
        pass


async def test_closed_while_it_opens_it_is_closed(service: FakeService, path: Path) -> None:
    client = client_of(path)
    starting = asyncio.create_task(client.start())
    await until(path.exists)
    await client.aclose()
    with pytest.raises(SessionClosed, match="while it was being opened"):
        await starting
    with pytest.raises(ClientStateError):
        await client.start()
    async with client_of(path):
        pass


async def test_a_closing_that_is_cut_short_frees_the_lock(
    service: FakeService, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await client_of(path).start()

    class Broken:
        async def aclose(self) -> None:
            raise RuntimeError("a bug")

    assert client._engine is not None
    client._engine.dependents.add(Broken())
    with pytest.raises(RuntimeError):
        await client.aclose()
    client._engine._polling.cancel()
    await until(lambda: not journal_threads())
    async with client_of(path):
        pass


async def test_a_client_that_is_dropped_frees_the_lock(service: FakeService, path: Path) -> None:
    client = await client_of(path).start()
    await client.generate(ROW)
    with pytest.warns(ResourceWarning, match="unclosed client"):  # noqa: PT031  (both are the dropping)
        del client
        gc.collect()
    await until(lambda: not journal_threads())
    await turns()
    assert state_of(path, "mine") is State.COMPLETED


async def test_a_poller_that_ends_by_a_bug_is_no_outcome(
    service: FakeService, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise KeyError("a bug")

    async with client_of(path) as client:
        handle = await client.submit(ROW)
        monkeypatch.setattr(Poller, "_report", bug)
        with pytest.raises(SessionClosed):
            await handle
    assert state_of(path, "mine") is State.ACCEPTED


async def test_a_link_without_a_host_is_on_the_api_s_own(service: FakeService, path: Path) -> None:
    service.on_query.append(answer(200, task("task_1", "completed", result={"data": [{"url": "/__files/a.png"}]})))
    async with client_of(path) as client:
        generation = await client.generate(ROW)
    assert generation.images[0].url == f"{ADDRESS}/__files/a.png"


def test_files_inside_an_answer_are_dropped_from_the_journal_once_they_are_saved(path: Path) -> None:
    data = "iVBOR" * 20_000
    leave(path, "mine", ROW, State.COMPLETED, answer=task("task_1", "completed", result={"data": [{"b64_json": data}]}))
    before = record(path, "mine")
    with opened(path) as journal:
        journal_records.put_files(journal.connection, "mine", ["a.png"], 5.0)
    after = record(path, "mine")
    assert before is not None
    assert before.answer is not None
    assert data in before.answer
    assert after is not None
    assert after.is_saved
    assert len(after.answer or "") < 500
