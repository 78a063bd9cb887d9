"""python -m src.report: runs or a study as one HTML file, without network and scripts."""

import importlib.util
from pathlib import Path

from omegaconf import DictConfig

from src.kindling.cli import command, composition
from src.kindling.errors import InputError, printable
from src.kindling.files.output import checked_output, write_output
from src.kindling.layout import Plain, install_extra
from src.kindling.results import runs
from src.kindling.results.page import RUNS, page, study_page


@command.command("report", words="run")
def main(config: DictConfig) -> None:
    """Write the report to a file; print its path."""
    settings = composition.resolved(config)
    output = checked_output(settings["output"], [".html"])
    content, folder, told = (_of_study if settings["study"] else _of_runs)(settings)
    path = output or folder / "report.html"
    # A path that is not UTF-8 stays the bytes that it is.
    write_output(path, content.encode(errors="surrogateescape"))
    print(f"report of {told}: {printable(str(path))}")


def _of_runs(settings: Plain) -> tuple[str, Path, str]:
    """Return the page about runs, where to put it, and what it is about."""
    names = settings["run"] if isinstance(settings["run"], list) else [settings["run"]]
    paths = runs.find([str(name) for name in names], str(settings["log_dir"]))
    if len(paths) > RUNS:
        raise InputError(f"run: {len(paths)} runs are too many for one file; name up to {RUNS}")
    found = [runs.read(path) for path in paths]
    folder = found[0].path if len(found) == 1 else Path(str(settings["log_dir"]))
    return page(found), folder, f"{len(found)} run{'s' * (len(found) > 1)}"


def _of_study(settings: Plain) -> tuple[str, Path, str]:
    """Return the page about a study, where to put it, and what it is about."""
    for needed in ("src.kindling.studies", "optuna"):
        if importlib.util.find_spec(needed) is None:
            raise InputError(f"study: {needed} is missing; {install_extra('study')} brings Optuna")
    from src.kindling.studies import report

    study = report.read(str(settings["study"]), str(settings["log_dir"]), settings["storage"])
    confirmed = [runs.read(p.parent) for p in study.folder.glob("confirm/*/*/config.yaml")]
    return study_page(study, confirmed), study.folder, study.title


if __name__ == "__main__":
    main()
