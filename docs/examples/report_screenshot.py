"""Makes docs/report.png: runs the example prompts through the sandbox at the service's own pace (about a minute),
writes the page of that run, and takes its picture. Needs the extra `dev` and Debian's chromium.

    .venv/bin/python docs/examples/report_screenshot.py
"""

import asyncio
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from toapis_async import BatchItem, TaskFailed, ToAPIs
from toapis_async.report import ReportRow, RowError, write_report
from toapis_async.sandbox import Sandbox

HERE = Path(__file__).parent
TIMES_OF_DAY = ("", ", at first light", ", at noon", ", after midnight")


def prompts() -> list[dict[str, Any]]:
    """The examples, at four times of the day; one of them is to fail."""
    given = [json.loads(line) for line in (HERE / "prompts.jsonl").read_text("utf-8").splitlines()]
    base = [{"prompt": one, "key": "snail-race"} if isinstance(one, str) else one for one in given]
    rows = [
        one | {"prompt": one["prompt"] + when, "key": f"{one['key']}{'-' + when.split()[-1] if when else ''}"}
        for when in TIMES_OF_DAY
        for one in base
    ]
    rows[3]["prompt"] += " [fail]"
    return rows


async def run(folder: Path) -> list[ReportRow]:
    async with (
        Sandbox(billing="always") as sandbox,
        ToAPIs("sk-picture", base_url=sandbox.base_url) as client,
        client.batch(prompts(), save_to=folder / "images") as batch,
    ):
        rows = [row_of(item, folder) async for item in batch]
    return sorted(rows, key=lambda row: row.index)


def row_of(item: BatchItem, folder: Path) -> ReportRow:
    request, made = item.request, item.generation
    assert request is not None
    begun, ended = (made.created_at, made.completed_at) if made else (None, None)
    return ReportRow(
        index=item.index,
        key=item.key,
        state="done" if item.ok else "failed",
        prompt=request.prompt,
        model=request.model,
        size=request.size or "1:1",
        resolution=request.resolution or "1k",
        quality=request.quality or "medium",
        n=request.n,
        files=tuple(file.relative_to(folder).as_posix() for file in item.files),
        task_id=item.task_id,
        client_business_id=item.client_business_id,
        credits=made.billing.credits if made and made.billing else None,
        submitted_at=begun,
        completed_at=ended,
        saved_at=datetime.now(UTC) if item.files else None,
        service_s=(ended - begun).total_seconds() if begun and ended else None,
        error=RowError("TaskFailed", item.error.code, item.error.message)
        if isinstance(item.error, TaskFailed)
        else None,
    )


def photograph(page: Path, target: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(viewport={"width": 1440, "height": 1130}, locale="en-GB", timezone_id="UTC")
        tab.goto(page.as_uri())
        tab.wait_for_function("[...document.images].slice(0, 12).every((image) => image.complete)")
        tab.screenshot(path=target)
        browser.close()
    with Image.open(target) as image:
        plain = image.convert("RGB")
    plain.quantize(palette=plain.quantize(256)).save(target, optimize=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page = write_report(folder, asyncio.run(run(folder)), title="Kites and other journeys")
        photograph(page, HERE.parent / "report.png")


if __name__ == "__main__":
    main()
