"""`toapis status`, `balance`, `upload` and `models`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from toapis_async.cli import account
from toapis_async.cli.options import Options
from toapis_async.cli.session import settings_of
from toapis_async.client import ToAPIs
from toapis_async.errors import AuthenticationFailed
from toapis_async.events import TaskAccepted
from toapis_async.models import Balance, Model
from toapis_async.settings import Journal, Settings
from toapis_async.task import TaskSnapshot, TaskStatus

from .conftest import IN_A_BLINK, interrupt_at, run

if TYPE_CHECKING:
    from toapis_async.testing.threaded import ThreadedSandbox


@pytest.fixture
def task_id() -> str:
    """A finished task of the sandbox of this folder."""
    [record] = run("generate", "a red kite", "--json", *IN_A_BLINK).records
    identifier: str = record["task_id"]
    return identifier


def test_the_sandbox_of_this_folder_knows_its_tasks(task_id: str) -> None:
    ran = run("status", task_id, "--sandbox")
    told, state, progress, url = ran.stdout.split()
    assert (ran.code, told, state, progress) == (0, task_id, "completed", "100%")
    assert url.startswith("http://127.0.0.1:")


def test_a_status_is_one_record_for_machines(task_id: str) -> None:
    [record] = run("status", task_id, "--sandbox", "--json").records
    assert record["task_id"] == task_id
    assert (record["ok"], record["status"], record["error"], len(record["urls"])) == (True, "completed", None, 1)
    assert record["expires_at"] > record["completed_at"]


def test_an_unknown_task_is_a_failure_and_not_the_end_of_the_others(task_id: str) -> None:
    ran = run("status", "nobody", task_id, "--sandbox", "--json")
    assert ran.code == 1
    unknown, known = ran.records
    assert (unknown["asked"], unknown["error"]["type"]) == ("nobody", "TaskNotFound")
    assert known["task_id"] == task_id
    assert ran.stderr == "error: task not found (HTTP 404, task_not_found): nobody\n"


def test_an_id_that_is_too_long_for_a_path_is_asked_for() -> None:
    ran = run("status", "x" * 300, "--sandbox")
    assert (ran.code, "task not found" in ran.stderr) == (1, True)


def test_a_failed_task_says_why() -> None:
    run("generate", "a kite [fail]", "--client-business-id", "mine", *IN_A_BLINK)
    ran = run("status", "mine", "--sandbox")
    assert ran.code == 0
    assert "failed" in ran.stdout
    assert "(generation_failed)" in ran.stdout


def test_fetch_waits_for_tasks_and_saves_them_in_the_order_they_were_named(
    task_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        interrupt_at(patched, TaskAccepted, 1)
        slow = ("--sandbox", "--speed", "20")
        assert run("generate", "two kites", "-n", "2", "--client-business-id", "late", *slow).code == 130
    ran = run("fetch", "late", "nobody", task_id, "--out", "kites", *IN_A_BLINK)
    assert ran.code == 1
    assert ran.stderr == "error: task not found (HTTP 404, task_not_found): nobody\n"
    files = ran.stdout.splitlines()
    assert len(files) == 3
    assert all(Path(file).is_file() for file in files)
    assert files[2] == f"kites/{task_id}.png"
    again = run("fetch", task_id, "--out", "kites", "--json", *IN_A_BLINK)
    [record] = again.records
    assert (again.code, record["ok"], record["task_id"], record["files"]) == (0, True, task_id, [files[2]])
    assert len(list(Path("kites").iterdir())) == 3


def test_fetch_tells_what_failed() -> None:
    run("generate", "a kite [fail]", "--client-business-id", "mine", *IN_A_BLINK)
    ran = run("fetch", "mine", *IN_A_BLINK)
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: mine: task task_img_")


@pytest.mark.parametrize("arguments", [(), ("task_1", "--unsaved", "journal.sqlite")])
def test_fetch_wants_tasks_or_a_journal(arguments: tuple[str, ...]) -> None:
    Path("journal.sqlite").touch()
    ran = run("fetch", *arguments, "--sandbox")
    assert (ran.code, "name tasks, or a journal with --unsaved" in ran.stderr) == (2, True)


@pytest.mark.parametrize("per_process", [False, True])
@pytest.mark.toapis_sandbox(speed=1000, service_time_s=20.0)
def test_fetch_saves_what_a_journal_knows_as_finished_or_running_and_nobody_saved(
    toapis_sandbox: ThreadedSandbox, per_process: bool
) -> None:
    async def die_with_a_result_in_hand() -> None:
        settings = Settings(first_poll_s=0.005, min_poll_interval_s=0.005)
        journal = Journal("mine.journal", per_process=per_process)
        async with ToAPIs(journal=journal, settings=settings) as client:
            finished = await client.generate("a kite", client_business_id="finished")
            saved = await client.generate("a boat", client_business_id="saved")
            await saved.save("elsewhere")
            acknowledged = await client.generate("a lamp", client_business_id="acknowledged")
            acknowledged.acknowledge()
            assert finished.images
            await client.submit({"prompt": "a tree", "client_business_id": "running"})
            await client.batch([{"prompt": "a row"}], run="r").gather()

    asyncio.run(die_with_a_result_in_hand())
    quick = ("--first-poll-s", "0.005", "--min-poll-interval-s", "0.005")
    ran = run("fetch", "--unsaved", "mine.journal", "--out", "kites", "--json", *quick)
    assert (ran.code, ran.stderr) == (0, "")
    assert [record["client_business_id"] for record in ran.records] == ["finished", "running"]
    assert all(Path(file).is_file() for record in ran.records for file in record["files"])
    again = run("fetch", "--unsaved", "mine.journal", "--out", "kites", *quick)
    assert (again.code, again.stdout) == (0, "")
    assert again.stderr.startswith("mine.journal holds no plain submission to be saved")
    assert len(toapis_sandbox.ledger) == 5


def test_a_folder_without_a_journal_that_processes_share_gets_none() -> None:
    Path("out").mkdir()
    Path("out/journal.sqlite").touch()
    ran = run("fetch", "--unsaved", "out")
    assert (ran.code, ran.stdout) == (2, "")
    assert "out holds no journal that processes share; that of a batch is out/journal.sqlite" in ran.stderr
    assert [path.name for path in Path("out").iterdir()] == ["journal.sqlite"]


def test_questions_leave_no_sandbox_behind() -> None:
    assert run("balance", "--sandbox").code == 0
    assert list(Path().iterdir()) == []


@pytest.mark.usefixtures("tries_again_at_once")
def test_a_service_that_cannot_be_reached_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-x")
    ran = run("balance", "--base-url", "http://127.0.0.1:9")
    assert ran.code == 1
    assert ran.stderr.startswith("error: ")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(("options", "scope"), [((), "key"), (("--user",), "user")])
def test_a_balance_is_told_in_credits(options: tuple[str, ...], scope: str) -> None:
    ran = run("balance", *options, "--sandbox")
    assert ran.stdout.splitlines() == [
        "left      100,000.00 credits  ($500.00)",
        "used            0.00 credits  ($0.00)",
    ]
    [record] = run("balance", *options, "--sandbox", "--json").records
    assert (record["scope"], record["remain_credits"]) == (scope, 100_000)


def test_a_balance_without_limit_or_figures_is_told_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def unlimited(*_: object) -> Balance:
        return Balance(used_credits=12.5, unlimited_quota=True)

    async def silent(*_: object) -> Balance:
        return Balance()

    monkeypatch.setattr("toapis_async.client.ToAPIs.balance", unlimited)
    assert run("balance", "--sandbox").stdout == "left  unlimited\nused           12.50 credits\n"
    monkeypatch.setattr("toapis_async.client.ToAPIs.balance", silent)
    assert run("balance", "--sandbox").stdout == "left  not stated\nused  not stated\n"


@pytest.mark.usefixtures("task_id")
def test_pictures_become_addresses() -> None:
    [picture] = map(str, Path().glob("*.png"))
    Path("words.txt").write_text("no picture")
    ran = run("upload", picture, "words.txt", "--sandbox")
    assert ran.code == 2
    assert ran.stdout.startswith("http://127.0.0.1:")
    assert "words.txt is not a JPEG, PNG, WebP or GIF" in ran.stderr
    [record] = run("upload", picture, "--sandbox", "--json").records
    assert (record["file"], record["mime_type"]) == (picture, "image/png")


def test_models_are_listed_by_their_ids() -> None:
    ran = run("models", "--sandbox")
    assert ran.stdout.splitlines()[0].split() == ["gpt-image-2-vip", "openai", "image_generation"]
    assert len({line.index("image_generation") for line in ran.stdout.splitlines()}) == 1
    assert run("models", "--sandbox", "--json").records[0]["id"] == "gpt-image-2-vip"


@pytest.mark.parametrize("raw", [{}, {"owned_by": 7, "supported_endpoint_types": "text"}])
def test_a_model_that_tells_nothing_of_itself_is_its_id(
    monkeypatch: pytest.MonkeyPatch, raw: dict[str, object]
) -> None:
    async def bare(*_: object) -> tuple[Model, ...]:
        return (Model("m\x1b1", raw),)

    monkeypatch.setattr("toapis_async.client.ToAPIs.models", bare)
    assert run("models", "--sandbox").stdout == "m\\x1b1\n"


@pytest.mark.parametrize(("quiet", "told"), [((), "the service offers no models of type foo\n"), (("-q",), "")])
def test_a_type_without_models_is_told(quiet: tuple[str, ...], told: str) -> None:
    ran = run("models", "--type", "foo", "--sandbox", *quiet)
    assert (ran.code, ran.stdout, ran.stderr) == (0, "", told)


def test_an_unfinished_task_has_no_ending() -> None:
    line = account._status_line(TaskSnapshot("t1", TaskStatus.IN_PROGRESS, "rendering"))
    assert line == "t1  in progress"


def test_a_proxy_is_for_everything_and_not_for_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = run("balance", "--sandbox", "--proxy", "http://127.0.0.1:9")
    assert (refused.code, "--proxy" in refused.stderr) == (2, True)
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-any")
    assert "proxy must be an http(s) URL" in run("balance", "--proxy", "127.0.0.1:9").stderr
    assert settings_of(Options(proxy="http://127.0.0.1:9")).proxy == "http://127.0.0.1:9"


def test_a_model_is_told_by_its_page_and_by_the_service() -> None:
    ran = run("models", "gpt-image-2-vip", "--sandbox")
    first, *lines = ran.stdout.splitlines()
    assert (ran.code, first) == (0, "gpt-image-2-vip  (image)")
    assert "  resolution        1k, 2k, 4k                         default 1k" in lines
    assert ran.stderr == "the service offers gpt-image-2-vip to this key\n"
    [record] = run("models", "seedance-2", "--sandbox", "--json").records
    assert (record["type"], record["offered"], record["fields"]["resolution"]["default"]) == ("video", True, "720p")
    assert record["roles"]["image_with_roles"]["reference_image"] == 9


def test_a_models_page_needs_no_key() -> None:
    ran = run("models", "sora-2")
    assert (ran.code, ran.stdout.splitlines()[0]) == (0, "sora-2  (video)")
    assert ran.stderr == "with TOAPIS_API_KEY set, this also says whether the service offers it to your key\n"


def test_an_unknown_model_is_a_failure_with_the_nearest_name() -> None:
    ran = run("models", "gpt-image-2-vpi", "--sandbox")
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr.endswith("error: no model gpt-image-2-vpi is known: did you mean gpt-image-2-vip?\n")
    assert "`toapis models` lists them" in run("models", "zzz").stderr


def test_links_into_local_networks_are_followed_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of(Options()).allow_private_links is False
    assert settings_of(Options(allow_private_links=True)).allow_private_links is True
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-any")
    assert "proxy must be an http(s) URL" in run("balance", "--allow-private-links", "--proxy", "x").stderr


def test_prices_are_listed_by_what_they_hold_for() -> None:
    ran = run("prices", "gpt-image-2", "--sandbox")
    assert ran.code == 0
    assert all(line.startswith("gpt-image-2  ") and "  $0." in line for line in ran.stdout.splitlines())
    assert ran.stdout
    [first, *_] = run("prices", "--type", "video", "--sandbox", "--json").records
    assert (first["type"], set(first) >= {"model", "conditions", "charge_type", "unit"}) == ("video", True)
    assert float(first["unit_price"]) > 0


def test_a_model_without_prices_is_told() -> None:
    ran = run("prices", "nobody", "--sandbox")
    assert ran.code == 1
    assert "nobody" in ran.stderr


@pytest.mark.parametrize("name", ["TOAPIS_API_KEY", "TOAPIS_API_KEY_FILE"])
def test_a_key_that_is_refused_is_told_with_where_it_stands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("key").write_text("sk-wrong")
    monkeypatch.setenv(name, "key" if name.endswith("FILE") else "sk-wrong")

    async def refused(*_: object, **__: object) -> object:
        raise AuthenticationFailed("invalid token", status=401, code="unauthorized")

    monkeypatch.setattr("toapis_async.client.ToAPIs.balance", refused)
    ran = run("balance")
    assert ran.code == 1
    assert ran.stderr == f"error: the service refused the key in {name}: invalid token (HTTP 401, unauthorized)\n"
