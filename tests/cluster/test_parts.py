"""`parts.work`: what any engine can run, with nothing shared between its workers."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import BatchItem, parts
from toapis_async.sandbox import Fault, Sandbox

from .kit import KEY, SPEED, kites, quick

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from toapis_async.parts import Part


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    async with Sandbox(speed=SPEED, tier="svip") as sandbox:
        monkeypatch.setenv("TOAPIS_API_KEY", KEY)
        monkeypatch.setenv("TOAPIS_BASE_URL", sandbox.base_url)
        yield sandbox
        await parts.aclose()


async def parts_of(rows: Any, **options: Any) -> list[Part]:
    """The parts as another machine gets them."""
    how = {"run": "spring", "key": "key", "settings": quick(), "part_rows": 4, **options}
    made: list[Part] = pickle.loads(pickle.dumps([part async for part in parts.parts_of(rows, **how)]))  # noqa: S301
    return made


async def on_another_machine(part: Part) -> list[BatchItem]:
    """Its worker's memory is its own, and empty."""
    await parts.aclose()
    return await parts.work(part)


async def test_parts_have_all_rows_and_show_none_of_them(sandbox: Sandbox, tmp_path: Path) -> None:
    made = await parts_of(kites(10), save_to=tmp_path)
    assert [len(part.rows) for part in made] == [4, 4, 2]
    assert "kite" not in repr(made)
    items = [item for part in made for item in await parts.work(part)]
    assert sorted(item.index for item in items) == list(range(10))
    assert all(item.ok and item.files[0].is_file() for item in items)


async def test_a_part_that_is_done_again_elsewhere_is_paid_once(sandbox: Sandbox) -> None:
    [part] = await parts_of(kites(3))
    first = await on_another_machine(part)
    again = await on_another_machine(part.again())
    assert {i.task_id for i in again} == {i.task_id for i in first}
    assert len(sandbox.ledger.entries) == 3


async def test_a_row_that_its_first_worker_sent_a_moment_ago_is_looked_up_through_the_window(sandbox: Sandbox) -> None:
    [part] = await parts_of(kites(1))
    await on_another_machine(part)
    sandbox.faults.script("query", *[Fault.NOT_FOUND] * 4)  # it can be found late
    [item] = await on_another_machine(part.again())
    assert item.ok
    assert len(sandbox.ledger.entries) == 1


async def test_a_changed_prompt_under_an_old_key_is_not_given_the_old_picture(sandbox: Sandbox) -> None:
    [part], [changed] = await parts_of(kites(1)), await parts_of([{"key": "kite-0", "prompt": "a boat"}])
    [first], [second] = await on_another_machine(part), await on_another_machine(changed)
    assert first.ok
    assert second.ok
    assert first.task_id != second.task_id


async def test_equal_rows_without_a_key_are_pictures_of_their_own(sandbox: Sandbox) -> None:
    [part] = await parts_of(["a kite", "a kite"], key=None)
    items = await on_another_machine(part)
    assert len({item.client_business_id for item in items}) == 2
    assert len(sandbox.ledger.entries) == 2


async def test_a_failed_row_is_given_as_it_failed_and_anew_when_asked_for(sandbox: Sandbox) -> None:
    sandbox.faults.script("submit", Fault.TASK_FAILS)
    [part], [anew] = await parts_of(kites(1)), await parts_of(kites(1), retry_failed=True)
    [failed] = await on_another_machine(part)
    [again] = await on_another_machine(part.again())
    assert not failed.ok
    assert not again.ok
    assert again.task_id == failed.task_id
    [retried] = await on_another_machine(anew)
    assert retried.ok
    assert retried.attempts == 2
    [once_more] = await on_another_machine(anew)
    assert once_more.task_id == retried.task_id
    assert len(sandbox.ledger.entries) == 2


async def test_a_refused_key_ends_the_part_with_an_item_for_each_row(sandbox: Sandbox) -> None:
    sandbox.faults.chance("submit", Fault.UNAUTHORIZED, 1.0)
    [part] = await parts_of(kites(4))
    items = await parts.work(part)
    assert sorted(item.index for item in items) == [0, 1, 2, 3]
    assert not any(item.ok for item in items)
