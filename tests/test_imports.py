"""The import table: which modules may know which libraries, held by reading the source."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import nas

PACKAGE = Path(nas.__file__).parent
FILES = {file.stem: file for file in sorted(PACKAGE.glob("*.py"))}

# Libraries with a home: no other module imports them.
HOMES = {
    "optuna": {
        *("space", "pruning", "sampling", "storage", "study", "details", "commands", "scheduler", "trials", "runs"),
        *("tpe", "single_writer"),
        *("choice", "export", "results", "finalists", "findings", "dry_run", "further", "ablation", "status"),
        *("plots", "report", "notes", "search", "dashboard", "serving"),
    },
    "optuna_dashboard": {"dashboard", "notes"},
    "plotly": {"plots", "report"},
    "jinja2": {"report"},
    "rich": {"console", "results", "summary", "dry_run", "search", "further", "ablate"},
    "ray": {"cluster"},
}
WITHOUT_TORCH = ("errors", "score", "recipe", "architecture", "cost", "constraints", "space")
WITHOUT_OPTUNA = ("network", "execution", "environment", "optimizer", "readers", "data", "training")


def imports(file: Path) -> set[str]:
    """The modules that a file imports anywhere, functions included, by their full names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} has a relative import; write the whole name"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def libraries(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(file)}


def siblings(file: Path) -> set[str]:
    """The modules of nas that a file imports."""
    parts = [name.split(".") for name in imports(file)]
    return {part[1] for part in parts if part[0] == "nas" and len(part) > 1 and part[1] in FILES}


def test_imports_of_libraries_stay_in_their_homes() -> None:
    strays = [
        f"{name} imports {library}"
        for name, file in FILES.items()
        for library, homes in HOMES.items()
        if library in libraries(file) and name not in homes
    ]
    assert strays == []


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_imports_of_descriptions_leave_out_torch(name: str) -> None:
    assert not libraries(FILES[name]) & {"torch", "torchvision", "torchinfo", "safetensors"}


def test_imports_among_modules_have_no_cycle() -> None:
    order = list(TopologicalSorter({name: siblings(file) for name, file in FILES.items()}).static_order())
    assert set(order) == set(FILES)


@pytest.mark.parametrize("low", [*WITHOUT_TORCH, *WITHOUT_OPTUNA])
def test_imports_run_downwards(low: str) -> None:
    ranks = [*WITHOUT_TORCH, *WITHOUT_OPTUNA]
    if low == "network":
        ranks.remove("space")  # building a network needs no search space
    below = set(ranks[: ranks.index(low)])
    assert siblings(FILES[low]) <= below


@pytest.mark.parametrize(("modules", "absent"), [(WITHOUT_TORCH, "torch"), (WITHOUT_OPTUNA, "optuna")])
def test_imports_bring_no_unwanted_library_in_by_a_side_door(modules: tuple[str, ...], absent: str) -> None:
    lines = ["import sys", *(f"import nas.{name}" for name in modules), f"sys.exit({absent!r} in sys.modules)"]
    assert subprocess.run([sys.executable, "-c", "\n".join(lines)], check=False).returncode == 0


def test_nothing_is_unpickled() -> None:
    for name, file in FILES.items():
        assert not imports(file) & {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}, name
        calls = [
            node.func for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ]
        loads = [call for call in calls if isinstance(call, ast.Attribute) and call.attr == "load"]
        assert {ast.unparse(call) for call in loads} <= {"safetensors.torch.load"}, name


def test_only_workers_makes_pools_of_processes() -> None:
    """There they are told to end with the program; others would wait for work when it was killed."""
    pools = {"multiprocessing.Process", "multiprocessing.Pool", "concurrent.futures.ProcessPoolExecutor"}
    assert [name for name, file in FILES.items() if imports(file) & pools] == ["workers"]
