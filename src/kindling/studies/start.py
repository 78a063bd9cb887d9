"""Run src.study: start or join a study, train its trials, and show the results."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.errors import InstantiationException

from src.kindling.config import masking
from src.kindling.config.settings import node_problems
from src.kindling.errors import InputError, first_line, printable
from src.kindling.layout import Plain, program
from src.kindling.studies import metric, sources, space
from src.kindling.studies.recipe import Recipe
from src.kindling.studies.settings import check_name, limits, need_scipy

if TYPE_CHECKING:
    from src.kindling.studies.study import OpenStudy


def run(settings: Plain, words: list[str], arguments: list[str]) -> tuple[Path, Plain] | None:
    """Work on a study until it has its trials, and show it.

    Args:
        settings: the resolved configuration of src.study.
        words: the overrides of src.train, those with search words too.
        arguments: the whole command line.

    Returns:
        With `study.confirm`, the folder of the runs to be compared, and by which metric and mode.

    Raises:
        InputError: a setting is wrong.
        StudyFailedError, WorkerFailedError: trial after trial has failed, or a worker.
        StorageLostError: the study cannot be read or written any more.
    """
    opened = _opened(settings, words)
    from src.kindling.studies import processes, storage
    from src.kindling.studies.confirm import confirm

    with storage.explained(), _continuable(arguments):
        _work(opened, settings, arguments)
        if processes.WORKER in os.environ or not opened.settings.confirm:
            return None
        by = {"metric": opened.definition.metrics[0], "mode": opened.definition.modes[0]}
        return confirm(opened), by


def _work(opened: "OpenStudy", settings: Plain, arguments: list[str]) -> None:
    """Train the trials, and print where the study is when that ends, however it does."""
    from src.kindling.studies import processes, summary

    is_one_of_several = processes.WORKER in os.environ
    try:
        if opened.settings.trials == 0:
            return
        if opened.settings.workers > 1 and not is_one_of_several:
            processes.work(opened, [sys.executable, "-m", "src.study", *arguments])
        else:
            from src.kindling.studies.worker import Worker  # imports Lightning

            Worker(opened).work()
    finally:
        if not is_one_of_several:
            for line in summary.lines(opened, str(settings["log_dir"])):
                print(printable(line), flush=True)


@contextmanager
def _continuable(arguments: list[str]) -> Iterator[None]:
    """Print the command that continues the study, without its secrets, if a signal stops it."""
    from src.kindling.studies import processes

    try:
        yield
    except SystemExit:
        if processes.WORKER not in os.environ:
            command = shlex.join([*program("study"), *masking.masked_words(arguments)])
            print(f"stopped; to continue:\n  {printable(command, 10_000)}", flush=True)
        raise


def _opened(settings: Plain, words: list[str]) -> "OpenStudy":
    told = settings["study"]
    recipe = checked_recipe(told, words)
    if told["pruner"]["_target_"].endswith("WilcoxonPruner"):
        need_scipy("study/pruner=wilcoxon")
    from src.kindling.config.hydra_calls import instantiate
    from src.kindling.studies import storage
    from src.kindling.studies.study import open_study, quiet_optuna

    quiet_optuna()  # the pruner that is made here may say that it is experimental
    try:
        made = instantiate(told)
    except InstantiationException as error:  # of a pruner; samplers are made per trial
        raise InputError(f"study.pruner: {first_line(error.__cause__ or error)}") from error
    with storage.explained():
        return open_study(made, recipe, str(settings["log_dir"]))


def checked_recipe(told: Plain, words: list[str]) -> Recipe:
    """Check what the command line says as far as that needs neither Optuna's samplers nor torch.

    Args:
        told: the study's settings.
        words: the overrides of src.train, those with search words too.

    Raises:
        InputError: a setting or the search space is wrong.
    """
    for group in ("sampler", "pruner"):
        if not isinstance(told[group], dict):
            raise InputError(f"study.{group}={told[group]}: choose an option: study/{group}=...")
    if found := node_problems("study", told):
        raise InputError("; ".join(found))
    name, named, limited = told["name"], told["metric"] or [], limits(told["constraints"])
    if name is not None:
        check_name("study.name", name)
    named = named if isinstance(named, list) else [named]
    if told["metric"] is not None:
        metric.check_names("study.metric", named or [""])
    metric.check_names("study.constraints", list(limited))
    stored = [*told["overrides"], *words]
    recipe = Recipe(*space.split(stored))
    if recipe.overrides or recipe.dimensions or name is None:  # else the study to join knows them
        recipe.check()
        _check_no_secret(stored, recipe)
        if (there := sources.metrics(recipe.settings({}))) is not None:
            metric.refuse_unlogged("study.metric", named, sorted(there))
            metric.refuse_unlogged("study.constraints", list(limited), sorted(there))
    return recipe


def _check_no_secret(stored: list[str], recipe: Recipe) -> None:
    """Refuse a command line with a secret: a study stores it for its workers.

    Raises:
        InputError: naming the key.
    """
    masking.masked(recipe.settings({}))  # remember its secrets: a word may hold several settings
    for word, shown in zip(stored, masking.masked_words(stored), strict=True):
        if word != shown:
            raise InputError(
                f"{word.partition('=')[0]}: looks like a secret, and a study stores its command"
                " line; use an environment variable in conf/: ${oc.env:NAME}"
            )
