"""The definition of a study, kept in its storage: workers that join must search the same."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import optuna
from optuna import Study
from optuna.distributions import check_distribution_compatibility
from pydantic import TypeAdapter, ValidationError

from src.kindling.errors import InputError, first_line
from src.kindling.studies import space
from src.kindling.studies.space import Dimension
from src.kindling.studies.storage import Storage

KEY = "kindling"  # the user attribute of a study
DIRECTIONS: dict[str, Literal["minimize", "maximize"]] = {"min": "minimize", "max": "maximize"}


@dataclass(frozen=True)
class Definition:
    """Everything that the workers of a study must agree on.

    Attributes:
        overrides: settings of src.train, the same in every trial.
        space: the search word of each key.
        metrics: what is optimized.
        modes: "min" or "max" per metric.
        seed: the study's.
        constraints: the largest allowed value by metric.
        seeds: runs per trial, each with a seed of its own.
    """

    overrides: list[str]
    space: dict[str, str]
    metrics: list[str]
    modes: list[str]
    seed: int
    constraints: dict[str, float]
    seeds: int = 1

    @property
    def dimensions(self) -> list[Dimension]:
        """The keys that are searched."""
        return space.split([f"{key}={word}" for key, word in self.space.items()])[1]


def find(name: str, storage: Storage) -> Study | None:
    """Return the study of this name, if there is one.

    Raises:
        InputError: it is not one of src.study, or its folder has been renamed.
    """
    names = optuna.study.get_all_study_names(storage)
    if name not in names:
        if names and storage.url.startswith("sqlite"):
            raise InputError(f"study.name={name}: its database is that of study.name={names[0]}")
        return None
    study = optuna.load_study(study_name=name, storage=storage)
    if KEY not in study.user_attrs:
        raise InputError(f"study.name={name}: the study of this name was not made by src.study")
    return study


def of(study: Study) -> Definition:
    """Return what a study searches.

    Raises:
        InputError: its storage holds something else.
    """
    try:
        return TypeAdapter(Definition).validate_python(study.user_attrs[KEY])
    except ValidationError as error:
        line = first_line(error)
        raise InputError(f"study {study.study_name}: not one of src.study ({line})") from None


def create(name: str, storage: Storage, definition: Definition) -> Study:
    """Make a study; call it under the storage's lock."""
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        directions=[DIRECTIONS[mode] for mode in definition.modes],
    )
    study.set_metric_names(definition.metrics)
    study.set_user_attr(KEY, asdict(definition))
    return study


def joined(study: Study, given: dict[str, Any], allow_changes: bool) -> Definition:
    """Return what a study searches from now on.

    Args:
        study: the study.
        given: what this worker's command line says, by the fields of Definition; a field that it
            does not mention is as it was.
        allow_changes: whether the search space may change, as far as Optuna can continue with it.

    Raises:
        InputError: naming each difference.
    """
    old = of(study)
    new = Definition(**asdict(old) | given)
    if old == new:
        return old
    differing = [f.name for f in fields(old) if getattr(old, f.name) != getattr(new, f.name)]
    lines = [line for name in differing for line in _differences(name, old, new)]
    told = f"{'; '.join(lines)}: study {study.study_name} was started with other settings"
    if differing != ["space"]:
        raise InputError(f"{told}; leave it out to join, or choose another study.name")
    _check_compatible(old, new)
    if not allow_changes:
        raise InputError(f"{told}; study.allow_changes=true continues with the new search space")
    study.set_user_attr(KEY, asdict(new))
    return new


def _differences(name: str, old: Definition, new: Definition) -> list[str]:
    before, after = getattr(old, name), getattr(new, name)
    if not isinstance(before, dict):
        return [f"study.{name}: {_shown(before)} -> {_shown(after)}"]
    return [
        f"{key}: {before.get(key, 'not searched')} -> {after.get(key, 'not searched')}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _check_compatible(old: Definition, new: Definition) -> None:
    """Refuse what Optuna cannot continue with: a number that becomes a choice, other choices."""
    after = {d.key: d for d in new.dimensions}
    for before in old.dimensions:
        now = after.get(before.key)
        if now is None:
            continue
        try:
            check_distribution_compatibility(before.distribution, now.distribution)
        except ValueError:
            raise InputError(
                f"{now.key}: {before.word} -> {now.word}: the trials so far cannot be compared with"
                " these values; choose another study.name"
            ) from None
