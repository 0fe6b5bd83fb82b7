"""Links: how they are spelled, where they lead, and what they hold themselves."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.protocol.links import absolute, answered_at, decode_data, is_data, is_local, target_of

BASE = "https://toapis.com/v1"
SIGNED = "/files/lamp%20%28v2%29%27s.png?Expires=1999999999&Signature=q1w2%2FeR%3D%3D&ct=image%2Fpng"


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("https://files.example/a.png", "https://files.example/a.png"),
        ("HTTPS://files.example/a.png", "HTTPS://files.example/a.png"),
        (" https://files.example/a.png\n", "https://files.example/a.png"),
        ("/__files/a.png", "https://toapis.com/__files/a.png"),
        ("/__files/a b.png?x=%27", "https://toapis.com/__files/a b.png?x=%27"),
        ("__files/a.png", "https://toapis.com/__files/a.png"),
        ("/__files/../a//b.png", "https://toapis.com/__files/../a//b.png"),
        ("./a.png", "https://toapis.com/a.png"),
        ("//cdn.example/a.png", "https://cdn.example/a.png"),
        ("https://", None),
        ("https:///a.png", None),
        ("http://[::1", None),
        ("ftp://files.example/a.png", None),
        ("file:///etc/passwd", None),
        ("javascript:alert(1)", None),
        ("no url at all", None),
        ("and/or no url", None),
        ("null", None),
        ("", None),
    ],
)
def test_a_link_without_a_host_is_on_the_api_s(link: str, expected: str | None) -> None:
    assert absolute(link, BASE) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (SIGNED, SIGNED),
        ("/a?q=it's(1)!*;:@&=+$,/?|[x]~", "/a?q=it's(1)!*;:@&=+$,/?|[x]~"),
        ("/a%2fb/%e9", "/a%2fb/%e9"),
        ("/a/../b//c", "/a/../b//c"),
        ("", "/"),
        ("?x=1", "/?x=1"),
        ("/a b.png", "/a%20b.png"),
        ("/风筝.png?名=风", "/%E9%A3%8E%E7%AD%9D.png?%E5%90%8D=%E9%A3%8E"),
        ("/100%.png?50%zz", "/100%25.png?50%25zz"),
        ('/a"<>\\^`{}', "/a%22%3C%3E%5C%5E%60%7B%7D"),
        ("/a#fragment", "/a"),
        ("/\udce9", "/%E9"),
    ],
)
def test_a_link_goes_out_in_the_spelling_it_came_in(target: str, expected: str) -> None:
    assert target_of(f"https://files.example{target}") == expected


@settings(max_examples=200)
@given(target=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_target_can_stand_in_a_request_and_is_settled_after_once(target: str) -> None:
    spelled = target_of(f"https://files.example/{target}")
    assert spelled.isascii()
    assert not set(spelled) & set(' \t\r\n#<>"')
    assert target_of(f"https://files.example{spelled}") == spelled


LOCAL = [
    "127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST.", "x.localhost", "10.0.0.1", "172.16.0.1", "172.31.255.255",
    "192.168.1.1", "169.254.169.254", "0.0.0.0", "0.1.2.3", "::1", "::", "fc00::1", "fd12:3456::1",  # noqa: S104
    "fe80::1", "fe80::1%eth0",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:c0a8:101::1",
    "::127.0.0.1", "127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "10.1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1", "172.15.0.1", "172.32.0.1", "192.167.1.1", "198.18.0.1", "198.19.255.1", "100.64.0.1", "100.127.0.1",
    "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1", "files.toapis.com", "localhost.example",
    "10.example", "16843009", "0x1.1.1.1", "1.2.3.4.5", "256.1.1.1", "", "a" * 300, "fd.example", "9" * 60,
]  # fmt: skip


@pytest.mark.parametrize("host", LOCAL)
def test_an_address_of_the_machine_s_own_networks_is_local_however_written(host: str) -> None:
    assert is_local(host)


@pytest.mark.parametrize("host", PUBLIC)
def test_other_addresses_and_names_are_not(host: str) -> None:
    assert not is_local(host)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wed, 25 Nov 2026 12:00:00 GMT", datetime(2026, 11, 25, 12, tzinfo=UTC)),
        ("Wed, 25 Nov 2026 12:00:00 -0000", datetime(2026, 11, 25, 12, tzinfo=UTC)),
        ("Wed, 25 Nov 2026 14:00:00 +0200", datetime(2026, 11, 25, 12, tzinfo=UTC)),
        ("yesterday", None),
        ("", None),
        (None, None),
        ("Wed, 25 Nov 99999 12:00:00 GMT", None),
    ],
)
def test_the_moment_of_an_answer(text: str | None, expected: datetime | None) -> None:
    assert answered_at(text) == expected


CONTENT = bytes(range(256))
BASE64 = base64.b64encode(CONTENT).decode()


@pytest.mark.parametrize(
    ("link", "label"),
    [
        (f"data:image/png;base64,{BASE64}", "image/png"),
        (f"DATA:Image/PNG;charset=x;Base64,{BASE64}", "image/png"),
        (f"data:;base64,{BASE64}", ""),
        (f"data:;base64,{BASE64.rstrip('=')}", ""),
        (f"data:;base64,{base64.urlsafe_b64encode(CONTENT).decode()}", ""),
        ("data:;base64," + "\n".join(BASE64[at : at + 76] for at in range(0, len(BASE64), 76)), ""),
        (f"data:;base64,{BASE64.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}", ""),
        ("data:image/png," + "".join(f"%{byte:02x}" for byte in CONTENT), "image/png"),
    ],
)
def test_a_link_may_hold_its_file(link: str, label: str) -> None:
    assert is_data(link)
    assert decode_data(link) == (label, CONTENT)


@pytest.mark.parametrize("link", ["data:image/png", "data:;base64,A", "data:;base64,A*==", "data:;base64,é"])
def test_data_that_can_t_be_read_is_an_error(link: str) -> None:
    with pytest.raises(ValueError):
        decode_data(link)


def test_other_links_hold_nothing() -> None:
    assert not is_data("https://files.example/data:")
    assert not is_data("")
