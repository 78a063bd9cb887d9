"""python -m src.evaluate: test a checkpoint, which brings its own model, data and settings."""

from omegaconf import DictConfig

from src.kindling import layout
from src.kindling.cli import command, composition
from src.kindling.errors import InputError, printable
from src.kindling.files import run_directory, run_record


@command.command("evaluate")
def main(settings: DictConfig) -> None:
    """Test the checkpoint that `run=` names, and write its metrics to a directory of their own."""
    plain = composition.resolved(settings)
    checkpoint = run_directory.find_checkpoint(str(plain["run"]), plain["log_dir"])
    from src.kindling import restore
    from src.kindling.training import summary
    from src.kindling.training.stages import has_stage

    trained, data, model = restore.load(checkpoint)
    if not has_stage(model, data, "test"):
        raise InputError(f"{checkpoint}: its data has no test rows, or its model no test_step")
    run = run_directory.new_path(plain["log_dir"], "evaluate", layout.model_stem(trained))
    trainer = restore.build_tester(trained, plain["accelerator"], run)
    device = summary.device_name(trainer)
    with run_directory.opened(run, trained, device=device, checkpoint=str(checkpoint)):
        trainer.test(model, datamodule=data, verbose=False)
        metrics = summary.metrics(trainer)
        run_record.write_json(run / "metrics.json", metrics)
        print(printable(f"{checkpoint}:"), summary.table(metrics), sep="\n")


if __name__ == "__main__":
    main()
