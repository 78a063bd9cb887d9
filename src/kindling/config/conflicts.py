"""Find settings of the Trainer that another one overrules.

Lightning ignores them silently. A recipe may hold such a setting, but one that is typed must have
an effect. Only a fast development run ignores most others on purpose.
"""

from collections.abc import Iterator, Sequence

import yaml

from src.kindling.config.targets import LOADER
from src.kindling.errors import InputError
from src.kindling.layout import CONF, Plain

LIMITS = ("limit_train_batches", "limit_val_batches")
OF_VALIDATION = ("num_sanity_val_steps", "val_check_interval", "check_val_every_n_epoch")
OF_FAST = (*LIMITS, *OF_VALIDATION, "limit_test_batches", "max_epochs", "max_steps")
IGNORED = {  # by each of these
    "fast_dev_run": OF_FAST,
    "overfit_batches": LIMITS,
    "limit_val_batches": OF_VALIDATION,
    "gradient_clip_val": ("gradient_clip_algorithm",),
}


def check(trainer: Plain, overrides: Sequence[str]) -> None:
    """Refuse settings of the command line that have no effect.

    Args:
        trainer: the settings of the Trainer.
        overrides: what the command line sets: ["trainer.limit_val_batches=0", ...].
    """
    for key, other in [] if trainer["fast_dev_run"] else _typed(trainer, overrides):
        raise InputError(
            f"trainer.{key}={_shown(trainer[key])}: has no effect with"
            f" trainer.{other}={_shown(trainer[other])}; leave one of the two out"
        )


def notices(settings: Plain, overrides: Sequence[str]) -> Iterator[str]:
    """Yield a warning per setting that is valid but surely a mistake, or without effect."""
    trainer = settings["trainer"]
    if 0 in (trainer["max_epochs"], trainer["max_steps"]):
        yield "trainer.max_epochs or max_steps is 0: nothing is trained"
    if settings["optimizer"].get("lr") == 0:
        yield "optimizer.lr=0: the weights stay at their initial values"
    if trainer["fast_dev_run"] and (found := _typed(trainer, overrides)):
        keys = ", ".join(dict.fromkeys(f"trainer.{key}" for key, _ in found))
        yield f"{keys}: no effect with trainer.fast_dev_run={_shown(trainer['fast_dev_run'])}"


def _typed(trainer: Plain, overrides: Sequence[str]) -> list[tuple[str, str]]:
    typed = {word.lstrip("+").partition("=")[0] for word in overrides}
    return [pair for pair in _without_effect(trainer) if f"trainer.{pair[0]}" in typed]


def _without_effect(trainer: Plain) -> Iterator[tuple[str, str]]:
    """Yield pairs: a setting other than its default, and the one that leaves it without effect."""
    default = trainer_defaults()
    for other, keys in IGNORED.items():
        if _ignores(other, trainer[other]):
            yield from ((key, other) for key in keys if trainer[key] != default[key])
    for unit in ("epochs", "steps"):
        least, most = trainer.get(f"min_{unit}"), trainer[f"max_{unit}"]
        if least is not None and most is not None and -1 < most < least:
            yield f"min_{unit}", f"max_{unit}"


def trainer_defaults() -> Plain:
    """Return the settings of conf/trainer/default.yaml, which has every key."""
    text = (CONF / "trainer" / "default.yaml").read_text(encoding="utf-8")
    held: Plain = yaml.load(text, Loader=LOADER)
    return held


def _ignores(key: str, value: object) -> bool:
    if key == "limit_val_batches":  # null: all of them
        return value == 0
    return value is None if key == "gradient_clip_val" else bool(value)


def _shown(value: object) -> str:
    return str(yaml.safe_dump(value)).split("\n")[0]
