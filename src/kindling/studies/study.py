"""A study, from its command line to its end."""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna import Study
from optuna.samplers import CmaEsSampler

from src.kindling import layout
from src.kindling.config import masking
from src.kindling.config.settings import validate
from src.kindling.errors import InputError, first_line, nearest
from src.kindling.files.bounded import reason
from src.kindling.files.run_directory import check_parts
from src.kindling.layout import Plain
from src.kindling.studies import definition, metric, sampling, storage, trials
from src.kindling.studies.definition import Definition
from src.kindling.studies.recipe import Recipe
from src.kindling.studies.settings import StudySettings, directions, limits


@dataclass
class OpenStudy:
    """A study that is started or joined.

    Attributes:
        settings: of the command line.
        study: Optuna's.
        definition: what it searches.
        recipe: the configuration that its trials vary.
        url: of its storage.
        folder: where its trials are.
        sampler: makes the sampler of a trial from its number.
    """

    settings: StudySettings
    study: Study
    definition: Definition
    recipe: Recipe
    url: str
    folder: Path
    sampler: sampling.Make


def open_study(settings: StudySettings, recipe: Recipe, log_dir: str) -> OpenStudy:
    """Start a study, or join the one of this name.

    Nothing is written before all that the command line says is known to be right.

    Args:
        settings: the study's.
        recipe: what the command line says that its trials vary; without any override, what the
            study was started with.
        log_dir: where runs are kept.

    Raises:
        InputError: a setting is wrong, or differs from the study's.
    """
    name = settings.name or layout.model_stem(recipe.settings({}))
    folder = Path(log_dir) / "study" / name
    url = storage.url_of(settings.storage, folder)
    study = existing(name, url, folder, settings.heartbeat)
    if study is None:
        study = _start(name, url, folder, settings, recipe)
    elif settings.allow_changes and recipe.dimensions:
        metric.chosen(definition.of(study).metrics, [], recipe)
    known = definition.joined(study, _given(settings, recipe), settings.allow_changes)
    recipe = Recipe(known.overrides, known.dimensions)
    _check_seeds(settings, known.seeds, recipe)
    guesses = [recipe.completed(guess) for guess in settings.guesses]
    if guesses and settings.trials:
        with storage.locked(url, folder):
            for guess in guesses:
                trials.add_guess(study, guess)
    sampler = _sampler(settings, known.seed, recipe, known.metrics)
    study.pruner = settings.pruner
    return OpenStudy(settings, study, known, recipe, url, folder, sampler)


def quiet_optuna() -> None:
    """Leave to this project's own lines what Optuna says of trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # Of a report that a resumed trial repeats.
    warnings.filterwarnings("ignore", message="The reported value is ignored")


def existing(name: str, url: str, folder: Path, heartbeat: int = 10) -> Study | None:
    """Return the study of this name if there is one; write nothing if there is not."""
    _check_parts(folder)
    if url.startswith("sqlite") and not (folder / storage.FILE).is_file():
        return None
    with storage.locked(url, folder):
        return definition.find(name, storage.opened(url, folder, heartbeat))


def unknown(key: str, folder: Path) -> InputError:
    """Return the error of a study that is not there, with the nearest name."""
    known = [path.name for path in folder.parent.glob("*/")]
    near = nearest(folder.name, known)
    return InputError(f"{key}={folder.name}: there is no such study in {folder.parent}{near}")


def _check_parts(folder: Path) -> None:
    """Refuse a study whose directory holds links, pipes or devices, as that of a run.

    Raises:
        InputError: naming it.
    """
    for part in [folder, *sorted(folder.glob("confirm/")), *sorted(folder.glob("confirm/*/"))]:
        if part.is_dir():
            check_parts(part)


def _given(settings: StudySettings, recipe: Recipe) -> Plain:
    """Return what this command line says of the study, by the fields of its definition."""
    given: Plain = {}
    if recipe.overrides or recipe.dimensions:
        given["overrides"] = recipe.overrides
        given["space"] = {d.key: d.word for d in recipe.dimensions}
    if settings.metric is not None:
        given["metrics"] = settings.metrics
    if settings.mode is not None:
        given["modes"] = settings.mode if isinstance(settings.mode, list) else [settings.mode]
    if settings.seed:
        given["seed"] = settings.seed
    if settings.seeds > 1:
        given["seeds"] = settings.seeds
    if settings.constraints:
        given["constraints"] = limits(settings.constraints)
    return given


def _start(name: str, url: str, folder: Path, settings: StudySettings, recipe: Recipe) -> Study:
    """Make a study, unless another worker has just made it."""
    if settings.trials == 0:
        raise unknown("study.name", folder)
    _sampler(settings, settings.seed, recipe, settings.metrics)
    _check_seeds(settings, settings.seeds, recipe)
    for guess in settings.guesses:
        recipe.completed(guess)
    config = recipe.settings({})
    validate(masking.with_variables(config))
    allowed = limits(settings.constraints)
    metrics = metric.chosen(settings.metrics, list(allowed), recipe)
    kept = config["callbacks"].get("checkpointing", {})
    ranked = kept.get("monitor") or (metrics[0] if not settings.metrics else "")
    new = Definition(
        recipe.overrides,
        {d.key: d.word for d in recipe.dimensions},
        metrics,
        directions(metrics, settings.mode, {ranked: kept.get("mode")}),
        settings.seed,
        allowed,
        settings.seeds,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be created: {reason(error)}") from None
    with storage.locked(url, folder):
        place = storage.opened(url, folder, settings.heartbeat)
        study = definition.find(name, place)
        if study is None:
            study = definition.create(name, place, new)
            trials.add_guess(study, recipe.own_values())
    if (kind := storage.remote_file_system(folder)) and settings.storage is None:
        print(
            f"warning: {folder} is on {kind}, where SQLite is safe for the workers of one machine"
            f" only; for several, study.storage={storage.EXAMPLE}",
            file=sys.stderr,
        )
    return study


def _check_seeds(settings: StudySettings, seeds: int, recipe: Recipe) -> None:
    """Refuse several seeds where one is fixed, and a pruner that has no seeds to compare.

    Raises:
        InputError: naming the key.
    """
    if seeds > 1 and recipe.fixes_seed:
        raise InputError(f"study.seeds={seeds}: seed= fixes the seed of every run; leave it out")
    if seeds == 1 and isinstance(settings.pruner, optuna.pruners.WilcoxonPruner):
        raise InputError("study/pruner=wilcoxon: it compares seeds: set study.seeds=5, say")


def _sampler(
    settings: StudySettings, seed: int, recipe: Recipe, metrics: list[str]
) -> sampling.Make:
    """Return what makes the samplers of this command line.

    Raises:
        InputError: it needs a package that is missing, or another search space.
    """
    if len(metrics) > 1 and getattr(settings.sampler, "func", None) is CmaEsSampler:
        raise InputError("study/sampler=cma_es: it optimizes one metric; tpe takes several")
    make = sampling.maker(settings.sampler, seed, recipe.dimensions)
    try:
        make(0)
    except (ImportError, ValueError, TypeError) as error:
        raise InputError(f"study/sampler: {first_line(error)}") from None
    return make
