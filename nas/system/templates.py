"""Jinja templates, with the same settings wherever the package writes a file from one."""

import jinja2


def templates(package: str, *, autoescape: bool) -> jinja2.Environment:
    """The templates in the folder `templates` of a package; a name that a template is not given is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
