"""Tell the settings of a study from those of src.train on one command line; without Optuna."""

import re

from src.kindling.errors import InputError

OWN = (
    "study",
    "log_dir",
    "hydra",
)  # the keys of conf/study.yaml; all others are of conf/train.yaml
REFUSED = {
    "resume": "a study continues by itself",
    "allow_changes": "study.allow_changes is that of a study",
}


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the arguments of src.study itself, and the overrides of src.train.

    Raises:
        InputError: an override that a study does not allow.
    """
    own: list[str] = []
    training: list[str] = []
    for argument in arguments:
        key = argument.partition("=")[0].lstrip("+~")
        if (
            argument.startswith("-")
            or ("=" not in argument and argument[:1] not in "+~")
            or key.replace("/", ".").split(".")[0] in OWN
        ):
            if re.match(r"[^=]+=\s*(choice|interval|range|glob|tag)\(", argument):
                raise InputError(f"{argument}: only the settings of src.train are searched")
            own.append(argument)
        elif key in REFUSED:
            raise InputError(f"{key}: {REFUSED[key]}")
        else:
            training.append(argument)
    return own, training
