"""The page docs/commands.md, written from the parsers of the commands: `python -m docs.commands`.

The page is rendered here, and not by argparse, whose help follows the width of the terminal and the version of Python.
"""

import argparse
import importlib
import textwrap
from collections.abc import Iterator
from pathlib import Path

from nas.__main__ import COMMANDS
from nas.cli.terminal import run

PAGE = Path(__file__).with_suffix(".md")
WIDTH = 120
HEAD = """\
# The command line

`nas` lists the commands, `nas COMMAND --help` explains one, and `nas --version` tells the version.
`python -m nas.COMMAND` does the same as `nas COMMAND`. What the commands do, functions do as well:
see [the Python interface](python.md).

An error that you can mend is one sentence, and the exit status is 2.

This page is written from the programs themselves by `python -m docs.commands`. A test holds it to them.
"""


def page() -> str:
    """The whole page."""
    contents = [f"| [`nas {name}`](#nas-{name}) | {purpose} |" for name, purpose in COMMANDS.items()]
    return "\n".join([HEAD, "| command | what it does |", "|---|---|", *contents, "", *map(section, COMMANDS)])


def section(name: str) -> str:
    """What one command does, its options group by group, and its examples."""
    parser: argparse.ArgumentParser = importlib.import_module(f"nas.{name}").parser()
    paragraphs = (parser.description or "").strip().split("\n\n")
    parts = [f"## nas {name}", f"    {usage(name, parser)}", *(textwrap.fill(text, WIDTH) for text in paragraphs)]
    parts += [*needed(parser), *tables(parser)]
    if parser.epilog:
        parts.append(f"```text\n{parser.epilog.strip()}\n```")
    return "\n\n".join(parts) + "\n"


def usage(name: str, parser: argparse.ArgumentParser) -> str:
    """The command in one line: what it takes by position, and that it takes options."""
    places = [f"[{shown(action)}]" for action in parser._actions if not action.option_strings]
    return " ".join(["nas", name, *places, "[options]"])


def needed(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Which options cannot be left out."""
    for group in parser._mutually_exclusive_groups:
        if group.required:
            yield f"Give one of {' and '.join(f'`{shown(action)}`' for action in group._group_actions)}."


def tables(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A table for each group of options, in the order of `--help`."""
    for group in parser._action_groups:
        rows = [row(action) for action in group._group_actions if "--help" not in action.option_strings]
        if rows:
            yield "\n".join([f"| {group.title} | |", "|---|---|", *rows])


def row(action: argparse.Action) -> str:
    """An option and what it says of itself."""
    return f"| `{shown(action)}` | {(action.help or '').replace('|', chr(92) + '|')} |"


def shown(action: argparse.Action) -> str:
    """An option with the value that it takes, such as `--trials N`; the name of what is given by position."""
    value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if action.choices is not None:
        value = f"{{{','.join(map(str, action.choices))}}}"
    if not action.option_strings:
        return value
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {value}"


def main() -> int:
    """Write the page; the exit status."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE}")
    return 0


if __name__ == "__main__":
    run(main)
