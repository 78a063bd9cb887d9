"""python -m src.predict: ask a trained model, and get answers in its task's own words."""

import csv
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src import command, run_directory
from src.config import InputError


@command.command("predict")
def main(settings: DictConfig) -> None:
    """Print the answers; `output=` writes them to a CSV or JSON file as well."""
    plain = command.resolved(settings)
    output = _checked_output(plain["output"])
    checkpoint = run_directory.find_checkpoint(str(plain["run"]), plain["log_dir"])
    from src import experiment

    _, data, model = experiment.load(checkpoint)
    try:
        rows = experiment.answers(data, model, plain["numbers"], plain["features"], plain["file"])
    except (ValueError, NotImplementedError) as error:
        raise InputError(str(error)) from error
    print(data.prediction_text(rows))
    if output is not None:
        _write(output, rows)
        print(f"{len(rows)} rows written to {output}")


def _checked_output(output: str | None) -> Path | None:
    if output is None:
        return None
    path = Path(output)
    if path.suffix not in (".csv", ".json"):
        raise InputError(f"output={output}: name a file that ends in .csv or .json")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"output={output}: there is no folder {path.parent} to write this file in")
    return path


def _write(output: Path, rows: list[dict[str, Any]]) -> None:
    with output.open("w", newline="", encoding="utf-8") as file:
        if output.suffix == ".json":
            json.dump(rows, file, indent=1)
            return
        writer = csv.writer(file)
        writer.writerow(map(_cell, rows[0]))
        writer.writerows(map(_cell, row.values()) for row in rows)


def _cell(value: Any) -> Any:
    """Return a value as a spreadsheet should see it: text that would start a formula is quoted.

    Source: OWASP, "CSV Injection". Numbers are no text; a negative one stays what it is.
    """
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{value}" if formula else value


if __name__ == "__main__":
    main()
