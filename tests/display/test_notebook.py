"""A real Jupyter kernel runs what a user would type; what is looked at are the outputs that the notebook keeps."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter
from nbclient import NotebookClient

from tests.display.test_html import seen
from toapis_async.batch.view import BatchView

if TYPE_CHECKING:
    from pathlib import Path

OPEN = """
from toapis_async import ImageRequest, ToAPIs, VideoRequest
from tests.engine.kit import KEY, fast
from toapis_async.sandbox import Limits, Sandbox

sandbox = Sandbox(service_time_s=0.02, limits=Limits(1e5, 1e5, 1e5, 1e5))
await sandbox.start()
client = await ToAPIs(KEY, base_url=sandbox.base_url, settings=fast()).start()
"""
CLOSE = "await client.aclose()\nawait sandbox.aclose()"


def run(folder: Path, *cells: str) -> list[list[Any]]:
    """Each cell's outputs, by the cells in one kernel."""
    v4: Any = nbformat.v4
    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell.strip()) for cell in (OPEN, *cells, CLOSE)])
    metadata = {"metadata": {"path": str(folder)}}
    kernel = NotebookClient(notebook, timeout=60, kernel_name="python3", resources=metadata, record_timing=False)
    kernel.execute(env={"PYTHONPATH": ":".join(sys.path), "PYTHONWARNINGS": "error::ResourceWarning", "PATH": "/bin"})
    return [cell.outputs for cell in notebook.cells[1:-1]]


def html(outputs: list[Any], number: int = 0) -> str:
    shown: str = outputs[number]["data"]["text/html"]
    return shown


def test_a_notebook_shows_pictures_states_and_batches_that_fill(tmp_path: Path) -> None:
    linked, saved, video, handle, batch, displayed = run(
        tmp_path,
        "generation = await client.generate('a <script>red</script> kite')\ngeneration",
        "await generation.save('pictures')\ngeneration",
        "clip = await client.generate(VideoRequest('kite', model='seedance-2'))\nawait clip.save('clips')\nclip",
        "handle = await client.submit('a kite')\nhandle",
        """
batch = client.batch([f'<b>kite {number}</b>' for number in range(30)], save_to='batch', progress=True)
async for item in batch:
    assert item.ok
""",
        """
later = client.batch(['kite 1', 'kite 2'])
display(later)
assert [item.ok for item in await later.gather()] == [True, True]
later
""",
    )
    (link,) = seen(html(linked)).attributes("img", "src")
    assert (link or "").startswith("http://127.0.0.1:")
    (picture,) = seen(html(saved)).attributes("img", "src")
    assert (picture or "").startswith("data:image/webp;base64,")
    (played,) = seen(html(video)).attributes("video", "src")
    assert (played or "").startswith("data:video/mp4;base64,")
    assert "task_img" in seen(html(handle)).text

    assert [output["output_type"] for output in batch] == ["display_data"]  # one, drawn anew
    filled = seen(html(batch))
    assert filled.attributes("progress", "value") == ["30"]
    assert "30/30 done" in filled.text
    assert "<b>kite" in filled.text
    assert len(filled.attributes("img", "src")) == 24
    assert all((source or "").startswith("data:image/") for source in filled.attributes("img", "src"))
    assert len(html(batch)) < 2_000_000

    for number in (0, 1):  # shown before it ran, and after
        assert "2/2 done" in seen(html(displayed, number)).text
        assert len(seen(html(displayed, number)).attributes("img", "src")) == 2
    everything = str([linked, saved, video, handle, batch, displayed])
    assert "SECRET" not in everything


@pytest.mark.parametrize("shell", [None, object()])
def test_outside_of_a_kernel_a_batch_is_what_its_repr_says(monkeypatch: pytest.MonkeyPatch, shell: object) -> None:
    class Shown:
        def _ipython_display_(self) -> None:
            BatchView(lambda: pytest.fail("nobody looks"), is_wanted=False).display()

        def __repr__(self) -> str:
            return "<Batch>"

    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: shell)
    formatter: Any = DisplayFormatter
    data, _ = formatter().format(Shown())
    assert data["text/plain"] == "<Batch>"
