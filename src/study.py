"""python -m src.study: search for settings; start it again, anywhere, for more workers."""

import importlib.util
import sys

from omegaconf import DictConfig

from src.kindling.cli import command, composition
from src.kindling.errors import InputError
from src.kindling.studies import command_line

_arguments: list[str] = []  # of this command line
_training: list[str] = []  # those of src.train, with search words


@command.command("study")
def _study(settings: DictConfig) -> None:
    """Start a study, join it, or show it."""
    if importlib.util.find_spec("optuna") is None:
        raise InputError("src.study needs Optuna; pip install -e '.[study]' installs it")
    from src.kindling.studies import start

    start.run(composition.resolved(settings), list(_training), list(_arguments))


def main() -> None:
    """Run the command; Hydra sees the study's own settings alone."""
    _arguments[:] = sys.argv[1:]
    with command.one_line_errors():
        sys.argv[1:], _training[:] = command_line.split(sys.argv[1:])
    _study()


if __name__ == "__main__":
    main()
