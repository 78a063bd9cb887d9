"""Small models with their data, for the tests of the engine: they need none of a project's own.

tests/kindling/conf/ adds their YAMLs to conf/. Each has what another lacks:

    quadrants  classes; several steps per epoch, and an execution of several epochs
    line       values; one step per epoch, on all rows, in double precision
    teacher    values; many steps per epoch, an execution of a part of it; maybe no validation
"""

from pathlib import Path

CONF = Path(__file__).resolve().parents[1] / "conf"
DEFAULT = "quadrants"
SPEED = CONF.parents[2] / "src" / "kindling" / "speed"  # which a copier may delete
ASKED = ("resume=", "steps_per_execution=", "compile=")


def arguments(name: str, *words: str) -> list[str]:
    """Return a command's arguments with these models among its choices, one of them by default."""
    if any("--config-dir" in word for word in words):
        return [*words]
    named = any(word.startswith(("model=", "resume=")) for word in words)
    default = [f"model={DEFAULT}"] if name == "train" and not named else []
    flags_first = bool(words) and words[0].startswith("-")
    if name == "train" and not SPEED.is_dir() and not any(w.startswith(ASKED) for w in words):
        default.append("steps_per_execution=1")  # else a line says that there are no more
    settings = [*words, *default] if flags_first else [*default, *words]  # not between flags
    return [f"--config-dir={CONF}", *settings]
