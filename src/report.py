"""python -m src.report: a run, or several, as one HTML file that needs no network and no script."""

from pathlib import Path

from omegaconf import DictConfig

from src.kindling.cli import command, composition
from src.kindling.errors import InputError
from src.kindling.files.atomic_write import write_atomically
from src.kindling.files.output import checked_output
from src.kindling.results import runs
from src.kindling.results.page import RUNS, page


@command.command("report", words="run")
def main(settings: DictConfig) -> None:
    """Write the file, and say where."""
    plain = composition.resolved(settings)
    output = checked_output(plain["output"], [".html"])
    names = plain["run"] if isinstance(plain["run"], list) else [plain["run"]]
    paths = runs.find([str(name) for name in names], str(plain["log_dir"]))
    if len(paths) > RUNS:
        raise InputError(f"{len(paths)} runs are too many for one file: name up to {RUNS}")
    found = [runs.read(path) for path in paths]
    if output is None:
        folder = found[0].path if len(found) == 1 else Path(str(plain["log_dir"]))
        folder.mkdir(parents=True, exist_ok=True)
        output = folder / "report.html"
    write_atomically(output, page(found).encode())
    print(f"report of {len(found)} run{'s' * (len(found) > 1)}: {output}")


if __name__ == "__main__":
    main()
