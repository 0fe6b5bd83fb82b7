"""The raw server's buckets and counters are exact, and contenders run against it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from benchmarks.buckets import ServiceBucket, least_time_s
from benchmarks.contenders.bare import POLLS
from benchmarks.contenders.kit import Order, control
from benchmarks.dialects import DIALECTS, TOAPIS, Reported
from benchmarks.instructions import counted
from benchmarks.loads import Load, LogNormal
from benchmarks.processes import contend, serving
from benchmarks.server import Service
from benchmarks.tasks import BucketConfig, Config, Tasks

SOON = Load("soon", (LogNormal(0.2, 0.0),))


def test_a_bucket_admits_its_burst_then_its_rate() -> None:
    bucket = ServiceBucket(3, 2.0)
    assert [bucket.admit(0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.retry_after_s == 1
    assert [bucket.admit(at_s) for at_s in (0.4, 0.5, 0.9, 1.0)] == [False, True, False, True]
    assert bucket.admit(100.0)
    assert sum(bucket.admit(100.0) for _ in range(9)) == 2
    assert (bucket.admitted, bucket.last_admitted_s) == (8, 100.0)


def test_a_drained_bucket_begins_empty_at_its_first_request_and_a_shared_one_fills_slower() -> None:
    drained = ServiceBucket(10, 1.0, 0.0, level=0.0)
    assert not drained.admit(50.0)
    assert drained.admit(51.0)
    shared = ServiceBucket(1, 1.0, drained_per_s=0.5)
    assert [shared.admit(at_s) for at_s in (0.0, 1.0, 2.0)] == [True, False, True]


def test_the_least_time_is_what_the_bucket_takes() -> None:
    assert least_time_s(1_000, 50, 5) == 190.0
    assert least_time_s(10, 50, 5) == 0.0


def test_tasks_count_looks_gaps_and_refusals() -> None:
    tasks = Tasks(Config(load=Load("10 s", (LogNormal(10.0, 0.0),)), scale=2.0, query=BucketConfig(3, 0.1)), 100.0)
    assert tasks.submit(100.0) == 0
    assert [tasks.poll(0, at_s) for at_s in (101.0, 104.0, 105.0, 105.5)] == [False, False, True, None]
    counted = tasks.statistics()
    assert (counted["polls"], counted["least_gap_s"], counted["refused_polls"]) == (4, 0.5, 1)


def test_tasks_may_finish_at_a_poll_of_theirs_whenever_that_comes() -> None:
    tasks = Tasks(Config(finish_after=2), 0.0)
    tasks.submit(0.0)
    assert [tasks.poll(0, at_s) for at_s in (1.0, 2.0)] == [False, True]


def test_the_configuration_survives_json() -> None:
    config = Config(SOON, 3, 2.0, BucketConfig(5, 1.0, 0.0, 0.5), None, 1, 3, 4, "certificate.pem")
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialects_bodies_are_json_and_its_paths_are_distinct(dialect: object) -> None:
    assert dialect in DIALECTS
    for one in DIALECTS:
        for make in (one.submitted, one.unfinished, one.finished):
            assert f"{7:026d}" in json.dumps(json.loads(make(Reported(7, "http://127.0.0.1:1", 1, 2, 3))))
    service = Service(Config(load=SOON))
    for one in DIALECTS:
        assert service.answer(b"POST " + one.submit + b" HTTP/1.1").startswith(b"HTTP/1.1 200")
    assert service.answer(b"POST /v1/else HTTP/1.1").startswith(b"HTTP/1.1 404")
    assert service.answer(b"GET " + TOAPIS.status_path + b"no-such HTTP/1.1").startswith(b"HTTP/1.1 404")
    assert service.tasks.statistics()["submitted"] == len(DIALECTS)


def test_each_poll_is_answered_with_something_new_and_with_the_rate_limit_headers() -> None:
    service = Service(Config(query=BucketConfig(5, 0.001)))
    service.answer(b"POST " + TOAPIS.submit + b" HTTP/1.1")
    get = b"GET " + TOAPIS.status_path + f"{0:026d}".encode() + b" HTTP/1.1"
    first, second = service.answer(get), service.answer(get)
    assert first.split(b"\r\n\r\n")[1] != second.split(b"\r\n\r\n")[1]
    assert b"X-RateLimit-Limit: 5\r\nX-RateLimit-Remaining: 3\r\nX-RateLimit-Category: async_query\r\n" in second


def test_a_refusal_says_when_to_come_back() -> None:
    with serving(Config(load=SOON, submit=BucketConfig(1, 0.5, level=0.0))) as url:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(f"{url}/v1/images/generations", b"{}"), timeout=60)  # noqa: S310
        assert caught.value.code == 429
        assert caught.value.headers["Retry-After"] == "2"
        caught.value.close()
        assert control(url, "statistics")["refused_submits"] == 1


def test_contenders_take_turns_in_one_process_and_the_first_turn_is_not_counted() -> None:
    with serving(Config(finish_after=POLLS)) as url:
        order = Order(url, 3, interval_s=0.01, concurrency=2, contenders=("bare_lives", "ours"), repetitions=2)
        ran = contend("interleaved", order)
    assert {name: [len(run["returned_s"]) for run in runs] for name, runs in ran.details.items()} == {
        "bare_lives": [3, 3],
        "ours": [3, 3],
    }
    assert ran.served["polls_of"] == [POLLS] * 18


def test_steps_are_counted_while_all_tasks_are_polled() -> None:
    with serving(Config(tasks=50)) as url:
        details = contend("steps", Order(url, 50, interval_s=60.0)).details
    assert details["polls"] == 50
    assert details["steps"] > 2 * 50
    assert details["longest_ms"] > 0


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed here")
def test_what_lies_between_two_marks_is_counted() -> None:
    mark = "os.getpriority(os.PRIO_PROCESS, 0)"
    program = f"import os\nfor rounds in (10_000, 100_000):\n {mark}; any(map(abs, [0] * rounds)); {mark}\n"

    def run(valgrind: list[str]) -> None:
        subprocess.run([*valgrind, sys.executable, "-S", "-c", program], check=True, capture_output=True)  # noqa: S603

    few, many = counted(run)
    assert 5 * few < many < 15 * few


@pytest.mark.parametrize("name", ["naive", "ours"])
def test_a_contender_sees_every_task_with_the_lag_that_the_server_can_vouch_for(name: str) -> None:
    with serving(Config(load=SOON)) as url:
        ran = contend(name, Order(url, 20, interval_s=0.3, concurrency=4))
    assert len(ran.lags_s) == 20
    assert min(ran.lags_s) >= 0
    assert ran.served["submitted"] == 20
    assert ran.served["polls"] >= 20
    assert ran.served["least_gap_s"] >= 0.3
    assert not ran.errors
