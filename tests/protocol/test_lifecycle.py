"""Words and steps."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.protocol.lifecycle import WORDS, may_become, status_of
from toapis_async.task import TaskStatus

QUEUED, IN_PROGRESS, COMPLETED, FAILED = TaskStatus
LEGAL = {
    (None, QUEUED),
    (None, IN_PROGRESS),
    (None, COMPLETED),
    (None, FAILED),
    (QUEUED, QUEUED),
    (QUEUED, IN_PROGRESS),
    (QUEUED, COMPLETED),
    (QUEUED, FAILED),
    (IN_PROGRESS, IN_PROGRESS),
    (IN_PROGRESS, COMPLETED),
    (IN_PROGRESS, FAILED),
}


@pytest.mark.parametrize(("now", "then"), list(itertools.product([None, *TaskStatus], TaskStatus)))
def test_a_step_is_legal_or_not(now: TaskStatus | None, then: TaskStatus) -> None:
    assert may_become(now, then) == ((now, then) in LEGAL)


@settings(max_examples=100)
@given(seen=st.lists(st.sampled_from(TaskStatus), max_size=12))
def test_a_final_state_is_never_left_whatever_is_seen_later(seen: list[TaskStatus]) -> None:
    shown: list[TaskStatus] = []
    for status in seen:
        if may_become(shown[-1] if shown else None, status):
            shown.append(status)
    assert all(not status.is_final for status in shown[:-1])
    first_final = next((status for status in seen if status.is_final), None)
    if first_final is not None:
        assert shown[-1] is first_final


def test_only_the_two_ends_are_final() -> None:
    assert [status for status in TaskStatus if status.is_final] == [COMPLETED, FAILED]


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("queued", QUEUED),
        ("submitted", QUEUED),
        ("pending", QUEUED),
        ("in_progress", IN_PROGRESS),
        ("processing", IN_PROGRESS),
        ("completed", COMPLETED),
        ("failed", FAILED),
        (" FAILED\n", FAILED),
        ("", QUEUED),
        ("cancelled", IN_PROGRESS),
        ("完成", IN_PROGRESS),
        ("complete", IN_PROGRESS),
    ],
)
def test_a_word_is_folded_and_an_unknown_one_is_work(word: str, status: TaskStatus) -> None:
    assert status_of(word) is status


def test_only_documented_words_end_a_task() -> None:
    assert {word for word, status in WORDS.items() if status.is_final} == {"completed", "failed"}
