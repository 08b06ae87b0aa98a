"""Imports run downwards from folder to folder, and each library has its homes: held by reading the source."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import nas
import nas.__main__ as nas_program

PACKAGE = Path(nas.__file__).parent
FILES = {".".join(file.relative_to(PACKAGE).with_suffix("").parts): file for file in sorted(PACKAGE.rglob("*.py"))}

# A folder imports from itself and from those after it; commands import from all of them.
FOLDERS = (
    *("cli", "api", "reporting", "codegen", "tuner", "samplers", "analysis", "study", "workers"),
    *("training", "datasets", "space", "optuna_internals", "network", "system", "errors"),
)
COMMANDS = tuple(nas_program.COMMANDS)

# Libraries with a home: no other folder imports them.
HOMES = {
    "optuna": {
        *("cli", "api", "reporting", "codegen", "tuner", "samplers", "analysis", "study", "space", "optuna_internals"),
        "dashboard",
    },
    "optuna_dashboard": {"dashboard", "reporting", "optuna_internals"},
    "plotly": {"api", "reporting"},
    "jinja2": {"system"},
    "rich": {"api", "cli", "reporting", "search", "ablate", "studies", "trials"},
    "IPython": {"reporting"},
    "pandas": {"api"},
    "ray": {"workers"},
    "torchvision": {"datasets"},
}
WITHOUT_TORCH = (
    "errors",
    "system.files",
    "system.interrupts",
    "network.operations",
    "network.layers",
    "network.architecture",
    "network.cost",
    "network.limits",
    "space",
    "datasets.dataset",
    "training.job",
    "training.score",
    "analysis",
    "study",
    "reporting.status",
    "reporting.tables",
    "api.listing",
)
WITHOUT_OPTUNA = ("network", "datasets", "training", "workers")


def folder_of(module: str) -> str:
    """The folder of a module, or the module itself where it lies at the top."""
    return module.split(".")[0]


def within(names: tuple[str, ...]) -> list[str]:
    """The modules that are named, or lie in a folder that is."""
    return [module for module in FILES if any(module == name or module.startswith(f"{name}.") for name in names)]


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
    return {name.removeprefix("nas.") for name in imports(file)} & FILES.keys()


def test_imports_of_libraries_stay_in_their_homes() -> None:
    strays = [
        f"{module} imports {library}"
        for module, file in FILES.items()
        for library, homes in HOMES.items()
        if library in libraries(file) and folder_of(module) not in homes
    ]
    assert strays == []


def test_imports_run_downwards_from_folder_to_folder() -> None:
    strays = [
        f"{module} imports {other}"
        for module, file in FILES.items()
        for other in siblings(file)
        if folder_of(module) in FOLDERS
        and FOLDERS.index(folder_of(module)) > (FOLDERS.index(folder_of(other)) if folder_of(other) in FOLDERS else -1)
    ]
    assert strays == []


def test_every_folder_has_its_place_in_the_order() -> None:
    known = {*FOLDERS, *COMMANDS, "__init__", "__main__"}
    assert {folder_of(module) for module in FILES} == known


def test_commands_are_imported_by_nobody() -> None:
    assert [
        f"{module} imports {other}" for module, file in FILES.items() for other in siblings(file) & {*COMMANDS}
    ] == []


def test_imports_among_modules_have_no_cycle() -> None:
    order = list(TopologicalSorter({name: siblings(file) for name, file in FILES.items()}).static_order())
    assert set(order) == set(FILES)


@pytest.mark.parametrize("module", within(WITHOUT_TORCH))
def test_imports_of_descriptions_leave_out_torch(module: str) -> None:
    assert not libraries(FILES[module]) & {"torch", "torchvision", "torchinfo", "safetensors"}


@pytest.mark.parametrize(("names", "absent"), [(WITHOUT_TORCH, "torch"), (WITHOUT_OPTUNA, "optuna")])
def test_imports_bring_no_unwanted_library_in_by_a_side_door(names: tuple[str, ...], absent: str) -> None:
    modules = [module.removesuffix(".__init__") for module in within(names) if not module.startswith("workers.ray")]
    lines = ["import sys", *(f"import nas.{module}" for module in modules), f"sys.exit({absent!r} in sys.modules)"]
    assert subprocess.run([sys.executable, "-c", "\n".join(lines)], check=False).returncode == 0


def test_help_waits_for_no_library() -> None:
    absent = ("torch", "optuna", "numpy", "rich")
    shown = (f"importlib.import_module('nas.{name}').parser().format_help()" for name in COMMANDS)
    lines = ["import importlib, sys", *shown, f"sys.exit(any(name in sys.modules for name in {absent!r}))"]
    assert subprocess.run([sys.executable, "-c", "\n".join(lines)], check=False).returncode == 0


def test_nothing_is_unpickled() -> None:
    for name, file in FILES.items():
        assert not imports(file) & {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}, name
        calls = [
            node.func for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ]
        loads = [call for call in calls if isinstance(call, ast.Attribute) and call.attr == "load"]
        assert {ast.unparse(call) for call in loads} <= {"safetensors.torch.load"}, name


def test_only_system_processes_makes_pools_of_processes() -> None:
    """There they are told to end with the program; others would wait for work when it was killed."""
    pools = {"multiprocessing.Process", "multiprocessing.Pool", "concurrent.futures.ProcessPoolExecutor"}
    assert [name for name, file in FILES.items() if imports(file) & pools] == ["system.processes"]
