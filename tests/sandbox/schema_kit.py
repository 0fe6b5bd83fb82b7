"""The schema and the documented bodies, for the tests that hold something against them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "toapis.schema.json").read_text())
DOCUMENTED: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "documented.json").read_text())
MP4 = b"\0\0\0\x18ftypisom" + b"\0" * 64
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64
EXAMPLE = {one["what"]: one["body"] for one in DOCUMENTED}
SEED = EXAMPLE["the submission of the page of gpt-image-2-vip [seed]"]
BOAT = EXAMPLE["a video submission [docs]"]
URL = "https://a.example/b.png"
HOOK = "https://hooks.example/toapis/"


def complaints(body: object, kind: str) -> list[str]:
    """What is wrong with a body of this kind, by the schema."""
    validator = Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(body)]
