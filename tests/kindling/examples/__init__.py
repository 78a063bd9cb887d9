"""Small models with their data, for the tests of the engine: they need none of a project's own.

tests/kindling/conf/ adds their YAMLs to conf/. Each has what another lacks:

    quadrants  classes; several steps per epoch, and an execution of several epochs
    line       values; one step per epoch, on all rows, in double precision
    teacher    values; many steps per epoch, an execution of a part of it; maybe no validation
"""

from pathlib import Path

CONF = Path(__file__).resolve().parents[1] / "conf"
DEFAULT = "quadrants"


def arguments(name: str, *words: str) -> list[str]:
    """Return a command's arguments with these models among its choices, one of them by default."""
    trains = name in ("train", "study") and not any(word.startswith("resume=") for word in words)
    named = any(word.startswith("model=") for word in words)
    folder = [] if any("--config-dir" in word for word in words) else [f"--config-dir={CONF}"]
    return [*folder, *([f"model={DEFAULT}"] if folder and trains and not named else []), *words]
