"""Search spaces by name or by the path of a Python file."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import search_spaces
from nas.errors import UserError, did_you_mean, require

if TYPE_CHECKING:  # --help lists the spaces, and needs no Optuna
    from nas.space.search_space import SearchSpace


def known_spaces() -> dict[str, Path]:
    """The search spaces that come with the program, by name."""
    files = (file for folder in search_spaces.__path__ for file in Path(folder).glob("*.py"))
    return {file.stem: file for file in sorted(files) if not file.stem.startswith("_")}


def space_name(name_or_path: str | Path) -> str:
    """What a space is called when no study name is given."""
    return Path(name_or_path).stem


def load_space(name_or_path: str | Path) -> "SearchSpace":
    """The `SPACE` of a file in search_spaces/, by name, or of any Python file, by path.

    A space file is code and is run.

    Raises:
        UserError: no such space, a file that raises, or a space that breaks the rules of `SearchSpace`.
    """
    from nas.space.search_space import SearchSpace

    require(
        isinstance(name_or_path, str | Path), "load_space", "space", name_or_path, "a name, or the path of a .py file"
    )
    name_or_path, known = str(name_or_path), known_spaces()
    path = known.get(name_or_path, Path(name_or_path))
    if path.suffix != ".py" or not path.is_file():
        names = ", ".join(known)
        meant = did_you_mean(name_or_path, known)
        if path.suffix == ".py":
            raise UserError(f"search space {name_or_path!r}: there is no such file; give its path, or one of {names}")
        raise UserError(
            f"unknown search space {name_or_path!r}; known are {names}, or give the path of a .py file{meant}"
        )
    where = f"search_spaces/{path.name}" if name_or_path in known else str(path)
    spec = importlib.util.spec_from_file_location(f"nas_space_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except (Exception, SystemExit) as error:  # whatever a file of somebody else's raises is theirs to mend
        raise UserError(f"{where}: {type(error).__name__}: {error}; the file must run without errors") from error
    space = getattr(module, "SPACE", None)
    if not isinstance(space, SearchSpace):
        raise UserError(f"{where}: defines no SPACE; it must end with SPACE = SearchSpace(...)")
    return space if space.name is not None else replace(space, name=path.stem)
