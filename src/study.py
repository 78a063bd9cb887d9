"""python -m src.study: search for settings; start it again, anywhere, for more workers."""

import importlib.util
import sys
from pathlib import Path

from omegaconf import DictConfig

from src.kindling.cli import arguments, command, composition
from src.kindling.errors import InputError
from src.kindling.layout import Plain, install_extra
from src.kindling.studies import command_line

_arguments: list[str] = []  # of this command line
_training: list[str] = []  # those of src.train, with search words


@command.command("study")
def _study(config: DictConfig) -> None:
    """Start a study, join it, or show it; compare the settings that it confirms."""
    if importlib.util.find_spec("optuna") is None:
        raise InputError(f"src.study needs Optuna; {install_extra('study')} installs it")
    from src.kindling.studies import start

    confirmed = start.run(composition.resolved(config), list(_training), list(_arguments))
    if confirmed is not None:
        print(_comparison(*confirmed))


def _comparison(folder: Path, by: Plain) -> str:
    """Return the table of src.compare over the runs of a folder."""
    if importlib.util.find_spec("src.kindling.results") is None:
        return f"compare the runs in {folder}"
    from src.kindling.results.comparison import compare
    from src.kindling.results.comparison_text import as_text
    from src.kindling.results.runs import select

    chosen = {"runs": [str(folder)], "model": None, "last": None, "log_dir": str(folder)}
    runs, skipped = select(chosen | by)
    return "\n".join([as_text(compare(runs, by["metric"], by["mode"]), 100), *skipped])


def main() -> None:
    """Run the command; Hydra sees the study's own settings alone."""
    _arguments[:] = sys.argv[1:]
    with command.one_line_errors():
        arguments.check_flags(sys.argv[1:])
        sys.argv[1:], _training[:] = command_line.split(sys.argv[1:])
    _study()


if __name__ == "__main__":
    main()
