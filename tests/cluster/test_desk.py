"""The desk: whose a row is, what is done once, and what a journal's silence is worth."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import JournalError, SessionClosed
from toapis_async.engine.desk import line as line_module
from toapis_async.engine.desk.line import Line
from toapis_async.engine.desk.remote import RemoteJournal
from toapis_async.engine.desk.server import Desk, Opening
from toapis_async.engine.journal.records import End, Intent, State
from toapis_async.engine.journal.writer import JournalWriter
from toapis_async.protocol.leasing import Ask
from toapis_async.protocol.rowids import row_id, row_name
from toapis_async.settings import Credentials, Journal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from toapis_async.engine.desk.line import Call

ROW = row_name("spring", "k1", "d1", 1)
INTENT = Intent(row_id("spring", "k1", "d1", 1, 1), "d1", "{}", run="spring", key="k1")


class Wire:
    """A line's way to the desk. It can be cut before a group arrives, or before its answer does."""

    def __init__(self, desk: Desk, session: str) -> None:
        self._desk = desk
        self._session = session
        self.groups: list[list[str]] = []
        self.cut_before = self.cut_after = 0

    async def exchange(self, line: str, number: int, calls: Sequence[Call]) -> Sequence[object]:
        self.groups.append([name for name, _ in calls])
        if self.cut_before:
            self.cut_before -= 1
            raise OSError("no way")
        results = await self._desk.exchange(self._session, line, number, calls)
        if self.cut_after:
            self.cut_after -= 1
            raise OSError("the answer was lost")
        return results


def opening(folder: Path, **changes: Any) -> Opening:
    of_run = {"session": "s1", "driver": "d1", "run": "spring", "account": "a", "base_url": "https://x.example/v1"}
    of_run |= {"salt": "salt", "bound_as": "b"}
    return Opening(**{**of_run, "journal": folder / "journal", "fresh": True, **changes})


@asynccontextmanager
async def a_desk(folder: Path, **changes: Any) -> AsyncIterator[Desk]:
    desk = Desk()
    assert await desk.begin(opening(folder, **changes)) is None
    try:
        yield desk
    finally:
        await desk.aclose()


@asynccontextmanager
async def engine_of(
    desk: Desk, session: str = "s1", window_s: float = 30.0
) -> AsyncIterator[tuple[RemoteJournal, Wire]]:
    wire = Wire(desk, session)
    journal = RemoteJournal(Line(wire), window_s)
    try:
        yield journal, wire
    finally:
        journal.hurry()
        await journal.aclose()


# ------------------------------------------------------------------------------------------------ ids


def test_an_id_is_the_same_anywhere_and_any_time() -> None:
    assert INTENT.client_business_id == "tb-3d6dde904a738490448966a882dfda5f4cb3ce64"


def test_whatever_makes_another_row_makes_another_id() -> None:
    ids = {
        row_id("spring", "k1", "d1", 1, 1),
        row_id("summer", "k1", "d1", 1, 1),
        row_id("spring", "k2", "d1", 1, 1),
        row_id("spring", None, "d1", 1, 1),
        row_id("spring", "k1", "d2", 1, 1),
        row_id("spring", "k1", "d1", 2, 1),
        row_id("spring", "k1", "d1", 1, 2),
        row_id("spring", "k1d1", "", 1, 1),
    }
    assert len(ids) == 8


# ------------------------------------------------------------------------------------------------ the line


async def test_what_gathers_while_a_group_is_under_way_goes_in_one_group(tmp_path: Path) -> None:
    async with a_desk(tmp_path) as desk, engine_of(desk) as (journal, wire):
        await journal.claim([ROW])
        await asyncio.gather(*(journal.of_id(f"b{n}") for n in range(200)))
        assert len(wire.groups) <= 3
        assert sum(map(len, wire.groups)) == 201


async def test_a_group_whose_answer_was_lost_is_asked_for_again_and_not_done_twice(tmp_path: Path) -> None:
    async with a_desk(tmp_path) as desk, engine_of(desk) as (journal, wire):
        await journal.claim([ROW])
        wire.cut_after = 1
        await journal.intend(INTENT)  # done twice, it would be refused: "was sent already"
        assert desk.counts("s1")["intended"] == 1


async def test_a_desk_that_cant_be_reached_sends_nothing_and_keeps_what_was_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_module, "_GAPS_S", (0.0, 0.01))
    async with a_desk(tmp_path) as desk, engine_of(desk) as (journal, wire):
        await journal.claim([ROW])
        await journal.intend(INTENT)
        wire.cut_before = 3
        journal.accepted(INTENT.client_business_id, "task_1", "task_1")
        with pytest.raises(JournalError, match="nothing was sent"):
            await journal.of_id("b")
        known = await journal.of_id(INTENT.client_business_id)
        assert known is not None
        assert (known.state, known.task_id) == (State.ACCEPTED, "task_1")


@pytest.mark.parametrize("broken", ["raises", "answers too little"])
async def test_a_desk_that_fails_by_a_bug_leaves_nobody_waiting_and_the_line_goes_on(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def bug(*_: object) -> Sequence[object]:
        if broken == "raises":
            raise ZeroDivisionError
        return ()

    async with a_desk(tmp_path) as desk, engine_of(desk) as (journal, wire):
        await journal.claim([ROW])
        with monkeypatch.context() as patched:
            patched.setattr(wire, "exchange", bug)
            with pytest.raises(JournalError, match="nothing was sent"):
                await journal.intend(INTENT)
        await journal.intend(INTENT)
        assert desk.counts("s1")["intended"] == 1


async def test_what_was_noted_last_is_written_before_the_line_ends(tmp_path: Path) -> None:
    async with a_desk(tmp_path) as desk:
        async with engine_of(desk) as (journal, _):
            await journal.claim([ROW])
            await journal.intend(INTENT)
            journal.accepted(INTENT.client_business_id, "task_1", "task_1")
        async with engine_of(desk) as (journal, _):
            known = await journal.of_id(INTENT.client_business_id)
            assert known is not None
            assert known.state is State.ACCEPTED


# ------------------------------------------------------------------------------------------------ whose a row is


async def test_an_engine_whose_row_was_taken_over_can_send_it_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [100.0]
    monkeypatch.setattr("toapis_async.engine.desk.remote._now_s", lambda: now_s[0])
    async with a_desk(tmp_path) as desk, engine_of(desk) as (zombie, _), engine_of(desk) as (other, _):
        await zombie.claim([ROW])
        await zombie.intend(INTENT)
        await zombie.confirm(INTENT)
        await other.claim([ROW])  # the zombie was stopped right before its POST …
        known = await other.of_row("spring", "k1", "d1", 1)
        assert known is not None
        assert known.state is State.INTENT  # … so that it is looked up through the window
        now_s[0] += 30
        with pytest.raises(JournalError, match="taken this row over"):
            await zombie.confirm(INTENT)
        with pytest.raises(JournalError, match="taken this row over"):
            await zombie.intend(INTENT)
        await other.confirm(INTENT)


async def test_the_desk_is_asked_once_more_only_when_its_word_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [100.0]
    monkeypatch.setattr("toapis_async.engine.desk.remote._now_s", lambda: now_s[0])
    async with a_desk(tmp_path) as desk, engine_of(desk, window_s=30) as (journal, wire):
        await journal.claim([ROW])
        await journal.intend(INTENT)
        for passed_s, asked in ((5.9, 0), (0.2, 1), (5.9, 1), (0.2, 2)):
            now_s[0] += passed_s
            await journal.confirm(INTENT)
            assert sum(group.count("confirm") for group in wire.groups) == asked


async def test_only_whose_row_it_is_can_say_that_it_was_not_taken(tmp_path: Path) -> None:
    async with a_desk(tmp_path) as desk, engine_of(desk) as (zombie, _), engine_of(desk) as (other, _):
        await zombie.claim([ROW])
        await zombie.intend(INTENT)
        await other.claim([ROW])
        zombie.ended(INTENT.client_business_id, End(State.WITHDRAWN))
        await zombie.flush()
        known = await other.of_id(INTENT.client_business_id)
        assert known is not None
        assert known.state is State.INTENT


async def test_a_row_that_was_claimed_twice_by_one_engine_is_its_own_until_both_are_done(tmp_path: Path) -> None:
    async with a_desk(tmp_path) as desk, engine_of(desk) as (journal, _):
        await journal.claim([ROW])
        await journal.claim([ROW])
        journal.release([ROW])
        await journal.intend(INTENT)
        journal.release([ROW])
        with pytest.raises(JournalError, match="taken this row over"):
            await journal.intend(INTENT)


# ------------------------------------------------------------------------------------------------ drivers


async def test_nothing_is_sent_for_a_driver_that_has_gone_and_another_may_begin(tmp_path: Path) -> None:
    async with a_desk(tmp_path) as desk, engine_of(desk) as (orphan, _):
        await orphan.claim([ROW])
        assert "going on already" in str(await desk.begin(opening(tmp_path, session="s2", driver="d2")))
        assert desk.driver_left("d1") == ["s1"]
        with pytest.raises(SessionClosed, match="stopped before this was sent"):
            await orphan.intend(INTENT)
        assert await desk.begin(opening(tmp_path, session="s2", driver="d2")) is None
        async with engine_of(desk, "s2") as (journal, _):
            await journal.claim([ROW])
            await journal.intend(INTENT)
        await desk.end("s1")
        await desk.end("s2")  # and with the last its journal is free
        assert await desk.begin(opening(tmp_path, session="s3")) is None


async def test_another_key_is_not_given_the_journal_of_the_first(tmp_path: Path) -> None:
    async with a_desk(tmp_path) as desk:
        refusal = await desk.begin(opening(tmp_path, session="s2", run="summer", account="another"))
        assert refusal is not None
        assert "another API key" in refusal


async def test_a_journal_is_the_same_with_and_without_a_desk_and_only_for_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    mine, other = (Credentials(key, "https://x.example/v1") for key in ("sk-mine", "sk-other"))

    async def paid_by(credentials: Credentials, **how: Any) -> str:
        """Have a desk open it for an engine with this key; its journal's row is paid for."""
        desk = Desk()
        salt = await desk.salt(path)
        bound_as = credentials.account(salt)
        try:
            assert await desk.begin(opening(tmp_path, salt=salt, bound_as=bound_as, **how)) is None
            async with engine_of(desk) as (journal, _):
                if await journal.of_id(INTENT.client_business_id) is None:
                    await journal.claim([ROW])
                    await journal.intend(INTENT)
                    journal.accepted(INTENT.client_business_id, "task_1", "task_1")
        finally:
            await desk.aclose()
        return salt

    salt = await paid_by(mine)
    assert await paid_by(mine) == salt
    plain = await JournalWriter.open(Journal(path), mine)
    assert await plain.of_id(INTENT.client_business_id) is not None
    await plain.aclose()
    assert await paid_by(mine) == salt
    with pytest.raises(JournalError, match="another API key"):
        await paid_by(other)
    assert await paid_by(other, same_account=True) == salt
    with pytest.raises(JournalError, match="another API key"):
        await JournalWriter.open(Journal(path), mine)


# ------------------------------------------------------------------------------------------------ memory


async def believed(journal: RemoteJournal, found: Sequence[bool], window_s: float = 30.0) -> list[bool]:
    """For each look-up, whether its "not found" may be wrong."""
    return await asyncio.gather(*(journal.looked_up(was_found=each, window_s=window_s) for each in found))


async def test_a_run_that_nobody_ever_saw_is_new(tmp_path: Path) -> None:
    async with a_desk(tmp_path, fresh=False) as desk, engine_of(desk) as (journal, _):
        assert not await journal.claim([ROW] * 3)
        assert await believed(journal, [False] * 3) == [False] * 3


async def test_one_row_that_is_found_puts_the_others_in_doubt_for_a_window(tmp_path: Path) -> None:
    async with a_desk(tmp_path, fresh=False) as desk, engine_of(desk) as (journal, _):
        assert not await journal.claim([ROW] * 3)
        assert await believed(journal, [False, False, True]) == [True] * 3
        assert await believed(journal, [False], window_s=1e-9) == [False]


async def test_a_fresh_run_needs_no_look_up_in_later_passes_either(tmp_path: Path) -> None:
    async with a_desk(tmp_path, fresh=True) as desk, engine_of(desk) as (journal, _):
        assert await journal.claim([ROW])
    async with a_desk(tmp_path, fresh=False) as desk, engine_of(desk) as (journal, _):
        assert await journal.claim([ROW])


# ------------------------------------------------------------------------------------------------ limits


def at_once(desk: Desk, account: str, member: str) -> int:
    """How many of 100 turns an engine may use now."""
    grant = desk.lease(account, "submit", Ask(member=member, burst=50, per_s=0.01, want=100, lease_s=10))
    return sum(offset_s == 0 for offset_s in grant.offsets_s())


def test_all_engines_of_an_account_lease_from_one_bucket_and_another_account_has_its_own() -> None:
    desk = Desk()
    assert at_once(desk, "a", "m1") == 49  # the burst without the margin
    assert at_once(desk, "a", "m2") == 0
    assert at_once(desk, "b", "m3") == 49
