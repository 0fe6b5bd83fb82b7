"""The options of a batch are one value; what can't be is refused before a row is read."""

from typing import Any

import pytest

from toapis_async import InvalidRequest, ToAPIs


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"attempts": 0}, "attempts"),
        ({"attempts": True}, "attempts"),
        ({"attempts": None}, "attempts"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"max_in_flight": 1.5}, "max_in_flight"),
        ({"budget_credits": -1}, "budget_credits"),
        ({"max_images": "2"}, "max_images"),
        ({"save_to": {"music": "out"}}, "save_to"),
        ({"run": "spring"}, "run"),  # without a journal
    ],
)
async def test_a_bad_option_is_refused_by_name(options: dict[str, Any], name: str) -> None:
    async with ToAPIs("sk-1234567890") as client:
        with pytest.raises(InvalidRequest, match=name):
            client.batch(["a kite"], **options)
