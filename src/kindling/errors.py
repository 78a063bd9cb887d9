"""Error messages for users: one line without control characters, with the nearest valid choice."""

import contextlib
import difflib
import re
import reprlib
from pathlib import Path
from typing import Any

_short = reprlib.Repr()  # values from files can be long, or contain themselves
_short.maxlevel, _short.maxstring, _short.maxother = 3, 100, 100


class InputError(Exception):
    """Raised for invalid input; the message is one line that names the key, and the reason.

    A function whose docstring begins with "Refuse" raises it.
    """


def printable(text: str, most: int = 1000) -> str:
    """Return text without control characters, truncated if it is too long.

    Names, paths, and values from files can hold escape sequences that a terminal would execute, or
    characters that reverse the direction of the text; each becomes a question mark.
    """
    shown = "".join(c if c.isprintable() else "?" for c in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def nearest(word: str, choices: list[str]) -> str:
    """Return `: did you mean 'x'?`, or the choices if none is close, or an empty string."""
    choices = [choice for choice in choices if not word.startswith(f"{choice}.")]  # its own group
    close = [choice for choice in choices if choice.startswith(f"{word}/")]  # of several loaders
    close = close or difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if not close:  # max_epoch instead of trainer.max_epochs
        ends = {choice.rsplit(".", 1)[-1]: choice for choice in reversed(choices)}
        close = [ends[end] for end in difflib.get_close_matches(word.rsplit(".", 1)[-1], ends, n=1)]
    if close:
        return f": did you mean {close[0]!r}?"
    return f": choose from {', '.join(choices)}" if 0 < len(choices) <= 12 else ""


def nearest_path(path: Path) -> str:
    """Return `: did you mean 'x'?` for a path that is not there, if its folder has a close name."""
    with contextlib.suppress(OSError):  # a name too long for any file, a folder that is not ours
        first = next(part for part in [*reversed(path.parents), path] if not part.exists())
        names = {_without_zeros(part.name): part for part in sorted(first.parent.iterdir())}
        for close in difflib.get_close_matches(_without_zeros(first.name), names, n=1):
            whole = names[close] / path.relative_to(first)
            return f": did you mean {str(whole if whole.exists() else names[close])!r}?"
    return ""


def _without_zeros(name: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)  # trial-0001: trial-1


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has no message."""
    if found := re.search(r"Environment variable '([^']+)' not found", str(error)):
        return f"{found[1]}: there is no such environment variable"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def short_repr(value: Any) -> str:
    """Return the `repr` of a value from a file, limited in depth and length."""
    return _short.repr(value)
