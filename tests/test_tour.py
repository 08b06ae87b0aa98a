"""The notebook docs/tour.ipynb runs from its first cell to its last, and shows what it promises."""

import asyncio
import time
import warnings
from pathlib import Path
from typing import Any

import nbformat
import pytest

with warnings.catch_warnings():  # of a library that nbclient imports
    warnings.simplefilter("ignore")
    from nbclient import NotebookClient

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"


@pytest.mark.filterwarnings("ignore")  # nbclient's own, of its event loop and its sockets
def test_the_tour_runs_and_shows_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TOUR.parents[1]))
    notebook = nbformat.read(TOUR, as_version=4)  # type: ignore[no-untyped-call]  # nbformat's
    began = time.monotonic()
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    asyncio.run(client.async_execute())
    print(f"\nthe tour takes {time.monotonic() - began:.0f} s")
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = [set(output.get("data", {})) for output in shown]
    assert any("application/vnd.plotly.v1+json" in kind for kind in kinds)
    html = "".join(str(output.data["text/html"]) for output in shown if "text/html" in output.get("data", {}))
    assert "<svg" in html
    assert "wins with" in text_of(shown) or "Target" in text_of(shown)
    assert "epochs are equal to the last digit." in text_of(shown)
    assert (tmp_path / "results" / "tour" / "best" / "model.py").is_file()


def text_of(outputs: list[Any]) -> str:
    """All that is shown as text."""
    found = [(output.get("text", ""), output.get("data", {}).get("text/html", "")) for output in outputs]
    return "\n".join(f"{text}{html}" for text, html in found)
