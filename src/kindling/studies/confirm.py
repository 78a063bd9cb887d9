"""Train the best settings again with other seeds: the best of many noisy trials is flattered."""

from pathlib import Path

from optuna.trial import FrozenTrial

from src.kindling.errors import printable
from src.kindling.studies import summary, trials
from src.kindling.studies.study import OpenStudy
from src.kindling.studies.trial_run import failure, train

FIRST_SEED = 100_000  # above the seeds of trials


def confirm(opened: OpenStudy) -> Path:
    """Train the best settings and the recipe with `study.confirm` other seeds each.

    What has ended is left as it is; what was stopped is continued. Several processes share the
    runs.

    Returns:
        The folder of the runs.
    """
    folder = opened.folder / "confirm"
    for number, trial in best(opened):
        for seed in range(FIRST_SEED, FIRST_SEED + opened.settings.confirm):
            path = folder / f"trial-{number:04d}" / f"seed-{seed}"
            settings = opened.recipe.settings(dict(trial.params) | {"seed": seed})
            settings["log_dir"] = str(opened.folder.parent.parent)
            words = summary.overrides(trial, number, opened.recipe, opened.definition)
            facts = {"study": opened.study.study_name, "trial": number}
            told = "done"
            try:
                train(settings, path, [*words, f"seed={seed}"], facts)
            except Exception as error:  # another process trains it, say
                told = failure(error)
            print(printable(f"trial {number} with seed {seed}: {told}"), flush=True)
    return folder


def best(opened: OpenStudy) -> list[tuple[int, FrozenTrial]]:
    """Return number and trial of the best settings, and of the recipe."""
    ranked = summary.ranked(opened.study, opened.definition)[: opened.settings.confirm_top]
    recipe = trials.latest(opened.study).get(0)
    if recipe is not None and all(number for number, _ in ranked):
        ranked.append((0, recipe))
    return ranked
