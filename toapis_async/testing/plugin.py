"""The pytest plugin: fixtures `toapis_sandbox`, `toapis_client`, `toapis_no_waits`; markers of the first two names.

Loaded with every run of pytest where this package is installed, so it imports nothing before a test asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toapis_async.client import ToAPIs
    from toapis_async.testing.threaded import ThreadedSandbox

_MARKERS = (
    "toapis_sandbox(*scenarios, **options): scenarios and toapis_async.sandbox.Sandbox options of this fixture",
    "toapis_client(**settings): toapis_async.Settings of this fixture",
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.fixture
def toapis_sandbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedSandbox]:
    """A running sandbox with its books and faults, in a thread of its own; the environment points clients to it.

    Its tasks take ten seconds by its clock, and its pictures are plain, unless the marker says otherwise.
    """
    from toapis_async.sandbox import Clock, Sandbox  # noqa: PLC0415
    from toapis_async.testing.client import KEY  # noqa: PLC0415
    from toapis_async.testing.threaded import ThreadedSandbox  # noqa: PLC0415

    scenarios, options = _marked(request, "toapis_sandbox")
    clock = Clock()
    defaults: dict[str, Any] = {"service_time_s": 10.0, "pictures": False}
    for scenario in scenarios:
        defaults |= scenario.options
    sandbox = ThreadedSandbox(Sandbox(clock=clock, **defaults | options), clock)
    sandbox.start()
    try:
        for scenario in scenarios:
            scenario.play(sandbox.faults)
        monkeypatch.setenv("TOAPIS_BASE_URL", sandbox.base_url)
        monkeypatch.setenv("TOAPIS_API_KEY", KEY)
        monkeypatch.delenv("TOAPIS_SHARED", raising=False)
        yield sandbox
    finally:
        sandbox.close()


@pytest.fixture
def toapis_client(request: pytest.FixtureRequest, toapis_sandbox: ThreadedSandbox) -> ToAPIs:
    """A client of `toapis_sandbox`, not open yet: `async with toapis_client:`. While it is open, time is virtual."""
    from toapis_async.settings import Settings  # noqa: PLC0415
    from toapis_async.testing.client import VirtualClient  # noqa: PLC0415

    _, settings = _marked(request, "toapis_client")
    return VirtualClient(toapis_sandbox, Settings(**settings))


@pytest.fixture
def toapis_no_waits(toapis_sandbox: ThreadedSandbox) -> Iterator[ThreadedSandbox]:
    """`toapis_sandbox`, and virtual time while a client of the code under test is open: also one that an app opens in a
    loop of its own, as under the `TestClient` of Starlette and FastAPI. Waiting takes no time."""
    from toapis_async.testing.client import virtual_clients  # noqa: PLC0415

    with virtual_clients(toapis_sandbox):
        yield toapis_sandbox


def _marked(request: pytest.FixtureRequest, name: str) -> tuple[list[Any], dict[str, Any]]:
    """What all markers of a name say, the nearest last."""
    marks = list(request.node.iter_markers(name))[::-1]
    named: dict[str, Any] = {}
    for mark in marks:
        named |= mark.kwargs
    return [scenario for mark in marks for scenario in mark.args], named
