"""Which addresses go through which proxy, by the variables of the environment."""

from __future__ import annotations

import pytest

from toapis_async.proxies import Proxies

PROXY = "http://proxy.corp:3128"


def proxies_of(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Proxies:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Proxies.from_environment()


@pytest.mark.parametrize(
    ("variables", "https", "http"),
    [
        ({}, None, None),
        ({"HTTPS_PROXY": PROXY}, PROXY, None),
        ({"https_proxy": PROXY}, PROXY, None),
        ({"HTTP_PROXY": PROXY}, None, PROXY),
        ({"HTTPS_PROXY": "http://other:1", "https_proxy": PROXY}, PROXY, None),
        ({"HTTPS_PROXY": "proxy.corp:3128"}, PROXY, None),
        ({"HTTPS_PROXY": ""}, None, None),
        ({"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, None, None),  # a CGI script: it is the header `Proxy:`
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, None, None),
    ],
    ids=str,
)
def test_the_scheme_of_the_address_picks_the_variable(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], https: str | None, http: str | None
) -> None:
    proxies = proxies_of(monkeypatch, **variables)
    assert proxies.proxy_for("https", "toapis.com", None) == https
    assert proxies.proxy_for("http", "toapis.com", None) == http


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "is_direct"),
    [
        ("toapis.com", "toapis.com", None, True),
        ("TOAPIS.com", "toapis.COM.", None, True),
        ("toapis.com", "api.toapis.com", None, True),
        ("toapis.com", "nottoapis.com", None, False),
        ("toapis.com", "toapis.com.evil.example", None, False),
        (".toapis.com", "api.toapis.com", None, True),
        (".toapis.com", "toapis.com", None, True),
        ("*.toapis.com", "api.toapis.com", None, True),
        ("toapis.com:443", "toapis.com", None, True),
        ("toapis.com:8443", "toapis.com", None, False),
        ("toapis.com:8443", "toapis.com", 8443, True),
        ("a.example, toapis.com ,b.example", "toapis.com", None, True),
        ("a.example toapis.com", "toapis.com", None, True),
        (",, .,", "toapis.com", None, False),
        ("10.1.2.3", "10.1.2.3", None, True),
        ("10.1.2.3", "10.1.2.30", None, False),
        ("10.0.0.0/8", "10.1.2.3", None, True),
        ("10.0.0.1/8", "10.1.2.3", None, True),
        ("10.0.0.0/8", "11.1.2.3", None, False),
        ("10.0.0.0/8", "toapis.com", None, False),
        ("10.1.2.3:443", "10.1.2.3", 443, True),
        ("10.1.2.3:80", "10.1.2.3", 443, False),
        ("fd00::/8", "fd00::1", None, True),
        ("fd00::/8", "10.1.2.3", None, False),
        ("[fd00::1]", "fd00::1", None, True),
        ("[fd00::1]:443", "fd00::1", 443, True),
        ("[fd00::1]:80", "fd00::1", 443, False),
        ("fd00::1", "fd00::1", None, True),
    ],
)
def test_no_proxy_names_who_is_reached_directly(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, port: int | None, is_direct: bool
) -> None:
    proxies = proxies_of(monkeypatch, HTTPS_PROXY=PROXY, NO_PROXY=no_proxy)
    assert proxies.proxy_for("https", host, port) == (None if is_direct else PROXY)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]", "app.localhost"])
def test_this_machine_is_never_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    proxies = proxies_of(monkeypatch, HTTPS_PROXY=PROXY, HTTP_PROXY=PROXY)
    assert proxies.proxy_for("https", host, None) is None
    assert proxies.proxy_for("http", host, 8080) is None


@pytest.mark.parametrize(
    "value", ["socks5://u:hunter2@127.0.0.1:1080", "http://", "http://u:hunter2@[", "http://a:b:c"]
)
def test_a_proxy_that_can_not_be_used_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    proxies = proxies_of(monkeypatch, HTTPS_PROXY=value)
    with pytest.raises(ValueError, match="HTTPS_PROXY must be an http") as caught:
        proxies.proxy_for("https", "toapis.com", None)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(proxies)
    assert proxies.proxy_for("https", "localhost", None) is None
