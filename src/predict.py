"""python -m src.predict: ask a trained model, and get answers in its task's own words."""

from omegaconf import DictConfig

from src.kindling.cli import command, composition, run_question
from src.kindling.errors import InputError, printable
from src.kindling.files import run_directory
from src.kindling.files.output import checked_output, rows_as, write_output


@command.command("predict", asks=True)
def main(settings: DictConfig) -> None:
    """Print the answers; `output=` writes them to a CSV, JSON or .pt file as well."""
    asked = composition.resolved(settings)
    run, log_dir = str(asked.pop("run")), asked.pop("log_dir")
    output = checked_output(asked.pop("output"), (".csv", ".json", ".pt"))
    checkpoint = run_directory.find_checkpoint(run, log_dir)
    asked = {key: value for key, value in asked.items() if value is not None}
    run_question.check(checkpoint, asked)
    from src.kindling import restore
    from src.kindling.training import prediction

    _, data, model = restore.load(checkpoint)
    try:
        rows = prediction.predict(data, model, asked)
    except ValueError as error:
        raise InputError(str(error)) from error
    print(prediction.text(data, model, rows))
    if output is not None:
        binary = output.suffix == ".pt"
        text = prediction.as_tensors(rows) if binary else rows_as(output.suffix, rows).encode()
        write_output(output, text)
        print(printable(f"{len(rows)} rows written to {output}"))


if __name__ == "__main__":
    main()
