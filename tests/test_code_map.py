"""The map of the code in CONTRIBUTING.md names every module of the package, once, and nothing else."""

import re
from pathlib import Path

import nas

ROOT = Path(__file__).parents[1]
PACKAGE = Path(nas.__file__).parent


def test_the_code_map_names_every_module_once() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(nas/[\w/]+\.py)` \|", text, re.MULTILINE)
    files = {path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent == PACKAGE}
    there = {str(path.relative_to(PACKAGE.parent)) for path in files}
    assert sorted(there - set(named)) == [], "missing in CONTRIBUTING.md"
    assert sorted(set(named) - there) == [], "named in CONTRIBUTING.md, and not there"
    assert len(named) == len(set(named))
