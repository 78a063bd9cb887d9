"""python -m src.predict: ask a trained model, and get answers in its task's own words."""

from omegaconf import DictConfig

from src.kindling.cli import command, composition
from src.kindling.errors import InputError
from src.kindling.files import run_directory
from src.kindling.files.atomic_write import write_atomically
from src.kindling.files.output import checked_output, rows_as


@command.command("predict")
def main(settings: DictConfig) -> None:
    """Print the answers; `output=` writes them to a CSV or JSON file as well."""
    plain = composition.resolved(settings)
    output = checked_output(plain["output"], (".csv", ".json"))
    checkpoint = run_directory.find_checkpoint(str(plain["run"]), plain["log_dir"])
    # As text: to Python, an open file may be called 0.
    file = None if plain["file"] is None else str(plain["file"])
    from src.kindling import restore

    _, data, model = restore.load(checkpoint)
    try:
        rows = restore.predictions(data, model, plain["numbers"], plain["features"], file)
    except (ValueError, NotImplementedError) as error:
        raise InputError(str(error)) from error
    print(data.prediction_text(rows))
    if output is not None:
        write_atomically(output, rows_as(output.suffix, rows).encode())
        print(f"{len(rows)} rows written to {output}")


if __name__ == "__main__":
    main()
