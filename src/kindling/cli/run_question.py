"""The question of a run on a command line: its keys in `--help`, completed, and checked early.

What a question asks is read from the source of the classes that the run's config.yaml names, before
torch is imported. Where the source does not show it, or a checkpoint lies outside its run, help
and completion lack these keys, and they are checked once the model is there.
"""

import os
from pathlib import Path

from hydra._internal.utils import get_args_parser

from src.kindling.config import question
from src.kindling.config.source import UnreadableError
from src.kindling.errors import InputError
from src.kindling.files import bounded, run_directory
from src.kindling.layout import Plain, command_yaml


def check(checkpoint: Path, asked: Plain) -> None:
    """Validate the keys of a question against the source, as far as it shows them.

    Raises:
        InputError: naming the key.
    """
    try:
        parameters, _ = _of(checkpoint)
    except UnreadableError:
        return
    question.check(parameters, asked)


def shown(name: str, arguments: list[str]) -> list[str]:
    """Return the arguments, with the question in the text of `--help`; complete its keys.

    Args:
        name: the command.
        arguments: the command line.
    """
    parsed = get_args_parser().parse_args(arguments)
    if not parsed.help and not parsed.shell_completion:
        return arguments
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()[1:] if parsed.shell_completion else parsed.overrides
    try:
        run, checkpoint = _asked(name, typed)
        parameters, lines = _of(checkpoint)
    except (InputError, UnreadableError):
        return arguments
    if parsed.shell_completion:
        # Hydra completes the keys of the configuration; values of a question may hold spaces.
        last = "" if line[-1:].isspace() else line.split()[-1]
        own = [f"+{key}=null" for key in parameters]
        kept = [w for w in typed if w != last and w.partition("=")[0] in _settings(name)]
        os.environ["COMP_LINE"] = " ".join([line.split()[0], *own, *kept, last])
        return arguments
    text = "\n".join([f"The keys of the question of run={run}:", "", *lines])
    if not lines:
        return arguments
    return [*arguments, f"hydra.help.footer={_quoted(text)}"]


def _asked(name: str, typed: list[str]) -> tuple[str, Path]:
    """Return the run that a command line names, and its checkpoint."""
    settings = _settings(name)
    for word in typed:
        key, equals, value = word.partition("=")
        if equals and key in ("run", "log_dir"):
            settings[key] = value
    run = str(settings["run"])
    return run, run_directory.find_checkpoint(run, str(settings["log_dir"]))


def _settings(name: str) -> Plain:
    """Return the keys of a command and their defaults."""
    return command_yaml("command") | command_yaml(name)


def _of(checkpoint: Path) -> tuple[question.Parameters, list[str]]:
    """Return the arguments of the question of a checkpoint's run, and their help."""
    config = checkpoint.absolute().parent.parent / "config.yaml"
    if not config.is_file():
        raise UnreadableError(str(config))
    return question.from_source(bounded.read_config(config))


def _quoted(text: str) -> str:
    """Quote a text for Hydra, whose template would take `$` for a variable."""
    escaped = text.replace("$", "").replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
