"""What stands between the client and the service: certificates, names, proxies, and odd but harmless answers."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import shutil
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import ClientStateError, SubmitUncertain, ToAPIs, TransportError

from .kit import KEY, PNG, RawServer, fast, hang_up, raw, reply, task

if TYPE_CHECKING:
    from pathlib import Path

GOOD = json.dumps(task()).encode()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def failure_of(client: ToAPIs) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await client.status("task_1")
    return caught.value


# ------------------------------------------------------------------------------------------- certificates


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a self-signed certificate of 127.0.0.1, and its key beside it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed here")
    made = tmp_path / "cert.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    command = [openssl, *options.split(), "-addext", "subjectAltName=IP:127.0.0.1,DNS:toapis.invalid,DNS:files.invalid"]
    subprocess.run([*command, "-keyout", tmp_path / "key.pem", "-out", made], check=True, capture_output=True)  # noqa: S603
    return made


async def serve_tls(certificate: Path, bodies: dict[bytes, bytes]) -> asyncio.Server:
    """A server that answers with the body whose name the path begins with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        body = next(bodies[name] for name in bodies if path.startswith(name))
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)


async def test_a_certificate_that_nobody_trusts_is_told_with_what_to_do_and_trusted_by_SSL_CERT_FILE(  # noqa: N802
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await serve_tls(certificate, {b"/v1": GOOD}) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        async with ToAPIs(KEY, base_url=url, settings=fast()) as client:
            error = await failure_of(client)
            assert not error.retryable
            assert "SSL_CERT_FILE" in str(error)
        monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/at-all.pem")
        async with ToAPIs(KEY, base_url=url, settings=fast()) as client:
            assert "names no file" in str(await failure_of(client))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with ToAPIs(KEY, base_url=url, settings=fast()) as client:
            assert (await client.status("task_1")).task_id == "task_1"


# ------------------------------------------------------------------------------------------- names


def unknown_name(*_: object, **__: object) -> Any:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def resolver_is_down(*_: object, **__: object) -> Any:
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def ares(code: int) -> Any:
    """What aiohttp raises where aiodns is installed: an OSError without a number, from the error of c-ares."""
    kind = type("DNSError", (Exception,), {"__module__": "aiodns.error"})

    def fail(*_: object, **__: object) -> Any:
        raise OSError(None, "Domain name not found") from kind(code, "Domain name not found")

    return fail


@pytest.mark.parametrize(
    ("resolve", "retryable"),
    [(unknown_name, False), (resolver_is_down, True), (ares(4), False), (ares(1), False), (ares(11), True)],
    ids=["unknown", "down", "ares-unknown", "ares-no-address", "ares-down"],
)
async def test_a_name_that_does_not_exist_is_told_and_a_resolver_that_is_down_may_come_back(
    monkeypatch: pytest.MonkeyPatch, resolve: Any, retryable: bool
) -> None:
    monkeypatch.setattr("aiohttp.TCPConnector._resolve_host", resolve)
    async with ToAPIs(KEY, base_url="https://nowhere.invalid", settings=fast()) as client:
        error = await failure_of(client)
    assert error.retryable is retryable
    assert ("TOAPIS_BASE_URL" in str(error)) is not retryable


async def test_of_a_host_that_answered_once_a_lost_name_is_a_lost_network(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        RawServer(
            raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD))
        ) as server,
        ToAPIs(KEY, base_url=server.url, settings=fast()) as client,
    ):
        await client.status("task_1")
        monkeypatch.setattr("aiohttp.TCPConnector._resolve_host", unknown_name)
        error = await failure_of(client)
        assert error.retryable


async def test_a_name_with_an_endless_label_does_not_exist() -> None:
    async with ToAPIs(KEY, base_url=f"https://{'a' * 64}.example", settings=fast()) as client:
        assert not (await failure_of(client)).retryable


# ------------------------------------------------------------------------------------------- proxies


async def test_the_proxy_of_the_environment_is_read_when_a_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer(hang_up(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n")) as proxy:
        before = ToAPIs(KEY, base_url="https://toapis.invalid", settings=fast())
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@{proxy.authority}")
        async with ToAPIs(KEY, base_url="https://toapis.invalid", settings=fast()) as client:
            monkeypatch.delenv("HTTPS_PROXY")
            error = await failure_of(client)
        (request,) = proxy.requests
        assert (request.method, request.target) == ("CONNECT", "toapis.invalid:443")
        assert request.headers["proxy-authorization"].startswith("Basic ")
        assert KEY not in str(request)
        assert error.retryable
        assert "hunter2" not in str(error)
        monkeypatch.setattr("aiohttp.TCPConnector._resolve_host", unknown_name)
        async with before:
            await failure_of(before)
        assert len(proxy.requests) == 1


async def test_a_proxy_that_wants_a_login_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer(hang_up(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with ToAPIs(KEY, base_url="https://toapis.invalid", settings=fast()) as client:
            error = await failure_of(client)
    assert not error.retryable
    assert "login" in str(error)


async def test_no_proxy_and_a_netrc_have_their_meaning_and_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with (
        RawServer(reply(200, task())) as server,
        ToAPIs(KEY, base_url=server.url, settings=fast()) as client,
    ):
        await client.status("task_1")
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_proxy_that_is_none_is_refused_when_the_client_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(ClientStateError, match="HTTPS_PROXY"):
        await ToAPIs(KEY, base_url="https://toapis.invalid", settings=fast()).start()
    monkeypatch.setenv("NO_PROXY", "toapis.invalid")
    async with ToAPIs(KEY, base_url="https://toapis.invalid", settings=fast()):
        pass


# ------------------------------------------------------------------------------------------- odd answers


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Security-Policy: " + b"x" * 60_000 + b"\r\n",
        b"".join(b"X-%d: 1\r\n" % number for number in range(500)),
        b"Content-Encoding: gzip\r\n",
        b"Content-Encoding: br\r\n",
        b"Content-Encoding: utf-8\r\n",
        b"Set-Cookie: ;;=\x01\xff; Path=\r\nSet-Cookie: a=b\r\n",
        b"Content-Type: text/html; charset=nonsense\r\n",
    ],
    ids=["long-header", "many-headers", "not-gzip", "not-br", "no-encoding", "cookies", "charset"],
)
async def test_an_answer_with_odd_headers_is_an_answer(head: bytes) -> None:
    act = raw(b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD)
    async with RawServer(act) as server, ToAPIs(KEY, base_url=server.url, settings=fast()) as client:
        assert (await client.submit("kite")).task_id == "task_1"
        assert (await client.status("task_1")).task_id == "task_1"
        assert "cookie" not in server.requests[-1].headers


async def test_an_answer_that_is_packed_unasked_is_unpacked() -> None:
    packed = gzip.compress(GOOD)
    for label in (b"Content-Encoding: gzip\r\n", b""):
        act = raw(b"HTTP/1.1 200 OK\r\n" + label + b"Content-Length: %d\r\n\r\n" % len(packed) + packed)
        async with RawServer(act) as server, ToAPIs(KEY, base_url=server.url, settings=fast()) as client:
            assert (await client.status("task_1")).task_id == "task_1"
            assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_a_small_answer_that_unpacks_to_a_huge_one_is_not_kept() -> None:
    packed = gzip.compress(b'{"id": "' + b"x" * 5_000_000)
    act = raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)
    settings = fast(max_answer_bytes=1_024, max_file_bytes=1_024)
    async with RawServer(act) as server, ToAPIs(KEY, base_url=server.url, settings=settings) as client:
        with pytest.raises(SubmitUncertain, match="longer than"):
            await client.submit("kite")


async def test_a_task_s_answer_may_hold_a_picture_and_a_balance_may_not() -> None:
    long = json.dumps(task(padding="x" * 50_000)).encode()
    async with (
        RawServer(reply(200, long)) as server,
        ToAPIs(KEY, base_url=server.url, settings=fast(max_answer_bytes=1_024, max_file_bytes=65_536)) as client,
    ):
        assert (await client.status("task_1")).task_id == "task_1"
        with pytest.raises(Exception, match="longer than 1024 bytes"):
            await client.balance()


# ------------------------------------------------------------------------------------------- all of it together


class Tunnel:
    """A proxy that leads every CONNECT to one port of this machine."""

    def __init__(self, to_port: int) -> None:
        self.to_port = to_port
        self.targets: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.targets.append(head.split(b" ")[1].decode())
        there, back = await asyncio.open_connection("127.0.0.1", self.to_port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(self.pump(reader, back), self.pump(there, writer))

    @staticmethod
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()


async def test_requests_and_downloads_reach_their_hosts_through_a_proxy_that_tunnels_tls(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = task("task_1", "completed", result={"data": [{"url": "https://files.invalid/a.png"}]})
    server = await serve_tls(certificate, {b"/v1": json.dumps(done).encode(), b"/a.png": PNG})
    tunnel = Tunnel(server.sockets[0].getsockname()[1])
    proxy = await asyncio.start_server(tunnel.serve, "127.0.0.1", 0)
    async with server, proxy:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with ToAPIs(KEY, base_url="https://toapis.invalid", settings=fast()) as client:
            (path,) = await (await client.attach("task_1")).save(tmp_path)
    assert path.read_bytes() == PNG
    assert tunnel.targets == ["toapis.invalid:443", "files.invalid:443"]
