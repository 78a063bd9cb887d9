"""python -m src.compare: which settings are better, and whether significantly so."""

import shutil
import sys

from omegaconf import DictConfig

from src.kindling.cli import command, composition
from src.kindling.errors import printable
from src.kindling.files.output import checked_output, write_output
from src.kindling.results.comparison import compare
from src.kindling.results.comparison_text import as_file, as_text
from src.kindling.results.runs import select
from src.kindling.results.tables import encodable

ENDINGS = (".csv", ".json", ".md")


@command.command("compare", words="runs")
def main(config: DictConfig) -> None:
    """Print a table of settings, best first; `output=` also writes it to a file."""
    settings = composition.resolved(config)
    output = checked_output(settings["output"], ENDINGS)
    runs, skipped = select(settings)
    models = list(dict.fromkeys(run.model for run in runs))
    compared = [
        compare([run for run in runs if run.model == model], settings["metric"], settings["mode"])
        for model in models
    ]
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    text = "\n".join(["\n\n".join(as_text(one, width) for one in compared), *skipped])
    print(encodable(text, sys.stdout.encoding))
    if output is not None:
        write_output(output, as_file(output.suffix, compared, skipped).encode())
        print(printable(f"written to {output}"))


if __name__ == "__main__":
    main()
