"""Makes docs/notebook.png: a real Jupyter kernel runs the cells below against a sandbox, and Chromium shows each with
its output, at the moment when half of the batch is there. Needs the extra `dev` and Debian's chromium.

    .venv/bin/python docs/examples/notebook_screenshot.py
"""

import tempfile
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image
from playwright.sync_api import sync_playwright

TARGET = Path(__file__).parents[1] / "notebook.png"
OPEN = """
from toapis_async import Settings, ToAPIs
from toapis_async.sandbox import Sandbox

sandbox = Sandbox(speed=40, tier="svip", seed=7)
await sandbox.start()
quick = Settings(first_poll_s=0.1, min_poll_interval_s=0.1, poll_jitter=0)
client = await ToAPIs("sk-picture", base_url=sandbox.base_url, settings=quick).start()
"""
SHOWN = (
    """
generation = await client.generate("a red kite over the sea", size="16:9")
await generation.save("pictures")
generation
""",
    """
handle = await client.submit("a lighthouse in fog")
handle
""",
    """
prompts = [f"kite number {number}" for number in range(1, 21)]
batch = client.batch(prompts, save_to="kites", max_in_flight=4, progress=True)
async for item in batch:
    if not item.ok:
        print(item.key, item.error)
""",
)
HALF_WAY = "{cell}    if batch.statistics().done >= 10:\n        break\nawait batch.aclose()"
STYLE = """
body { font: 14px system-ui, sans-serif; margin: 16px; width: 900px; color: #1a1a1a; background: #fff }
pre { background: #f5f5f5; border: 1px solid #ddd; padding: 8px; margin: 10px 0 8px; font-size: 13px }
"""


def page(folder: Path) -> str:
    """The cells and their outputs."""
    v4: Any = nbformat.v4
    run = (OPEN, *SHOWN[:-1], HALF_WAY.format(cell=SHOWN[-1]))
    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell.strip()) for cell in run])
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    parts = [f"<style>{STYLE}</style>"]
    for source, cell in zip(SHOWN, notebook.cells[1:], strict=True):
        outputs = [output["data"]["text/html"] for output in cell.outputs if "data" in output]
        parts += [f"<pre>{escape(source.strip())}</pre>", *outputs]
    return "".join(parts)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        content = page(Path(folder))
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=options)
        tab = browser.new_page(viewport={"width": 940, "height": 400})
        tab.set_content(content)
        tab.screenshot(path=TARGET, full_page=True)
        browser.close()
    with Image.open(TARGET) as image:
        plain = image.convert("RGB")
    plain.quantize(palette=plain.quantize(256)).save(TARGET, optimize=True)


if __name__ == "__main__":
    main()
