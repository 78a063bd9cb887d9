"""python -m src.evaluate: test a checkpoint, which brings its own model, data and settings."""

from omegaconf import DictConfig

from src import command, config, run_directory


@command.command("evaluate")
def main(settings: DictConfig) -> None:
    """Test the checkpoint that `run=` names, and write its metrics to a directory of their own."""
    plain = command.resolved(settings)
    checkpoint = run_directory.find_checkpoint(str(plain["run"]), plain["log_dir"])
    from src import experiment, summary

    trained, data, model = experiment.load(checkpoint)
    if not data.provides("test"):
        raise config.InputError(f"{checkpoint}: its data has no test rows (data.targets=random?)")
    run = run_directory.new_path(plain["log_dir"], "evaluate", config.model_stem(trained))
    trainer = experiment.build_tester(trained, plain["accelerator"], run)
    run_directory.create(run)
    run_directory.write_config(run, trained)
    with run_directory.recorded(run, summary.device_name(trainer)) as record:
        record["checkpoint"] = str(checkpoint)
        trainer.test(model, datamodule=data, verbose=False)
        metrics = summary.metrics(trainer)
        run_directory.write_json(run / "metrics.json", metrics)
        print(f"{checkpoint}:\n{summary.table(metrics)}")


if __name__ == "__main__":
    main()
