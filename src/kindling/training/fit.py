"""The fit of a run: train and validate, test the best checkpoint, and report to the user."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.kindling import layout
from src.kindling.config import masking
from src.kindling.errors import printable
from src.kindling.files import run_record
from src.kindling.layout import BEST, LAST, Plain
from src.kindling.process import ranks, signals
from src.kindling.training import resume_length

if TYPE_CHECKING:
    from src.kindling.build import Experiment


class Metrics(dict[str, float]):
    """The final metrics of a run by name.

    Attributes:
        monitored: the value of the metric that ranks checkpoints, or None.
    """

    monitored: float | None = None


def check_monitors(built: "Experiment") -> None:
    """Refuse a metric to monitor that is known not to be logged."""
    from src.kindling.callbacks.monitors import Monitors

    trainer: Any = built.trainer
    for callback in trainer.callbacks:
        if isinstance(callback, Monitors):
            callback.check_known(trainer, built.model, _validates(built))


def _validates(built: "Experiment") -> bool:
    from src.kindling.training.stages import has_stage

    trainer: Any = built.trainer
    return has_stage(built.model, built.data, "val") and trainer.limit_val_batches != 0


def facts_of(built: "Experiment", begun: list[str]) -> Plain:
    """Return what run.json holds of a run from its start.

    Args:
        built: data, model, and trainer.
        begun: the line that says which weights `init_from` gave, if it did.
    """
    from src.kindling.callbacks.checkpointing import monitor
    from src.kindling.training import summary

    return {
        "device": summary.device_name(built.trainer),
        "monitor": monitor(built.trainer, built.model, _validates(built)),
        **({"init_from": begun[0]} if begun else {}),
    }


def train(
    built: "Experiment",
    path: Path,
    checkpoint: Path | None,
    notices: list[str],
    overrides: Sequence[str],
    record: Plain,
) -> Metrics:
    """Fit, test, and report; a launched rank, whose record is empty, says nothing."""
    if ranks.is_launched():
        return fit_and_test(built, path, checkpoint, overrides)
    with signals.at_exit(functools.partial(_stopped_at_once, path)):
        verb = "continuing in" if checkpoint else "run directory"
        for line in [f"{layout.model_stem(built.config)}: {verb} {path}", *notices]:
            say(line)
        try:
            metrics = fit_and_test(built, path, checkpoint, overrides)
        except signals.Stopped as stop:
            _print_resume_command(path, stop.how)
            raise
        _report(built, path, metrics, overrides)
    metrics.monitored = metrics.get(record["monitor"]["metric"])
    return metrics


def fit_and_test(
    built: "Experiment", path: Path, checkpoint: Path | None, overrides: Sequence[str]
) -> Metrics:
    """Return the final metrics of training and validation, and of the best checkpoint's test."""
    from src.kindling.callbacks import averaging, monitors
    from src.kindling.tracking import tracked
    from src.kindling.training import summary
    from src.kindling.training.stages import has_stage, repeats_rows

    trainer: Any = built.trainer
    hyperparameters = summary.hyperparameters(masking.masked(built.config), list(overrides))
    metrics = Metrics()
    with _profiled(trainer), tracked(trainer.loggers, hyperparameters, metrics):
        with monitors.explained(trainer):
            trainer.fit(built.model, datamodule=built.data, ckpt_path=checkpoint, weights_only=True)
        metrics.update(summary.metrics(trainer))
        if not has_stage(built.model, built.data, "val"):
            best = "the one with the lowest train/loss" if "train/loss" in metrics else "the last"
            say(f"no validation data: the best checkpoint is {best}")
        if not has_stage(built.model, built.data, "test"):
            say("this data has no test rows: nothing to test")
            return metrics
        if repeats_rows(trainer, built.data):
            say("test: rows may count twice on several processes; evaluate counts each once")
        saved: Any = path / "checkpoints" / BEST
        trained = saved.is_file() and not trainer.fast_dev_run
        with averaging.left_out(trainer):
            trainer.test(
                built.model,
                datamodule=built.data,
                ckpt_path=saved if trained else None,
                weights_only=True,
                verbose=False,
            )
        metrics.update(summary.metrics(trainer))
    return metrics


@contextlib.contextmanager
def _profiled(trainer: Any) -> Iterator[None]:
    """End the profile of a run that fails or is stopped: torch's crashes the next one otherwise."""
    try:
        yield
    except BaseException:
        trainer.profiler.teardown(stage=None)
        raise


def _report(built: "Experiment", path: Path, metrics: Metrics, overrides: Sequence[str]) -> None:
    """Write metrics.json; print the metrics, the model's answers, and what to do next."""
    from src.kindling.training import prediction, summary

    trainer: Any = built.trainer
    if trainer.fast_dev_run:
        print("a fast development run: nothing was saved or logged")
        print(summary.table(metrics))
        return
    run_record.write_json(path / "metrics.json", metrics)
    print(summary.table(metrics))
    if prediction.find("prediction_text", built.data, built.model):
        rows = prediction.predict(built.data, built.model, {})
        print(prediction.text(built.data, built.model, rows))
    say(f"results: {path}")
    commands = _found_rate(built, overrides)
    if commands is None:
        commands = summary.next_steps(path, _longer(built))
    for place, line in enumerate(commands):
        say(f"{'' if place else 'next:':<8} {line}")


def _found_rate(built: "Experiment", overrides: Sequence[str]) -> list[str] | None:
    """Return the command that trains at the rate that a range test suggests; None without one."""
    from src.kindling.callbacks.lr_find import RangeTest

    trainer: Any = built.trainer
    tests = [c for c in trainer.callbacks if isinstance(c, RangeTest)]
    return tests[0].command(overrides) if tests else None


def _longer(built: "Experiment") -> dict[str, str]:
    """Return the overrides that make this run longer."""
    from src.kindling.callbacks.checkpointing import has_stopped_early

    trainer: Any = built.trainer
    schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
    has_end = any(hasattr(schedule, "total_steps") for schedule in schedules)  # torch's OneCycleLR
    epochs = trainer.fit_loop.epoch_progress.current.processed
    stopped = has_stopped_early(trainer)
    return resume_length.longer(built.config, epochs, trainer.global_step, has_end, stopped)


def say(line: str) -> None:
    """Print a line for the user, on the first rank alone."""
    if ranks.number() == 0:
        print(printable(line), flush=True)


def _stopped_at_once(path: Path, failure: str | None) -> bool:
    return failure is None and _print_resume_command(path, "stopped at once")


def _print_resume_command(path: Path, how: str) -> bool:
    """Say how a signal stopped a run, and the command that continues it."""
    if (path / "checkpoints" / LAST).is_file():
        command = layout.command_line("train", resume=str(path))
        return signals.say(f"{how}; to continue:\n  {printable(command)}")
    return signals.say_nothing_is_saved(signals.pending_signal())
