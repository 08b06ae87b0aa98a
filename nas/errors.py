"""The one kind of error that the person at the terminal can mend: printed as a sentence, without a traceback."""

import difflib
import math
import re
from collections.abc import Iterable

LONGEST = 2_000  # characters of a sentence that is printed


class UserError(ValueError):
    """Bad input, said in one sentence: where the value stands, the value, the rule and the way out."""


def printable(text: str) -> str:
    """One line, its control characters written as escapes: nothing quoted in it can steer a terminal.

    Of a long one its beginning and its end, since the way out stands last. Passwords of URLs are hidden.
    """
    line = without_passwords(" ".join(text.split()))
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} … {line[-LONGEST // 2 :]}"
    return escaped(line)


def escaped(text: str) -> str:
    """The text with its control characters, line breaks too, written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def without_passwords(text: str) -> str:
    """The text with `***` for the passwords of URLs, up to the last @ of a word, and for those in their queries.

    It takes time in proportion to the text's length, since hostile text may hold anything.
    """
    return re.sub(r"\S+", _without_password, text)


def _without_password(word: re.Match[str]) -> str:
    shown = re.sub(r"([?&][^=?&]*=)[^&]*", lambda m: f"{m[1]}***" if "pass" in m[1].lower() else m[0], word[0])
    login, at, place = shown.rpartition("@")
    return re.sub(r"(:/+[^:/]*:).+", r"\1***", login) + at + place  # as a path, a URL has one slash


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """The known name that looks most like a wrong one, as the end of a sentence; "" where none does."""
    close = difflib.get_close_matches(text, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def require(condition: bool, where: str, name: str, value: object, rule: str) -> None:
    """Raise UserError unless the value keeps the rule."""
    if not condition:
        raise UserError(f"{where}: {name} {value!r} must be {rule}")


def require_whole(where: str, name: str, value: object, minimum: int) -> None:
    """Raise UserError unless the value is an int: True and 16.0 equal one, but torch refuses them and JSON differs."""
    if type(value) is not int or value < minimum:  # ten times a candidate: no sentence is made that nobody reads
        require(False, where, name, value, f"a whole number, at least {minimum}")


def require_seconds(where: str, name: str, value: object) -> None:
    """Raise UserError unless the value is a duration above 0, or None for no bound."""
    known = value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf)
    require(known, where, name, value, "a number of seconds above 0")


def require_bool(where: str, name: str, value: object) -> None:
    """Raise UserError unless the value is True or False."""
    require(type(value) is bool, where, name, value, "True or False")


def require_number(where: str, name: str, value: object, *, low: float, below: float) -> None:
    """Raise UserError unless the value is a number of at least `low` and below `below`."""
    inside = isinstance(value, int | float) and not isinstance(value, bool) and low <= value < below
    if not inside:
        bound = f" and below {below:g}" if below < float("inf") else ""
        require(False, where, name, value, f"a number, at least {low:g}{bound}")
    exact = isinstance(value, float) or (isinstance(value, int) and value <= 2**53)
    require(exact, where, name, value, "a float, since it is so large")
