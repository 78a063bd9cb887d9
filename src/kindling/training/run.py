"""A training run, from its first line to its last."""

import functools
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from src.kindling import layout
from src.kindling.config import untrusted
from src.kindling.config.settings import validate
from src.kindling.errors import InputError
from src.kindling.files import bounded, run_directory, run_lock, run_record
from src.kindling.layout import Plain
from src.kindling.process import signals
from src.kindling.training import resume, slurm

if TYPE_CHECKING:
    from src.kindling.build import Experiment


def start_or_resume(settings: Plain, overrides: list[str]) -> None:
    """Start a run, unless this is a job that SLURM has started again: then its run goes on."""
    slurm.wait_for_first_task(settings, overrides)
    if run := slurm.requeued_run(settings["log_dir"], overrides):
        resume_run(settings | {"resume": str(run)}, [])
    else:
        start_run(settings, overrides)


def start_run(settings: Plain, overrides: list[str]) -> None:
    """Train in a new run directory."""
    validate(settings)
    if settings["init_from"] is not None:
        source = run_directory.find_checkpoint(str(settings["init_from"]), settings["log_dir"])
        settings["init_from"] = str(source)  # `latest` will soon be this run
    from src.kindling import (
        build,
        factories,
        restore,  # imports torch and Lightning: not for a configuration that is wrong
    )

    run = run_directory.new_path(settings["log_dir"], "train", layout.model_stem(settings))
    built = build.build(settings, run)
    factories.check_overrides(built.model, overrides)
    said = restore.init_from_checkpoint(built)
    _refuse_parallel_sweep(built)
    for line in _suspicious_settings(settings):
        print(f"warning: {line}", file=sys.stderr)
    run_directory.create(run)
    with run_lock.locked(run):
        if not run_directory.is_launched_rank():
            run_directory.write_config(run, settings)
            run_directory.link_latest(run, settings["log_dir"])
            slurm.link_run(run, settings["log_dir"], overrides)
        _run(built, run, None, said)


def _suspicious_settings(settings: Plain) -> Iterator[str]:
    """Yield a line for each setting that is possible and makes no sense."""
    if settings["trainer"]["max_epochs"] == 0 or settings["trainer"]["max_steps"] == 0:
        yield "trainer.max_epochs or max_steps is 0: nothing is trained"
    if settings["optimizer"].get("lr") == 0:
        yield "optimizer.lr=0: the weights stay as they were drawn"


def resume_run(command_line: Plain, overrides: list[str]) -> None:
    """Continue a run in its own directory, with its own configuration.

    A directory that cannot be written to is copied to a new one first.

    Raises:
        InputError: there is nothing to continue, another process does, or settings were given that
            would change the run, without `allow_changes`.
    """
    log_dir, said = str(command_line["log_dir"]), []
    run = run_directory.inherited_run() or run_directory.find(str(command_line["resume"]), log_dir)
    settings = untrusted.check(bounded.read_config(run / "config.yaml"), run / "config.yaml")
    saved, settings = settings, resume.with_overrides(settings, overrides) | {"log_dir": log_dir}
    validate(settings)
    epochs, changes = settings["trainer"]["max_epochs"], resume.changes(saved, settings)
    if run_record.is_finished(run) and "trainer.max_epochs" not in changes:
        resume.check_allowed(run, changes, bool(command_line["allow_changes"]))
        longer = f"; trainer.max_epochs={2 * epochs}, say, would make it longer" if epochs else ""
        print(f"{run} is finished{longer}")
        return
    if not run_directory.is_writable(run):
        copy = run_directory.new_path(log_dir, "train", layout.model_stem(settings))
        said.append(f"{run} cannot be written to: this is a copy of it")
        run_directory.copy(run, copy)
        run_directory.link_latest(copy, log_dir)
        run = copy
    with run_lock.locked(run):
        _go_on(run, settings, bool(command_line["allow_changes"]), said)


def _go_on(run: Path, settings: Plain, allow_changes: bool, said: list[str]) -> None:
    """Continue a run that no other process continues; nothing is changed before all is known."""
    checkpoint, content, found = resume.newest_whole(run)
    trained_with = content.get("config") if content else bounded.read_config(run / "config.yaml")
    changes = resume.changes(trained_with, settings)
    if checkpoint:
        resume.check_length(run, content, settings, changes)
    resume.check_allowed(run, changes, allow_changes)
    if checkpoint:
        resume.check_possible(content, changes)
    from src.kindling import build, factories, restore

    if checkpoint:
        restore.check_checkpoint(settings, checkpoint)
    built = build.build(settings, run)
    factories.check_overrides(built.model, list(changes))
    if checkpoint:
        resume.check_fit(built, content, checkpoint)
    else:
        said += restore.init_from_checkpoint(built)
    run_directory.export_to_ranks(run)
    if not run_directory.is_launched_rank():
        checkpoint = resume.prepare(built, run, checkpoint, content, changes)
        run_directory.write_config(run, settings)
    _run(built, run, checkpoint, said + found)


def _refuse_parallel_sweep(built: "Experiment") -> None:
    # Lightning starts the further ranks with the whole command line: each would replay the sweep.
    sweeps = HydraConfig.get().mode == RunMode.MULTIRUN
    if sweeps and built.trainer.strategy.launcher is not None:
        raise InputError(
            "--multirun with several processes a run: start each run by itself, in a shell loop"
        )


def _run(built: "Experiment", run: Path, checkpoint: Path | None, said: list[str]) -> None:
    """Fit and test; rank 0 keeps the record, and begins it with what there was to say."""
    from src.kindling.training import summary

    if run_directory.is_launched_rank():
        with run_record.recorded_by_first(run):
            _fit_and_test(built, run, checkpoint)
        return
    trainer: Any = built.trainer
    begun = {"init_from": said[-1]} if built.config["init_from"] and not checkpoint else {}
    record = run_record.record_run(run, summary.device_name(trainer), **begun)
    with record, signals.at_exit(functools.partial(_stopped_at_once, run)):
        verb = "continuing in" if checkpoint else "run directory"
        print(f"{layout.model_stem(built.config)}: {verb} {run}", flush=True)
        for line in said:
            print(line, flush=True)
        try:
            metrics = _fit_and_test(built, run, checkpoint)
        except signals.Stopped as stop:
            _print_resume_command(run, stop.how)
            raise
        if trainer.fast_dev_run:
            print("a fast development run: nothing was saved or logged")
        else:
            run_record.write_json(run / "metrics.json", metrics)
        print(summary.table(metrics))
        if trainer.fast_dev_run:
            return
        _show_answers(built)
        print(summary.next_steps(run, built.config))


def _stopped_at_once(run: Path, failure: str | None) -> bool:
    return failure is None and _print_resume_command(run, "stopped at once")


def _print_resume_command(run: Path, what: str) -> bool:
    """Say how a run ended that was stopped, and the command that continues it."""
    if (run / "checkpoints" / "last.ckpt").is_file():
        return signals.say(
            f"{what}; to continue:\n  {layout.command_line('train', resume=str(run))}"
        )
    return signals.say_nothing_is_saved(signals.pending_signal())


def _show_answers(built: "Experiment") -> None:
    """Let the tested model speak for itself, where its data knows how it is asked."""
    from src.kindling import restore

    with suppress(NotImplementedError):
        rows = restore.predictions(built.data, built.model)
        print(built.data.prediction_text(rows))


def _fit_and_test(built: "Experiment", run: Path, checkpoint: Path | None) -> dict[str, float]:
    """Return the final metrics of training and validation, and of the best checkpoint's test."""
    from src.kindling.training import summary
    from src.kindling.training.stages import has_stage

    trainer: Any = built.trainer
    hyperparameters = summary.hyperparameters(built.config, list(HydraConfig.get().overrides.task))
    if not has_stage(built.model, built.data, "val"):
        print(
            "this data has no validation rows: the best checkpoint is that of the least train/loss"
        )
    for logger in trainer.loggers:
        logger.log_hyperparams(hyperparameters)
    trainer.fit(built.model, datamodule=built.data, ckpt_path=checkpoint, weights_only=True)
    metrics = summary.metrics(trainer)
    if not has_stage(built.model, built.data, "test"):
        print("this data has no test rows: nothing to test")
    else:
        best: Any = run / "checkpoints" / "best.ckpt"
        trained = best.is_file() and not trainer.fast_dev_run
        trainer.test(
            built.model,
            datamodule=built.data,
            ckpt_path=best if trained else None,
            weights_only=True,
            verbose=False,
        )
        metrics |= summary.metrics(trainer)
    for logger in trainer.loggers:
        if hasattr(logger, "log_success"):
            logger.log_success()
            logger.finalize("success")
    return metrics
