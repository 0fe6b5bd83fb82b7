"""Every knob's range, the key's secrecy, and one spelling for an address."""

from __future__ import annotations

import math
import traceback
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from toapis_async import ToAPIs
from toapis_async.errors import ClientStateError
from toapis_async.settings import TIERS, Credentials, RateLimits, Settings, normalise_base_url

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-" + "Zq9" * 16
DAY_S = 86_400
LIMITS = RateLimits(submit_per_s=1, submit_burst=2.5, query_per_s=3, query_burst=4)

#: name: smallest, largest, whole
RANGES: dict[str, tuple[float, float, bool]] = {
    "max_in_flight": (1, 1_000_000, True),
    "max_connections": (1, 10_000, True),
    "first_poll_s": (1e-6, DAY_S, False),
    "min_poll_interval_s": (1e-6, DAY_S, False),
    "poll_jitter": (0, 1, False),
    "reconcile_window_s": (1e-6, DAY_S, False),
    "max_task_age_s": (1e-6, 7 * DAY_S, False),
    "vanish_grace_s": (0, DAY_S, False),
    "submit_retry_s": (0, DAY_S, False),
    "max_retry_after_s": (1e-6, DAY_S, False),
    "close_grace_s": (0, 3_600, False),
    "connect_timeout_s": (1e-6, 3_600, False),
    "read_timeout_s": (1e-6, 3_600, False),
    "request_timeout_s": (1e-6, 3_600, False),
    "download_timeout_s": (1e-6, DAY_S, False),
    "max_answer_bytes": (1_024, 2**30, True),
    "max_file_bytes": (1_024, 2**34, True),
    "max_video_bytes": (1_024, 2**40, True),
    "download_concurrency": (1, 1_000, True),
    "download_tries": (1, 100, True),
}
OTHERS = {
    "prior",
    "prices",
    "tier",
    "uncertain_submits",
    "limits",
    "proxy",
    "webhook_secrets",
    "on_event",
    "allow_private_links",
    "events_with_prompts",
}
RATES = ("submit_per_s", "submit_burst", "query_per_s", "query_burst")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOAPIS_API_KEY", raising=False)
    monkeypatch.delenv("TOAPIS_BASE_URL", raising=False)


# ------------------------------------------------------------------------------------------------ knobs


def test_every_knob_is_in_these_tables_and_the_promised_defaults_hold() -> None:
    assert {a.name for a in attrs.fields(Settings)} == RANGES.keys() | OTHERS
    assert Settings() == Settings(
        max_in_flight=2_000,
        first_poll_s=5,
        min_poll_interval_s=5,
        max_task_age_s=3_600,
        download_tries=8,
    )


@pytest.mark.parametrize(("name", "knob"), RANGES.items(), ids=list(RANGES))
def test_a_number_within_its_range_is_accepted(name: str, knob: tuple[float, float, bool]) -> None:
    smallest, largest, _ = knob
    for value in (smallest, largest):
        kwargs: dict[str, Any] = {name: value}
        assert getattr(Settings(**kwargs), name) == value


@pytest.mark.parametrize(("name", "knob"), RANGES.items(), ids=list(RANGES))
def test_a_number_out_of_its_range_is_refused_by_name(name: str, knob: tuple[float, float, bool]) -> None:
    smallest, largest, whole = knob
    step = 1 if whole else smallest / 2 or 1e-9
    for value in (smallest - step, largest + 1, -1, 10**400, *(() if whole else (math.inf, -math.inf))):
        kwargs: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=f"^{name}=.* is out of range") as caught:
            Settings(**kwargs)
        assert len(str(caught.value)) < 120


@pytest.mark.parametrize("value", [True, False, math.nan, "5", None, [1] * 1_000, 5j], ids=repr)
@pytest.mark.parametrize("name", RANGES)
def test_what_is_no_number_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a (whole )?number, not ") as caught:
        Settings(**{name: value})
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("name", [name for name, knob in RANGES.items() if knob[2]])
@pytest.mark.parametrize("value", [5.0, math.inf])
def test_a_count_is_a_whole_number(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a whole number"):
        Settings(**{name: value})


def test_an_int_too_long_to_print_is_refused_too() -> None:
    with pytest.raises(ValueError, match=r"^max_in_flight=a huge int is out of range"):
        Settings(max_in_flight=10**5_000)


@pytest.mark.parametrize("tier", ["gold", "Auto", "VIP", "", None, 5, ["vip"], {}], ids=repr)
def test_an_unknown_tier_is_refused_naming_those_there_are(tier: Any) -> None:
    with pytest.raises(ValueError, match=r"known are auto, default, vip, svip; or give limits=RateLimits"):
        Settings(tier=tier)


@pytest.mark.parametrize("limits", ["vip", (1, 2, 3, 4), {"submit_per_s": 1}, 5])
def test_limits_are_rate_limits(limits: Any) -> None:
    with pytest.raises(ValueError, match="limits must be a RateLimits, not "):
        Settings(limits=limits)


@pytest.mark.parametrize(
    "proxy",
    ["proxy.example:80", "socks5://proxy.example", "http://", "http://us\u2100er:secret@host", "", 5, b"http://x"],
)
def test_a_proxy_is_an_http_url_and_what_is_none_is_not_repeated(proxy: Any) -> None:
    with pytest.raises(ValueError, match=r"^proxy must be an http\(s\) URL$") as caught:
        Settings(proxy=proxy)
    assert "secret" not in "".join(traceback.format_exception(caught.value.with_traceback(None)))


@pytest.mark.parametrize("proxy", ["http://proxy.example:8080", "https://user:secret@proxy.example"])
def test_a_proxy_is_never_shown(proxy: str) -> None:
    settings = Settings(proxy=proxy)
    assert settings.proxy == proxy
    assert "proxy" not in repr(settings)


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        ("", "a secret is empty, or has white space around it"),
        ("   ", "a secret is empty, or has white space around it"),
        ("whsec_hidden\n", "white space around it"),
        (("whsec_hidden", ""), "a secret is empty"),
        ("whsec\x00hidden", "characters that no secret has"),
        (b"whsec_hidden", "must be text or a tuple of texts, not bytes"),
        (["whsec_hidden"], "must be text or a tuple of texts, not list"),
        (None, "must be text or a tuple of texts, not NoneType"),
        (("whsec_ok", b"whsec_hidden"), "a secret must be text, not bytes"),
    ],
)
def test_a_webhook_secret_that_can_be_none_is_refused_and_not_repeated(secrets: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^webhook_secrets.*{words}") as caught:
        Settings(webhook_secrets=secrets)
    assert "hidden" not in "".join(traceback.format_exception(caught.value.with_traceback(None)))


def test_webhook_secrets_are_one_or_several_and_never_shown() -> None:
    one: Any = "whsec_hidden"
    assert Settings(webhook_secrets=one).webhook_secrets == ("whsec_hidden",)
    both = Settings(webhook_secrets=("whsec_hidden", "whsec_hidden too"))
    assert both.webhook_secrets == ("whsec_hidden", "whsec_hidden too")
    assert repr(both) == str(both) == "Settings()"
    assert Settings().webhook_secrets == ()


@pytest.mark.parametrize("prior", [{}, 5, "learned"])
def test_a_prior_is_what_a_client_learned(prior: Any) -> None:
    with pytest.raises(ValueError, match=r"^prior must be what client.learned\(\) gave, not (dict|int|str)$"):
        Settings(prior=prior)


@pytest.mark.parametrize("on_event", [5, "print", [5], (print, "print"), {print}])
def test_a_listener_is_callable(on_event: Any) -> None:
    with pytest.raises(ValueError, match=r"^on_event must be callable, or several in a tuple, not (int|str|set)$"):
        Settings(on_event=on_event)


def test_one_listener_or_several_are_kept_in_their_order() -> None:
    seen: list[object] = []
    assert Settings().on_event == Settings(on_event=None).on_event == Settings(on_event=()).on_event == ()
    assert Settings(on_event=seen.append).on_event == (seen.append,)
    assert Settings(on_event=[print, seen.append]).on_event == (print, seen.append)


def test_settings_are_given_by_name_and_a_misspelt_one_is_refused() -> None:
    make: Any = Settings
    with pytest.raises(TypeError):
        make("vip")
    with pytest.raises(TypeError, match="max_inflight"):
        make(max_inflight=5)


def test_a_repr_shows_what_differs_from_the_defaults() -> None:
    assert repr(Settings()) == "Settings()"
    assert repr(Settings(max_in_flight=5, first_poll_s=5.0, tier="vip")) == "Settings(tier='vip', max_in_flight=5)"


# ------------------------------------------------------------------------------------------------ buckets


@pytest.mark.parametrize(
    ("tier", "submits_per_min", "queries_per_min"),
    [("default", 300, 3_000), ("vip", 1_000, 10_000), ("svip", 2_000, 30_000)],
)
def test_a_tier_is_the_documented_one_with_ten_seconds_of_burst(
    tier: Any, submits_per_min: float, queries_per_min: float
) -> None:
    limits = Settings(tier=tier).rate_limits
    assert limits is TIERS[tier]
    assert limits.submit_per_s * 60 == pytest.approx(submits_per_min)
    assert limits.query_per_s * 60 == pytest.approx(queries_per_min)
    # Never above ten seconds' worth: a token too many would be a 429 of our own making.
    assert limits.submit_per_s * 10 - 1 < limits.submit_burst <= limits.submit_per_s * 10 + 1e-9
    assert limits.query_per_s * 10 - 1 < limits.query_burst <= limits.query_per_s * 10 + 1e-9


def test_limits_go_over_the_tier() -> None:
    assert Settings(tier="svip", limits=LIMITS).rate_limits is LIMITS
    assert Settings(tier="auto").rate_limits is TIERS["default"]


@pytest.mark.parametrize(
    ("settings", "adopts"),
    [
        (Settings(tier="auto"), True),
        (Settings(tier="auto", limits=LIMITS), False),
        (Settings(tier="default"), False),
        (Settings(tier="svip"), False),
    ],
)
def test_only_an_unstated_tier_follows_the_service(settings: Settings, adopts: bool) -> None:
    assert settings.adopts_tier is adopts


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("value", [0, -1, 2e6, math.inf, math.nan, True, "5", None], ids=repr)
def test_a_rate_that_is_none_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}"):
        RateLimits(**{**dict.fromkeys(RATES, 1), name: value})


def test_a_bucket_holds_at_least_one_token_and_may_hold_a_part_of_one_more() -> None:
    assert LIMITS.submit_burst == 2.5
    with pytest.raises(ValueError, match="submit_burst"):
        attrs.evolve(LIMITS, submit_burst=0.9)


# ------------------------------------------------------------------------------------------------ address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://toapis.com", "https://toapis.com/v1"),
        ("https://toapis.com/", "https://toapis.com/v1"),
        ("https://toapis.com/v1", "https://toapis.com/v1"),
        ("https://toapis.com/v1/", "https://toapis.com/v1"),
        ("https://toapis.com//v1//", "https://toapis.com/v1"),
        ("https://toapis.com/v1/v1", "https://toapis.com/v1"),
        ("https://toapis.com/v1/v1/", "https://toapis.com/v1"),
        ("  https://toapis.com\n", "https://toapis.com/v1"),
        ("HTTPS://ToAPIs.cn/v1", "https://toapis.cn/v1"),
        ("https://toapis.com:8443/v1/", "https://toapis.com:8443/v1"),
        ("https://toapis.com:/v1/", "https://toapis.com/v1"),
        ("https://gateway.example/toapis/v1/", "https://gateway.example/toapis/v1"),
        ("https://gateway.example/toapis", "https://gateway.example/toapis/v1"),
        ("https://gateway.example/xv1", "https://gateway.example/xv1/v1"),
        ("https://gateway.example/v1/x", "https://gateway.example/v1/x/v1"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443/v1"),
        ("https://[2001:db8::1]/v1", "https://[2001:db8::1]/v1"),
        ("http://localhost:8080", "http://localhost:8080/v1"),
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
        ("http://127.8.8.8", "http://127.8.8.8/v1"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1"),
    ],
)
def test_every_spelling_of_an_address_is_one(text: str, expected: str) -> None:
    assert normalise_base_url(text) == expected
    assert normalise_base_url(expected) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("toapis.com", "must be like https://toapis.com"),
        ("", "must be like https://toapis.com"),
        ("ftp://toapis.com", "must be like"),
        ("file:///etc/passwd", "must be like"),
        ("https://", "must be like"),
        ("https:///v1", "must be like"),
        ("https://toapis.com:0", "must be like"),
        ("https://to apis.com", "must be like"),
        ("https://toapis.com/a b", "must be like"),
        ("https://toapis.com:99999", "not a URL"),
        ("https://toapis.com:port", "not a URL"),
        ("https://[::1", "not a URL"),
        ("https://us\u2100er:secret@toapis.com", "not a URL"),
        ("https://user:secret@toapis.com", "no user, password, query or fragment"),
        ("https://secret@toapis.com", "no user, password, query or fragment"),
        ("https://@toapis.com", "no user"),
        ("https://toapis.com/v1?key=secret", "no user, password, query or fragment"),
        ("https://toapis.com/v1#secret", "no user, password, query or fragment"),
        ("http://toapis.com", "http:// would send the key in the clear to toapis.com; use https://"),
        ("http://10.0.0.1", "in the clear"),
        ("http://0.0.0.0", "in the clear"),
        ("http://localhost.evil.example", "in the clear"),
        ("http://127.0.0.1.evil.example", "in the clear"),
        ("http://[2001:db8::1]", "in the clear"),
    ],
)
def test_an_address_that_can_not_be_right_or_safe_is_refused(text: str, words: str) -> None:
    with pytest.raises(ClientStateError) as caught:
        normalise_base_url(text)
    assert words in str(caught.value)
    assert "secret" not in "".join(traceback.format_exception(caught.value.with_traceback(None)))


# ------------------------------------------------------------------------------------------------ key


def test_the_environment_is_read_when_a_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClientStateError, match="TOAPIS_API_KEY"):
        ToAPIs()
    monkeypatch.setenv("TOAPIS_API_KEY", KEY)
    monkeypatch.setenv("TOAPIS_BASE_URL", "https://toapis.cn/")
    assert "https://toapis.cn/v1" in repr(ToAPIs())
    assert Credentials.resolve(None, None) == Credentials(KEY, "https://toapis.cn/v1")
    monkeypatch.setenv("TOAPIS_BASE_URL", "")
    assert Credentials.resolve(None, None) == Credentials(KEY, "https://toapis.com/v1")


def test_arguments_go_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-other")
    monkeypatch.setenv("TOAPIS_BASE_URL", "https://other.example")
    assert Credentials.resolve(KEY, "http://localhost:1") == Credentials(KEY, "http://localhost:1/v1")


@pytest.mark.parametrize("key", [None, "", "  ", "\n"])
def test_without_a_key_both_ways_out_are_told(key: str | None) -> None:
    with pytest.raises(ClientStateError, match=r"no API key: set TOAPIS_API_KEY .* sandbox"):
        Credentials.resolve(key, None)


@pytest.mark.parametrize("key", ["sk-a b", '"sk-a"', "'sk-a'", "sk-a\nb", "sk-\u201ca\u201d", "sk-\x00", "“sk-a”"])
def test_a_key_that_no_key_looks_like_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(ClientStateError, match="characters that no key has") as caught:
        Credentials.resolve(key, None)
    assert "sk-" not in str(caught.value)


def test_white_space_around_a_key_is_no_part_of_it() -> None:
    assert Credentials.resolve(f" {KEY}\r\n", None).api_key == KEY


@pytest.mark.parametrize(
    "show", [repr, str, "{}".format, "{!r}".format, "%s".__mod__], ids=["repr", "str", "f", "f!r", "%"]
)
def test_the_key_is_in_no_text_of_anything(show: Any) -> None:
    things = [Credentials.resolve(KEY, None), ToAPIs(KEY), ToAPIs(KEY).__dict__, Settings()]
    for thing in things:
        assert KEY not in show(thing)
        assert KEY[3:20] not in show(thing)


@pytest.mark.parametrize(
    "endpoint",
    [
        "/images/generations",
        "/images/generations/",
        "/images/generations/task_1",
        "/images/edits",
        "/videos/generations",
        "/chat/completions",
        "/uploads/images",
        "/balance",
        "/user/balance",
        "/models",
        "/pricing",
        "//images//generations",
    ],
)
@pytest.mark.parametrize("root", ["", "/v1", "/gateway/v1", "/v1/account/gateway"])
def test_an_endpoint_pasted_as_the_base_url_means_its_root(root: str, endpoint: str) -> None:
    expected = f"https://toapis.com{root.removesuffix('/v1')}/v1"
    assert Credentials.resolve("sk-x", f"https://toapis.com{root}{endpoint}").base_url == expected


def test_the_key_may_stand_in_a_file_below_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("sk-in-a-file\n")
    monkeypatch.delenv("TOAPIS_API_KEY", raising=False)
    monkeypatch.setenv("TOAPIS_API_KEY_FILE", str(file))
    assert Credentials.resolve(None, None).api_key == "sk-in-a-file"
    assert Credentials.resolve("sk-given", None).api_key == "sk-given"
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-in-the-environment")
    assert Credentials.resolve(None, None).api_key == "sk-in-the-environment"


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"", b"two\nlines", b"x" * 5_000])
def test_a_key_file_without_a_key_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.delenv("TOAPIS_API_KEY", raising=False)
    monkeypatch.setenv("TOAPIS_API_KEY_FILE", str(file))
    with pytest.raises(ClientStateError, match=r"TOAPIS_API_KEY_FILE|has characters"):
        Credentials.resolve(None, None)
