"""The settings that all templates share, and that an installed package has its templates and other data files."""

import tomllib
from pathlib import Path

import jinja2
import pytest

import nas
from nas.system.templates import templates

PACKAGE = Path(nas.__file__).parent


def test_templates_refuse_a_name_that_is_not_given() -> None:
    with pytest.raises(jinja2.UndefinedError, match=r"^'columns' is undefined$"):
        templates("nas.reporting", autoescape=True).get_template("network.svg").render()


@pytest.mark.parametrize(("autoescape", "shown"), [(True, "&lt;b&gt;\n"), (False, "<b>\n")])
def test_templates_escape_where_told_to_and_keep_the_last_newline(autoescape: bool, shown: str) -> None:
    environment = templates("nas.reporting", autoescape=autoescape)
    assert environment.from_string("{% if True %}\n{{ text }}\n{% endif %}\n").render(text="<b>") == shown


def test_package_data_names_every_file_that_is_no_source() -> None:
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    declared = settings["tool"]["setuptools"]["package-data"]
    named = {
        file
        for package, patterns in declared.items()
        for pattern in patterns
        for file in (PACKAGE.parent / package.replace(".", "/")).glob(pattern)
    }
    data = [file for file in sorted(PACKAGE.rglob("*")) if file.is_file() and file.suffix not in {".py", ".pyc"}]
    assert PACKAGE / "codegen/templates/model.py.jinja" in data
    assert [file for file in data if file not in named] == []
