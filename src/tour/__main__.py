"""Run the tutorials as chapters: python -m src.tour [chapter | all] [output=DIR] [name=N]."""

from __future__ import annotations

import ast
import os
import signal
import sys
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from src.tour import CHAPTERS

USAGE = """usage: python -m src.tour [chapter | all] [output=DIR] [epochs=N] [steps=N]

Without a chapter, lists them; with one, prints what the tutorial prints.
  output=DIR  also writes the chapter's plots there as PNG, where it has any
  epochs=N    how long fizzbuzz trains (2000; the tutorial's 10000 take five times as long)
  steps=N     how long two_layer_net trains (500)"""


class InputError(Exception):
    """The command line is wrong; the message is one line."""


def read(chapter: str) -> tuple[str, list[str]]:
    """A chapter's first sentence and its main's parameters, read without importing torch."""
    text = Path(__file__).with_name(f"{chapter}.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    main = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "main")
    sentence = (ast.get_docstring(tree) or "").partition("\n")[0]
    return sentence, [argument.arg for argument in main.args.args]


def unknown(kind: str, word: str, known: list[str]) -> InputError:
    """Return the error message for an unknown word, with the nearest known one."""
    near = get_close_matches(word, known, n=1)
    hint = f": did you mean {near[0]!r}?" if near else ";"
    return InputError(f"no {kind} {word!r}{hint} {kind}s: {', '.join(known)}")


def choose(words: list[str]) -> list[str]:
    """The chapters to run; raises InputError where the words do not name exactly one, or all."""
    known = [*CHAPTERS, "all"]
    for word in words:
        if word not in known:
            raise unknown("chapter", word, known)
    if len(words) != 1:
        said = " and ".join(words) if words else "none"
        raise InputError(f"one chapter is needed, not {said}; chapters: {', '.join(known)}")
    return list(CHAPTERS) if words == ["all"] else words


def number(name: str, text: str) -> int:
    """The positive whole number that the text says; raises InputError where it says none."""
    if not (text.isdecimal() and len(text) < 10 and int(text) > 0):
        raise InputError(f"{name}={text!r} is not a positive whole number, such as {name}=100")
    return int(text)


def folder(text: str) -> Path:
    """The output folder, made where missing; raises InputError where plots cannot be written."""
    path = Path(text).expanduser()
    if find_spec("matplotlib") is None:
        raise InputError("output= draws with matplotlib, which is missing: pip install matplotlib")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output={text!r} cannot be a folder: {error.strerror}") from error
    if not text or not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"output={text!r} is not a folder that can be written")
    return path


def parse(arguments: list[str]) -> tuple[list[str], dict[str, int | Path]]:
    """The chapters to run and the options to run them with; raises InputError."""
    for argument in arguments:
        if argument.startswith("-"):
            raise InputError(
                f"no option {argument!r}: options are written output=DIR or name=number"
            )
    chapters = choose([argument for argument in arguments if "=" not in argument])
    known = list(dict.fromkeys(name for chapter in chapters for name in read(chapter)[1]))
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    for name in given:
        if name not in known:
            raise unknown("option", name, known)
    output = given.pop("output", None)
    values: dict[str, int | Path] = {name: number(name, text) for name, text in given.items()}
    return chapters, values if output is None else values | {"output": folder(output)}


def run(chapter: str, values: dict[str, int | Path]) -> None:
    """Print one chapter under its heading."""
    sentence, names = read(chapter)
    print(f"# {chapter}: {sentence}\n")
    module = import_module(f"src.tour.{chapter}")
    module.main(**{name: value for name, value in values.items() if name in names})
    if "output" in values and not hasattr(module, "draw"):
        print("plot: none in this chapter")


def main(arguments: list[str]) -> int:
    """List the chapters, or run those that the command line names."""
    if "-h" in arguments or "--help" in arguments:
        print(USAGE)
        return 0
    if not arguments:
        for chapter in CHAPTERS:
            print(f"{chapter:20}{read(chapter)[0]}")
        return 0
    try:
        chapters, values = parse(arguments)
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # NumPy's threads; read when it is imported
        import torch

        torch.set_num_threads(1)  # so small, these run slower on more
        for i, chapter in enumerate(chapters):
            print("\n" * bool(i), end="")
            run(chapter, values)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it quietly
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
