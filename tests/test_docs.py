"""The pages are true: their links, the command lines in them, and their examples."""

import ast
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import nas
from nas.__main__ import COMMANDS
from nas.space.loading import load_space

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(path for folder in ("docs", "results", "nas") for path in sorted((ROOT / folder).rglob("*.md"))),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def headings(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = path.parent / name if name else path
            assert target.exists(), link
            assert not anchor or anchor in headings(target), link


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    assert len(README.splitlines()) <= 140
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} | {"docs/tour.ipynb", "CONTRIBUTING.md"}
    assert {page for page in pages if f"]({page})" not in README} == set()


def test_the_readme_shows_the_published_result() -> None:
    published = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    for number in ("15,222", "99.60 ± 0.02 %", "18,738", "99.46 ± 0.05 %", "1,006,128", "5,056,832"):
        assert number in README
        assert number in published


# examples


def command_lines() -> list[str]:
    """What pages say to type, without the comments behind it: `nas COMMAND …` or `python -m nas.COMMAND …`."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    found = re.findall(r"(?:^ +|`)(?:nas |python -m nas\.)([a-z]+ [^`\n]+)", text, re.MULTILINE)
    lines = {re.split(r"  | \[options\]", line)[0].strip() for line in found}
    return sorted(line for line in lines if " " in line and "[STUDY]" not in line)


@pytest.mark.parametrize("line", command_lines())
def test_command_lines_of_the_pages_are_understood(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)
    assert name in COMMANDS
    importlib.import_module(f"nas.{name}").parser().parse_args(arguments)


def blocks(path: Path) -> list[str]:
    """The Python of a page, block by block."""
    return re.findall(r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_python_page_run_in_order(tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("\n\n".join(blocks(ROOT / "docs" / "python.md")), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    told = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert "2 of 2 epochs are equal to the last digit." in told.stdout
    assert told.stdout.splitlines()[-1].endswith("; did you mean demo?")
    assert (tmp_path / "results" / "demo" / "best" / "model.py").is_file()


def test_the_calls_of_the_readme_exist() -> None:
    """Its search trains for minutes, so that it is not run here."""
    tree = ast.parse(blocks(ROOT / "README.md")[0])
    (search,) = (
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "nas.search"
    )
    keywords = {keyword.arg: None for keyword in search.keywords if keyword.arg}
    inspect.signature(nas.search).bind(*search.args, **keywords)
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    called = {"search", "best", "notation", "params", "test", "load", "predict", "zeros", "uint8"}
    assert attributes == called  # docs/python.md runs them


def test_the_space_of_the_readme_is_one(tmp_path: Path) -> None:
    file = tmp_path / "my_space.py"
    file.write_text(blocks(ROOT / "README.md")[1], encoding="utf-8")
    space = load_space(str(file))
    assert (space.name, space.dataset, space.num_classes) == ("my_space", "fashion_mnist", 10)
    assert {*space.distributions} == {"cells", "kernels0", "kernels1", "kernels2"}


def test_the_layer_of_the_concepts_is_one() -> None:
    block = next(block for block in blocks(ROOT / "docs" / "concepts.md") if "Block(" in block)
    named: dict[str, object] = {}
    exec(block, named)
    assert (named["halve"].name, named["halve"].notation) == ("strided 3×3", "s16")  # type: ignore[attr-defined]
