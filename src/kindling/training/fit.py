"""The fit of a run: train and validate, test the best checkpoint, and report to the user."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.kindling import layout
from src.kindling.config import masking
from src.kindling.errors import printable
from src.kindling.files import run_record
from src.kindling.layout import BEST, LAST, Plain
from src.kindling.process import ranks, signals
from src.kindling.training import resume

if TYPE_CHECKING:
    from src.kindling.build import Experiment


class Metrics(dict[str, float]):
    """The final metrics of a run by name.

    Attributes:
        monitored: the value of the metric that ranks checkpoints, or None.
    """

    monitored: float | None = None


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
        _report(built, path, metrics)
    metrics.monitored = metrics.get(record["monitor"]["metric"])
    return metrics


def fit_and_test(
    built: "Experiment", path: Path, checkpoint: Path | None, overrides: Sequence[str]
) -> Metrics:
    """Return the final metrics of training and validation, and of the best checkpoint's test."""
    from src.kindling.callbacks import averaging
    from src.kindling.tracking import tracked
    from src.kindling.training import summary
    from src.kindling.training.stages import has_stage, repeats_rows

    trainer: Any = built.trainer
    hyperparameters = summary.hyperparameters(masking.masked(built.config), list(overrides))
    metrics = Metrics()
    with tracked(trainer.loggers, hyperparameters, metrics):
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


def _report(built: "Experiment", path: Path, metrics: Metrics) -> None:
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
    for line in summary.next_steps(path, _longer(built)).splitlines():
        say(line)


def _longer(built: "Experiment") -> dict[str, str]:
    """Return the overrides that make a finished run longer; after an early stop, more patience."""
    from src.kindling.callbacks.checkpointing import has_stopped_early

    epochs = built.config["trainer"]["max_epochs"] or -1
    stopping = built.config["callbacks"].get("early_stopping")
    schedules = [config.scheduler for config in built.trainer.lr_scheduler_configs]
    ends = any(hasattr(schedule, "total_steps") for schedule in schedules)  # torch's OneCycleLR
    longer = {"trainer.max_epochs": str(2 * epochs)} if epochs > 0 and not ends else {}
    if stopping and has_stopped_early(built.trainer):
        longer |= resume.longer_patience(stopping["patience"])
    return longer


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
