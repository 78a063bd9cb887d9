"""python -m src.report: one or several runs as one HTML file, without network and scripts."""

from pathlib import Path

from omegaconf import DictConfig

from src.kindling.cli import command, composition
from src.kindling.errors import InputError, printable
from src.kindling.files.atomic_write import write_atomically
from src.kindling.files.output import checked_output
from src.kindling.results import runs
from src.kindling.results.page import RUNS, page


@command.command("report", words="run")
def main(config: DictConfig) -> None:
    """Write the report to a file, and print its path."""
    settings = composition.resolved(config)
    output = checked_output(settings["output"], [".html"])
    names = settings["run"] if isinstance(settings["run"], list) else [settings["run"]]
    paths = runs.find([str(name) for name in names], str(settings["log_dir"]))
    if len(paths) > RUNS:
        raise InputError(f"run: {len(paths)} runs are too many for one file; name up to {RUNS}")
    found = [runs.read(path) for path in paths]
    folder = found[0].path if len(found) == 1 else Path(str(settings["log_dir"]))
    path = output or folder / "report.html"
    # A path that is not UTF-8 stays the bytes that it is.
    content = page(found).encode(errors="surrogateescape")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"output: {path} cannot be written ({reason}); use output=FILE.html"
        ) from None
    print(f"report of {len(found)} run{'s' * (len(found) > 1)}: {printable(str(path))}")


if __name__ == "__main__":
    main()
