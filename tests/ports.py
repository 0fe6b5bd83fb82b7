"""A port for what is to listen on it later."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from typing import Final

_BELOW_EPHEMERAL: Final = range(10_000, 32_768)
"""From the others the system takes ports for connections: one of those may be taken again at any moment."""


def unused_port() -> int:
    """One on loopback that nobody listens on."""
    while True:
        port = random.SystemRandom().choice(_BELOW_EPHEMERAL)
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that none stays in TIME_WAIT
            probe.bind(("127.0.0.1", port))
            return port
