"""Which proxy a request goes through, by the usual variables of the environment."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

_PORTS: Final = {"http": 80, "https": 443}


@frozen
class Proxies:
    """HTTPS_PROXY and HTTP_PROXY by the scheme of an address, and the hosts that are reached directly (NO_PROXY)."""

    by_scheme: Mapping[str, str] = field(factory=dict[str, str], repr=False)  # may hold passwords
    exempt: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls) -> Proxies:
        """As it is now; a lower-case name goes before the other, and HTTP_PROXY is not read in a CGI script, where it
        is a header of the request."""
        found = getproxies_environment()
        exempt = tuple(found.get("no", "").replace(",", " ").split())
        return cls({scheme: found[scheme] for scheme in _PORTS if found.get(scheme)}, exempt)

    def proxy_for(self, scheme: str, host: str, port: int | None) -> str | None:
        """The proxy's URL for an address; None when it is to be reached directly, as this machine itself always is.

        Raises `ValueError` when the variable holds no http(s) URL.
        """
        proxy = self.by_scheme.get(scheme)
        host = host.lower().rstrip(".")
        if proxy is None or _is_this_machine(host):
            return None
        if any(_covers(entry, host, port or _PORTS[scheme]) for entry in self.exempt):
            return None
        url = proxy if "://" in proxy else f"http://{proxy}"
        if not is_proxy_url(url):
            raise ValueError(f"{scheme.upper()}_PROXY must be an http(s) URL, like http://user:password@host:port")
        return url


def is_proxy_url(value: object) -> bool:
    """Whether a value is an http(s) URL with a host."""
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        return parts is not None and parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_this_machine(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address is not None else host == "localhost" or host.endswith(".localhost")


def _covers(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY names a host: `*`, a name (with the names below it), an address or a network, each
    with or without a port."""
    if entry == "*":
        return True
    name, entry_port = _with_port(entry.lower())
    if entry_port is not None and entry_port != port:
        return False
    try:
        network = ipaddress.ip_network(name, strict=False)
    except ValueError:
        name = name.removeprefix("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    address = _address(host)
    return address is not None and address in network


def _with_port(entry: str) -> tuple[str, int | None]:
    """The name and the port of `host:port`, `[::1]:port`, or one of them alone; an IPv6 address has many colons."""
    name, colon, port = entry.rpartition(":")
    if colon and port.isascii() and port.isdigit() and (name.endswith("]") or ":" not in name):
        return name.strip("[]"), int(port)
    return entry.strip("[]"), None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
