"""A training run from its first line to its last: validate, build, open, fit, test, record."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from src.kindling import layout
from src.kindling.config import conflicts, masking, untrusted
from src.kindling.config.settings import validate
from src.kindling.errors import InputError
from src.kindling.files import bounded, run_directory, run_record, sweep_links
from src.kindling.layout import Plain
from src.kindling.process import ranks, signals
from src.kindling.process.requeue import requeue
from src.kindling.training import (
    hosts,
    resume,
    resume_changes,
    resume_length,
    resume_settings,
    slurm,
)
from src.kindling.training.fit import Metrics, check_monitors, facts_of, say, train

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    from src.kindling.build import Experiment


@dataclass(frozen=True)
class Assignment:
    """A run that something other than its own command trains, such as a study.

    Attributes:
        path: its run directory; an existing one is continued. None: the run chooses its own.
        facts: further content of run.json.
        callbacks: called before those of the configuration.
    """

    path: Path | None = None
    facts: Plain = field(default_factory=dict)
    callbacks: Sequence["Callback"] = ()


UNASSIGNED = Assignment()


def run(
    settings: Plain,
    overrides: Sequence[str] = (),
    job: int | None = None,
    assignment: Assignment = UNASSIGNED,
) -> Metrics:
    """Train, validate, and test: start a run, or continue the one that `resume` names.

    A job that SLURM has restarted continues its run, and so does one of a sweep that was killed.

    Args:
        settings: a configuration as conf/train.yaml composes it, all interpolations resolved.
        overrides: what the command line changed: ["optimizer=adam", ...].
        job: its number in a sweep, if it is part of one.
        assignment: the run to train, if the caller chooses it.

    Returns:
        The final metrics by name; empty for a run that had ended already.

    Raises:
        InputError: the settings are wrong, or the run cannot be continued with them.
        Stopped: a signal stopped the run.
    """
    if assignment.path:  # whatever this process was started for
        if not (assignment.path / "config.yaml").is_file():
            return _start(settings, overrides, assignment=assignment)
        return _resume(settings | {"resume": str(assignment.path)}, [], assignment)
    try:
        slurm.check_tasks(settings)
        slurm.wait_for_first_task(settings, overrides)
        if settings["resume"] is not None:
            return _resume(settings, overrides)
        if path := slurm.requeued_run(settings["log_dir"], overrides):
            return _resume(settings | {"resume": str(path)}, [])
        if path := _run_of_job(settings, job):
            return _complete(settings, path)
        return _start(settings, overrides, job)
    except signals.Stopped:
        requeue()
        raise
    finally:
        hosts.announce(None)


def _run_of_job(settings: Plain, job: int | None) -> Path | None:
    """Return the run that this job had in a sweep that was killed, if its settings are the same."""
    for link in sweep_links.links(settings["log_dir"], job):
        if (link / "config.yaml").is_file():
            path = run_directory.target(link)
            held = bounded.read_config(path / "config.yaml")
            return None if resume_changes.changes(held, masking.masked(settings)) else path
    return None


def _complete(settings: Plain, path: Path) -> Metrics:
    """Continue a run of a sweep that was killed; skip one that is done."""
    if not run_record.is_finished(path):
        return _resume(settings | {"resume": str(path)}, [])
    say(f"{path} is done: skipped")
    metrics = Metrics(bounded.read_json(path / "metrics.json"))
    monitor = bounded.record_or_nothing(path).get("monitor", {})
    metrics.monitored = metrics.get(monitor.get("metric", ""))
    return metrics


def _start(
    settings: Plain,
    overrides: Sequence[str],
    job: int | None = None,
    assignment: Assignment = UNASSIGNED,
) -> Metrics:
    """Train in a new run directory."""
    validate(masking.with_variables(settings))
    conflicts.check(settings["trainer"], overrides)
    if path := hosts.find_run(settings["trainer"]):  # torchrun has restarted the ranks
        return _resume(settings | {"resume": str(path)}, [])
    log_dir = settings["log_dir"]
    path = run_directory.new_path(log_dir, "train", layout.model_stem(settings))
    links = [Path(log_dir) / "latest", *slurm.run_links(log_dir, overrides)]
    links += sweep_links.links(log_dir, job)
    if assignment.path:
        path, links = assignment.path, []
    built, notices = prepare(settings, overrides, path, assignment)
    if job is not None or assignment.path:
        check_one_process(built)
    settings = built.config
    for line in conflicts.notices(settings, overrides):
        print(f"warning: {line}", file=sys.stderr)
    stored, facts = masking.masked(settings), assignment.facts | facts_of(built, notices)
    with run_directory.opened(path, stored, links, **facts) as record:
        hosts.announce(path)
        return train(built, path, None, notices, overrides, record)


def prepare(
    settings: Plain, overrides: Sequence[str], path: Path, assignment: Assignment = UNASSIGNED
) -> tuple["Experiment", list[str]]:
    """Build a new run without writing anything; refuse settings that it could not train with.

    Args:
        settings: validated.
        overrides: what the command line changed.
        path: its run directory, which does not exist yet.
        assignment: as `run` takes it.

    Returns:
        Data, model, and trainer; and what `init_from` has done.

    Raises:
        InputError: naming the setting.
    """
    masking.masked(settings)  # its secrets are kept out of the lines of errors from here on
    if settings["init_from"] is not None:
        source = run_directory.find_checkpoint(str(settings["init_from"]), settings["log_dir"])
        settings = settings | {"init_from": str(source)}  # `latest` will soon be this run
    from src.kindling import build, factories, restore  # import torch only for right settings

    built = build.build(settings, path, assignment.callbacks)
    factories.check_overrides(built.model, list(overrides))
    check_monitors(built)
    return built, restore.init_from_checkpoint(built)


def check_one_process(built: "Experiment") -> None:
    """Refuse to launch ranks for one of several runs.

    Raises:
        InputError: Lightning would launch ranks, with the whole command line: each would repeat
            the sweep or the study.
    """
    if built.trainer.world_size > 1:
        raise InputError(
            "trainer: each run of a --multirun or a study trains in one process, trainer.devices=1;"
            " a run of several processes needs a command of its own"
        )


def _resume(
    command_line: Plain, overrides: Sequence[str], assignment: Assignment = UNASSIGNED
) -> Metrics:
    """Continue a run in its own directory, with its own configuration."""
    log_dir, allow_changes = str(command_line["log_dir"]), bool(command_line["allow_changes"])
    path = ranks.inherited_run() or run_directory.find(str(command_line["resume"]), log_dir)
    file = path / "config.yaml"
    saved = untrusted.check(bounded.read_config(file), file, run_record.folders_advice)
    settings = resume_settings.with_overrides(saved, overrides) | {"log_dir": log_dir}
    masking.check_complete(settings)
    validate(masking.with_variables(settings))
    conflicts.check(settings["trainer"], overrides)
    if _is_complete(path, saved, settings, allow_changes):
        return Metrics()
    path = hosts.find_run(settings["trainer"]) or ranks.inherited_run() or path
    path, notices = _writable(path, settings)
    with run_directory.reopened(path) as recorded:
        plan = resume.plan(path, masking.masked(settings), allow_changes)
        from src.kindling import build, factories, restore
        from src.kindling.training.resume_fit import check_fit

        if plan.checkpoint:
            restore.check_checkpoint(settings, plan.checkpoint)
        built = build.build(settings, path, assignment.callbacks)
        factories.check_overrides(built.model, list(plan.changes))
        check_monitors(built)
        if plan.checkpoint:
            check_fit(plan.checkpoint, plan.content, built.model, built.trainer)
        begun = [] if plan.checkpoint else restore.init_from_checkpoint(built)
        checkpoint = None if ranks.is_launched() else plan.apply(built)
        notices += begun + plan.notices
        facts = assignment.facts | facts_of(built, begun)
        with recorded(masking.masked(settings), **facts) as record:
            hosts.announce(path)
            return train(built, path, checkpoint or plan.checkpoint, notices, overrides, record)


def _is_complete(path: Path, saved: Plain, settings: Plain, allow_changes: bool) -> bool:
    """Return whether a run has finished and is not extended; if so, say it."""
    found = resume_changes.changes(saved, settings)
    if not run_record.is_finished(path) or resume_length.extends(found):
        return False
    resume_changes.check_allowed(path, found, allow_changes)
    say(f"{path} is finished")
    _, content, _ = resume.newest_whole(path)
    if content and (longer := resume_length.longer_by_checkpoint(saved, content)):
        say("to make it longer:")
        say(f"  {layout.command_line('train', resume=str(path), **longer)}")
    return True


def _writable(path: Path, settings: Plain) -> tuple[Path, list[str]]:
    """Return the directory to continue in: of a read-only run a copy, and a notice that says so."""
    if ranks.is_launched() or run_directory.is_writable(path):
        return path, []
    log_dir = settings["log_dir"]
    copy = run_directory.new_path(log_dir, "train", layout.model_stem(settings))
    run_directory.copy(path, copy)
    run_directory.link_to(copy, Path(log_dir) / "latest")
    return copy, [f"{path} cannot be written to: this is a copy of it"]
