"""Frozen values: comparable, picklable, short."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from toapis_async import events
from toapis_async.batch.item import BatchItem
from toapis_async.errors import ClientStateError, InvalidRequest
from toapis_async.models import Balance, Evidence, Generation, Learned, Model, Upload
from toapis_async.protocol.filetype import PNG
from toapis_async.protocol.lenient import Answer
from toapis_async.protocol.pacing import TokenBucket
from toapis_async.request import ImageRequest
from toapis_async.settings import RateLimits, Settings
from toapis_async.task import Billing, GeneratedImage, TaskError, TaskSnapshot, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike


NOW = datetime(2026, 8, 1, tzinfo=UTC)
LONG = "a very long prompt that goes on, " * 100
IMAGES = tuple(GeneratedImage(f"https://files.toapis.com/{number}.png", NOW) for number in range(15))
RAW = {"prompt": LONG, "nested": {"list": [1]}}


class FakeSaver:
    """Like the client's downloader: holds what can't be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.saved: list[tuple[str, object]] = []

    async def save(
        self,
        generation: Generation,
        folder: str | PathLike[str],
        name: str | None = None,
        *,
        embed: bool = False,
        asked: Mapping[str, object] | None = None,
    ) -> tuple[Path, ...]:
        self.saved.append((generation.task_id, folder))
        return (Path(folder) / "a.png",)

    def acknowledge(self, client_business_id: str | None) -> None:
        raise NotImplementedError

    def absolute(self, link: str) -> str:
        raise NotImplementedError


def generation(saver: FakeSaver | None = None) -> Generation:
    return Generation("t1", "b1", "gpt-image-2-vip", IMAGES, NOW, NOW, Billing("settled"), RAW, saver)


VALUES: tuple[Any, ...] = (
    Billing("settled", Decimal("174.6"), Decimal("0.135")),
    TaskError("moderated", "不允许"),
    IMAGES[0],
    TaskSnapshot(
        "t1",
        TaskStatus.COMPLETED,
        "completed",
        client_business_id="b1",
        model="gpt-image-2-vip",
        progress=100,
        created_at=NOW,
        completed_at=NOW,
        expires_at=NOW,
        images=IMAGES,
        billing=Billing("settled"),
        raw=RAW,
    ),
    generation(),
    Evidence((5.0, 0.0), (1.0, 0.0)),
    Learned(5.0, {"vip": Evidence((5.0,), (1.0,))}),
    Upload("u1", "https://upload.toapis.com/u1.png", "image/png", 5),
    Balance(2100, 460, 10.5, 2.3, 200),
    Model("gpt-image-2-vip", RAW),
    BatchItem(3, "kite", ImageRequest(LONG), True, generation(), (Path("kite.png"),), None, "t1", "b1"),
    ImageRequest(LONG, size="16:9", metadata={"a": [1]}, reference_images=[b"x" * 5_000, Path("kite.png")]),
    Settings(max_in_flight=5, proxy="http://user:secret@proxy.example"),
    RateLimits(submit_per_s=1, submit_burst=2, query_per_s=3, query_burst=4),
    PNG,
    TokenBucket(5, 1.0, 0.0, most_unanswered=3).statistics(0.0),
    events.RequestDone(1.5, "submit", 200, 0.5, 1),
    events.TaskAccepted(1.5, "t1", "b1", "gpt-image-2-vip"),
    events.TaskPolled(1.5, "t1", "b1", TaskStatus.QUEUED, 0, changed=True),
    events.TaskEnded(1.5, "t1", "b1", TaskStatus.FAILED, 5.0, 2),
    events.SubmitRetried(1.5, "b1", "429", 1.0),
    events.SubmitLost(1.5, "b1", "time-out"),
    events.Throttled(1.5, "query", 1.0),
    events.CreditsShort(1.5, "key", Decimal(9), Decimal("1.5"), 7),
    events.SubmitFailed(1.5, "b1", "RateLimited", "rate_limit_exceeded"),
    events.TaskWatched(1.5, "t1", "b1", "image"),
    events.FileFailed(1.5, "t1", "b1", "LinkExpired", 1, 0.5),
    events.FileSaved(1.5, "t1", "b1", "out/a.png", 10, 1),
)


def ids(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("value", VALUES, ids=ids)
def test_a_value_can_not_be_changed(value: Any) -> None:
    for attribute in attrs.fields(type(value)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, attribute.name, None)
    with pytest.raises(AttributeError):
        value.something_new = 1


@pytest.mark.parametrize("value", VALUES, ids=ids)
def test_a_value_equals_its_copy_and_its_pickle(value: Any) -> None:
    copies = [pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)]  # noqa: S301
    for again in copies:
        assert again == value
        assert again is not None
        for attribute in attrs.fields(type(value)):  # also those that do not count for equality
            assert getattr(again, attribute.name) == getattr(value, attribute.name)


@pytest.mark.parametrize("value", VALUES, ids=ids)
def test_a_value_differs_from_one_with_another_first_field(value: Any) -> None:
    first = attrs.fields(type(value))[0]
    if isinstance(value, Settings):
        other: object = Settings(max_in_flight=5, proxy="http://user:secret@proxy.example", tier="vip")
    elif isinstance(value, ImageRequest):
        other = ImageRequest.of(value, prompt="other")
    else:
        other = attrs.evolve(value, **{first.name: 77})
    assert value != other
    assert value != "something else"


@pytest.mark.parametrize("value", VALUES, ids=ids)
def test_a_repr_is_short_and_tells_neither_prompts_nor_raw_answers_nor_secrets(value: object) -> None:
    text = repr(value)
    assert text.startswith(type(value).__name__)
    assert len(text) < 330
    assert LONG[:45] not in text
    assert "nested" not in text
    assert "secret" not in text


@pytest.mark.parametrize("value", [v for v in VALUES if type(v).__module__.endswith(("models", "events"))], ids=ids)
def test_a_value_says_what_it_is(value: object) -> None:
    assert (type(value).__doc__ or "").strip()


def test_raw_answers_do_not_count_for_equality() -> None:
    first, second = generation(), attrs.evolve(generation(), raw={})
    assert first == second
    assert hash(first) == hash(second)


def test_an_answer_in_bytes_is_a_value_too() -> None:
    assert Answer(200, {}, b"x") == Answer(200, {}, b"x", 1)


def test_statuses_are_their_words() -> None:
    assert [str(status) for status in TaskStatus] == ["queued", "in_progress", "completed", "failed"]


# ------------------------------------------------------------------------------------------------ saving


def test_a_generation_saves_through_the_client_it_came_from() -> None:
    saver = FakeSaver()
    files = asyncio.run(generation(saver).save("out"))
    assert files == (Path("out/a.png"),)
    assert saver.saved == [("t1", "out")]


def test_a_generation_with_its_saver_pickles_without_it() -> None:
    again = pickle.loads(pickle.dumps(generation(FakeSaver())))  # noqa: S301
    assert again == generation()
    assert again.raw == RAW
    with pytest.raises(ClientStateError, match=r"client\.attach\(generation\.task_id\)") as caught:
        asyncio.run(again.save("out"))
    assert (caught.value.task_id, caught.value.client_business_id) == ("t1", "b1")


def test_a_copy_in_the_same_process_still_saves_and_shares_no_raw_answer() -> None:
    saver = FakeSaver()
    original = generation(saver)
    for again in (copy.copy(original), copy.deepcopy(original)):
        asyncio.run(again.save("out"))
    assert len(saver.saved) == 2
    assert copy.deepcopy(original).raw["nested"] is not original.raw["nested"]


def test_a_saver_shows_neither_in_repr_nor_in_equality() -> None:
    assert generation(FakeSaver()) == generation()
    assert "aver" not in repr(generation(FakeSaver()))


def test_an_item_with_an_error_travels() -> None:
    item = BatchItem(0, "k", None, False, error=InvalidRequest("m", field="size"))
    again = pickle.loads(pickle.dumps(item))  # noqa: S301
    assert isinstance(again.error, InvalidRequest)
    assert again.error.field == "size"
    assert attrs.evolve(again, error=None) == attrs.evolve(item, error=None)


def test_an_item_with_a_saveable_generation_travels() -> None:
    item = BatchItem(0, "k", ImageRequest("a"), True, generation(FakeSaver()))
    assert pickle.loads(pickle.dumps(item)) == item  # noqa: S301


# ------------------------------------------------------------------------------------------------ what was learned


def test_what_was_learned_survives_its_json() -> None:
    learned = Learned(5.0, {"风 2k": Evidence((1.5, 0.0), (3.0, 0.0)), "b": Evidence((), ())})
    assert Learned.from_json(learned.to_json()) == learned


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "5",
        "{}",
        '{"interval_s": 5}',
        '{"interval_s": 5, "classes": []}',
        '{"interval_s": "soon", "classes": {}}',
        '{"interval_s": null, "classes": {}}',
        '{"interval_s": -1, "classes": {}}',
        '{"interval_s": NaN, "classes": {}}',
        '{"interval_s": Infinity, "classes": {}}',
        '{"interval_s": 1' + "0" * 400 + ', "classes": {}}',
        '{"interval_s": 1' + "0" * 5_000 + ', "classes": {}}',
        '{"interval_s": 5, "classes": {"a": 1}}',
        '{"interval_s": 5, "classes": {"a": {"watched_s": [1]}}}',
        '{"interval_s": 5, "classes": {"a": {"watched_s": [-1], "finished": []}}}',
        '{"interval_s": 5, "classes": {"a": {"watched_s": 1, "finished": []}}}',
        '{"interval_s": 5, "classes": {"a": {"watched_s": [[]], "finished": []}}}',
        '{"interval_s": "' + "x" * 5_000 + '", "classes": {}}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:40],
)
def test_what_was_not_learned_by_a_client_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^this is not what Learned\.to_json wrote: ") as caught:
        Learned.from_json(text)
    assert len(str(caught.value)) < 180
