"""python -m src.compare: which settings are better, and whether by more than luck."""

import shutil

from omegaconf import DictConfig

from src.kindling.cli import command, composition
from src.kindling.files.atomic_write import write_atomically
from src.kindling.files.output import checked_output
from src.kindling.results import comparison
from src.kindling.results.comparison_text import as_file, as_text
from src.kindling.results.runs import chosen

ENDINGS = (".csv", ".json", ".md")


@command.command("compare", words="runs")
def main(settings: DictConfig) -> None:
    """Print a table of settings, best first; `output=` writes it to a file as well."""
    plain = composition.resolved(settings)
    output = checked_output(plain["output"], ENDINGS)
    found, skipped = chosen(plain)
    models = list(dict.fromkeys(run.model for run in found))
    compared = [
        comparison.compare(
            [run for run in found if run.model == model], plain["metric"], plain["mode"]
        )
        for model in models
    ]
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    print("\n\n".join(as_text(one, width) for one in compared))
    for line in skipped:
        print(line)
    if output is not None:
        write_atomically(output, as_file(output.suffix, compared, skipped).encode())
        print(f"written to {output}")


if __name__ == "__main__":
    main()
