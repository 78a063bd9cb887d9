"""Keep secrets out of all stored files: configurations, checkpoints, event files, run.json.

An environment variable that conf/ refers to is stored by name, `${oc.env:NAME}`, and resolved when
it is used. Any other value that looks like a secret is stored as `***`, also where the text of an
exception or a command line repeats it.
"""

import os
import re
from collections.abc import Sequence
from typing import Any

import yaml

from src.kindling.errors import InputError
from src.kindling.layout import Plain, conf_texts, flat

MASK = "***"
VARIABLE = re.compile(r"\$\{oc\.env:([A-Za-z_]\w*)(?:,([^${}]*))?\}")
KEYS = re.compile(
    r"(^|_)(password|passwd|secret|credentials?|(api|access|private|secret)_?key"
    r"|(api|access|auth|bearer)_?token)$|^token$",
    re.IGNORECASE,
)
VALUES = re.compile(
    r"^(hf_|gh[pousr]_|github_pat_|glpat-|sk-|xox[abprs]-|AKIA|eyJ)[\w.-]{12,}$"  # API tokens
    r"|://[^/\s:@]+:[^/\s@]+@"  # user:password@host
)
PASSWORD = re.compile(r"(://[^/\s:@]+):[^/\s@]+(?=@)")
SECRET_VARIABLES = re.compile(r"token|key|secret|passw|credential", re.IGNORECASE)
SHORTEST = 6  # characters of a secret that is looked for in text

_variables: set[str] = set()  # values of environment variables that are secrets
_seen: set[str] = set()  # other secrets in the settings of this process


# Environment variables ----------------------------------------------------------------------------


def environment_of_conf() -> set[tuple[str, str, str]]:
    """Return the references to environment variables in conf/: ("logger", "token", "${...}")."""
    found = set()
    for _, path, text in conf_texts():
        if "${oc.env:" not in text:
            continue
        top = None if "@package _global_" in text else path.parent.name
        for key, value in flat(yaml.safe_load(text)).items():
            first, _, last = key.rpartition(".")
            if _names_variables(value):
                found.add((top or first.partition(".")[0], last, value))
    return found


def _names_variables(value: Any) -> bool:
    return (
        isinstance(value, str) and value != (rest := VARIABLE.sub("", value)) and "${" not in rest
    )


def keep_variables(raw: Any, resolved: Any, known: set[tuple[str, str, str]] | None = None) -> Any:
    """Return resolved settings, with the environment variables of conf/ as references, as in `raw`.

    Only groups keep references: the top-level keys are used at once.
    """
    known = environment_of_conf() if known is None else known

    def kept(group: str, key: str, raw: Any, resolved: Any) -> Any:
        if isinstance(resolved, dict) and isinstance(raw, dict):
            return {k: kept(group, k, raw.get(k), value) for k, value in resolved.items()}
        if isinstance(raw, str) and (group, key, raw) in known:
            return raw
        with_variables(raw)  # one that was typed is masked
        return resolved

    groups = {key for key, value in resolved.items() if isinstance(value, dict)}
    return {
        key: kept(key, "", raw.get(key), value) if key in groups and key != "trainer" else value
        for key, value in resolved.items()
    }


def with_variables(node: Any) -> Any:
    """Substitute environment variables in settings; a reference to an unset one stays."""
    if isinstance(node, dict):
        return {key: with_variables(value) for key, value in node.items()}
    if isinstance(node, list):
        return [with_variables(value) for value in node]
    if not isinstance(node, str):
        return node
    return VARIABLE.sub(_value, node)


def _value(match: re.Match[str]) -> str:
    name, default = match.groups()
    value = os.environ.get(name, match[0] if default is None else default)
    if name in os.environ and SECRET_VARIABLES.search(name) and len(value) >= SHORTEST:
        _variables.add(value)
    return value


# Masks --------------------------------------------------------------------------------------------


def looks_secret(key: str, value: Any) -> bool:
    """Return whether a setting looks like a secret, by its key or by its value."""
    if not isinstance(value, str) or not value or _names_variables(value):
        return False
    return bool(KEYS.search(key.rpartition(".")[2]) or VALUES.search(value))


def masked(node: Any, key: str = "") -> Any:
    """Return settings with `***` in place of each value that looks like a secret."""
    if isinstance(node, dict):
        return {name: masked(value, str(name)) for name, value in node.items()}
    if isinstance(node, list):
        return [masked(value, key) for value in node]
    if not looks_secret(key, node):
        return MASK if isinstance(node, str) and node in _variables else node
    if len(node) >= SHORTEST:
        _seen.add(node)
    return MASK


def redacted(text: str) -> str:
    """Return text with `***` in place of the secrets of this process's settings."""
    for secret in sorted(_seen | _variables, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return PASSWORD.sub(rf"\1:{MASK}", text)


def masked_words(words: Sequence[str]) -> list[str]:
    """Mask the words of a command line in the same way."""
    return [_masked_word(*word.partition("=")) for word in words]


def _masked_word(key: str, equals: str, value: str) -> str:
    return f"{key}={MASK}" if looks_secret(key, value) else redacted(key + equals + value)


def as_stored(arguments: Plain, settings: Plain) -> Plain:
    """Return a constructor's arguments with secrets replaced by what their settings store."""
    hidden = {k: v for k, v in settings.items() if v == MASK or _names_variables(v)}
    return {key: hidden.get(key, value) for key, value in arguments.items()}


def check_complete(settings: Plain) -> None:
    """Refuse stored settings that contain a masked value."""
    if lost := [key for key, value in flat(settings).items() if value == MASK]:
        raise InputError(
            f"{lost[0]}: its value looked like a secret and was not stored; set it again, or use"
            f" an environment variable in conf/: ${{oc.env:NAME}}"
        )
