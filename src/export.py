"""python -m src.export: the whole model as one file, checked against its checkpoint."""

from omegaconf import DictConfig

from src.kindling.cli import command, composition
from src.kindling.errors import printable
from src.kindling.files import run_directory
from src.kindling.files.output import checked_output


@command.command("export")
def main(config: DictConfig) -> None:
    """Write the file, run it, and compare its answers with those of the checkpoint."""
    options = composition.resolved(config)
    from src.kindling.export.export import check, export

    check(options)
    ending = f".{options['format']}"
    output = checked_output(options["output"], [ending])
    checkpoint = run_directory.find_checkpoint(str(options["run"]), options["log_dir"])
    run = checkpoint.parent.parent
    folder = run if (run / "config.yaml").exists() else checkpoint.parent
    path = output or folder / f"model{ending}"
    for line in export(checkpoint, path, options):
        print(printable(line))
    print(f"{printable(str(checkpoint))}: exported to {printable(str(path))}")


if __name__ == "__main__":
    main()
