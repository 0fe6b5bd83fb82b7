"""The hosts of result files: any host, and none of them gets the key.

A link goes out in the very spelling it came in, and its redirects are followed here, hop by hop: each is judged before
a connection is made, so that no link can reach into the machine's own networks.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from toapis_async.engine.connections import HEADER_LIMITS
from toapis_async.errors import DownloadFailed, SessionClosed
from toapis_async.protocol.lenient import shorten
from toapis_async.protocol.links import absolute, is_local, target_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ssl import SSLContext

    from aiohttp.abc import ResolveResult

    from toapis_async.engine.connections import ProxyChoice, ProxyOptions
    from toapis_async.settings import Settings

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class _LocalAddress(OSError):
    """A name leads to local addresses alone."""


class _PublicResolver(AbstractResolver):
    """Names to addresses, the local ones left out. The connection goes to the very addresses that were judged."""

    def __init__(self) -> None:
        self.unfiltered = aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self.unfiltered.resolve(host, port, family)
        public = [result for result in found if not is_local(result["host"])]
        if found and not public:
            raise _LocalAddress(f"{host} has the local address {found[0]['host']}")
        return public

    async def close(self) -> None:
        await self.unfiltered.close()


class FileHosts:
    """Sessions for files, on connections of their own: downloads that stall must not hold up submissions and polls."""

    def __init__(
        self,
        base_url: str,
        settings: Settings,
        proxy_of: ProxyChoice,
        headers: Mapping[str, str],
    ) -> None:
        self._base = URL(base_url)
        self._settings = settings
        self._proxy_of = proxy_of
        self._headers = headers
        # An API on this machine or in a local network has its files there.
        self._guarded = not settings.allow_private_links and not is_local(self._base.raw_host or "")
        self._resolver: _PublicResolver | None = None
        self._public: aiohttp.ClientSession | None = None
        self._unguarded: aiohttp.ClientSession | None = None

    def open(self, tls: SSLContext | bool) -> None:
        self._resolver = _PublicResolver()
        self._public = self._session(ssl=tls, resolver=self._resolver)
        self._unguarded = self._session(ssl=tls)

    def _session(self, **options: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._settings.download_concurrency, **options),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # what came is told by its bytes; labels of encodings are wrong now and then
            **HEADER_LIMITS,
        )

    async def aclose(self) -> None:
        owned = (self._public, self._unguarded, self._resolver)
        self._public = self._unguarded = None
        async with AsyncExitStack() as stack:
            for each in owned:
                if each is not None:
                    stack.push_async_callback(each.close)

    async def get(self, link: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """The answer of the host that a link, or the last of its redirects, names. It must be closed.

        Raises `DownloadFailed` when the link can never work or leads where it must not, and what aiohttp raises.
        """
        deadline_s = asyncio.get_running_loop().time() + self._settings.download_timeout_s
        url = _url_of(absolute(link, str(self._base)), link)
        cookies: aiohttp.CookieJar | None = None
        hops = 0
        while True:
            sent = {**headers, **_cookie_header(cookies, url)}
            response = await self._hop(url, sent, deadline_s, link)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response
            response.release()
            hops += 1
            if hops > MAX_REDIRECTS:
                raise aiohttp.TooManyRedirects(response.request_info, (response,))
            if "Set-Cookie" in response.headers:
                cookies = cookies or aiohttp.CookieJar(unsafe=True, quote_cookie=False)
                cookies.update_cookies_from_headers(response.headers.getall("Set-Cookie"), url)
            url = _url_of(_joined(url, location), link)

    async def _hop(self, url: URL, headers: Mapping[str, str], deadline_s: float, link: str) -> aiohttp.ClientResponse:
        """One request. Through a proxy, which looks names up itself, only an address in the URL can be judged."""
        proxy = self._proxy_of(url)
        is_local_host = is_local(url.raw_host or "")
        if not self._guarded or (proxy and not is_local_host):
            return await self._send(self._unguarded, url, headers, deadline_s, proxy)
        if not is_local_host:
            try:
                return await self._send(self._public, url, headers, deadline_s, proxy)
            except aiohttp.ClientConnectorDNSError as error:
                if not isinstance(error.os_error, _LocalAddress):
                    raise
        if await self._api_is_local():
            self._guarded = False
            return await self._send(self._unguarded, url, headers, deadline_s, proxy)
        raise DownloadFailed(
            f"the link leads to {shorten(url.raw_host or '', 60)}, which is in a local network, while the API is not. "
            "If its files are meant to be there: Settings(allow_private_links=True), or --allow-private-links",
            url=link,
        )

    async def _send(
        self,
        session: aiohttp.ClientSession | None,
        url: URL,
        headers: Mapping[str, str],
        deadline_s: float,
        proxy: ProxyOptions,
    ) -> aiohttp.ClientResponse:
        if session is None:
            raise SessionClosed("the client is closed, and its connections with it")
        settings = self._settings
        timeout = aiohttp.ClientTimeout(
            total=max(deadline_s - asyncio.get_running_loop().time(), 1e-3),
            sock_connect=settings.connect_timeout_s,
            sock_read=settings.read_timeout_s,
        )
        return await session.get(url, headers=headers, allow_redirects=False, timeout=timeout, **proxy)

    async def _api_is_local(self) -> bool:
        """Whether the API's own name leads into a local network (a gateway of a company)."""
        assert self._resolver is not None
        try:
            found = await self._resolver.unfiltered.resolve(self._base.raw_host or "", self._base.port or 443)
        except OSError:
            return False
        return bool(found) and all(is_local(result["host"]) for result in found)


def _url_of(text: str | None, link: str) -> URL:
    """A URL that goes out as it is spelled, its host in ASCII. Raises `DownloadFailed` for none."""
    if text is not None:
        try:
            parts = urlsplit(text)
            origin = URL(f"{parts.scheme}://{parts.netloc}")
            host = origin.raw_host or ""
            if "%" not in host or ":" in host:
                return URL(f"{origin.scheme}://{origin.raw_authority}{target_of(text)}", encoded=True)
        except ValueError:
            pass
    raise DownloadFailed("the link, or one that it leads to, is no http(s) URL", url=link)


def _joined(url: URL, location: str) -> str | None:
    try:
        location = location.strip()
        return absolute(location if location.startswith("/") else urljoin(str(url), location), str(url))
    except ValueError:
        return None


def _cookie_header(jar: aiohttp.CookieJar | None, url: URL) -> dict[str, str]:
    """What the redirects before have set, for those hosts that may see it: some give a file only to who shows it."""
    morsels = jar.filter_cookies(url).values() if jar is not None else ()
    return {"Cookie": "; ".join(f"{m.key}={m.coded_value}" for m in morsels)} if morsels else {}
