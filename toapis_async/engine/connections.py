"""How connections are made and what their failures mean: proxies, certificates, limits of headers."""

from __future__ import annotations

import functools
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any, TypedDict

import aiohttp
from yarl import URL

from toapis_async.errors import TransportError

if TYPE_CHECKING:
    from toapis_async.proxies import Proxies

FAILURES = (aiohttp.ClientError, OSError, TimeoutError, UnicodeError)
"""What aiohttp raises when a request fails; `UnicodeError` is the resolver's for a host name with an endless label."""

HOPELESS = (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError)
"""Those of them that a link gets every time, for itself or for the target of its redirect."""

_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_ARES_NO_SUCH_NAME = frozenset({1, 4, 8})  # ENODATA, ENOTFOUND, EBADNAME
HEADER_LIMITS: Any = {"max_line_size": 65_536, "max_field_size": 65_536, "max_headers": 1_000}
"""For answers: filters and content hosts add headers of 12 kB and more, which browsers take."""


class ProxyOptions(TypedDict, total=False):
    """aiohttp's options for the proxy of a request; empty without one."""

    proxy: URL
    proxy_headers: dict[str, str]


class ProxyChoice:
    """Which proxy an address is reached through: that of the settings for all, or those of the environment."""

    def __init__(self, fixed: str | None, proxies: Proxies) -> None:
        self._fixed = fixed
        self._proxies = proxies

    def __call__(self, url: URL) -> ProxyOptions:
        """aiohttp's options. Raises `TransportError` (not retryable) when the environment names no usable proxy."""
        try:
            proxy = self._fixed or self._proxies.proxy_for(url.scheme, url.raw_host or "", url.port)
        except ValueError as error:
            raise TransportError(str(error), retryable=False) from None
        return _proxy_options(proxy) if proxy is not None else {}


def _proxy_options(url: str) -> ProxyOptions:
    """aiohttp's options for a proxy, its password apart from its address: aiohttp's errors quote the address."""
    address = URL(url)
    if not address.user and not address.password:
        return {"proxy": address}
    login = aiohttp.encode_basic_auth(address.user or "", address.password or "")
    return {"proxy": address.with_user(None), "proxy_headers": {"Authorization": login}}


def tls_context() -> ssl.SSLContext | bool:
    """What aiohttp checks certificates with. Its own context was made when it was imported: where SSL_CERT_FILE or
    SSL_CERT_DIR is set, another is made as they are now."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    return True if file is folder is None else _tls_context(file, folder)


@functools.lru_cache(maxsize=4)
def _tls_context(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Made once for these values of the variables, which OpenSSL reads itself: it takes tens of milliseconds."""
    return ssl.create_default_context()


def advice_on(error: BaseException) -> str | None:
    """What to do about a failure that the same host gives every time; None for one that may pass by itself."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        file = os.environ.get("SSL_CERT_FILE")
        if file and not os.path.isfile(file):
            return f"SSL_CERT_FILE={file!r} names no file, so that no certificate is trusted by it"
        return (
            "this machine trusts nobody who vouches for the certificate. Is its clock right? If a proxy or a filter "
            "puts its own certificate in place of the service's, name a file with it in SSL_CERT_FILE"
        )
    if isinstance(error, UnicodeError) or (isinstance(error, aiohttp.ClientConnectorDNSError) and _is_unknown(error)):
        return (
            "there is no host of this name: is the base URL (TOAPIS_BASE_URL) right, is a proxy needed (HTTPS_PROXY)?"
        )
    if isinstance(error, aiohttp.ClientHttpProxyError) and error.status == 407:
        return "the proxy wants a login: HTTPS_PROXY=http://user:password@host:port"
    return None


def _is_unknown(error: aiohttp.ClientConnectorDNSError) -> bool:
    """Whether a resolver said that there is no such name, rather than that it could not find out."""
    cause = error.os_error.__cause__
    if cause is not None and type(cause).__module__.startswith("aiodns"):  # aiohttp resolves with it where it is there
        return cause.args[0] in _ARES_NO_SUCH_NAME
    return error.os_error.errno in _NO_SUCH_NAME
