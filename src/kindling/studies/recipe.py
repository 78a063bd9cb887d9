"""The training configuration that the trials of a study vary."""

import itertools
import pickle
from collections.abc import Iterator
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.kindling.cli import composition
from src.kindling.config import conflicts, masking
from src.kindling.config.settings import problems
from src.kindling.errors import InputError, nearest
from src.kindling.layout import Plain
from src.kindling.studies import space
from src.kindling.studies.space import Dimension, Value

COMBINATIONS = 64  # of options of groups that are checked before the first trial


class Recipe:
    """A training configuration with some of its keys left to a study.

    Args:
        overrides: what the command line sets for every trial.
        dimensions: the keys that are searched.
    """

    def __init__(self, overrides: list[str], dimensions: list[Dimension]) -> None:
        self.overrides = overrides
        self.groups = [d for d in dimensions if d.is_group]
        self.values = [d for d in dimensions if not d.is_group]
        # A model brings a whole recipe: where models are searched, the first one's is meant, not
        # that of a model which happens to be the default of conf/train.yaml.
        self._model: dict[str, Value] = {
            d.key: d.samples[0] for d in self.groups if d.key == "model"
        }
        self.fixes_seed = any(
            override.partition("=")[0] == "seed" for override in overrides
        ) or any(d.key == "seed" for d in dimensions)
        # By options of groups: the configuration, and all options that it is composed of.
        self._composed: dict[tuple[tuple[str, Value], ...], tuple[DictConfig, Plain]] = {}

    @property
    def dimensions(self) -> list[Dimension]:
        """All keys that are searched, those first on which the presence of others depends."""
        return [*self.groups, *self.values]

    def config(self, options: dict[str, Value]) -> DictConfig:
        """Return the configuration with these options of groups, composed once.

        Raises:
            InputError: it does not compose.
        """
        return self._composition(options)[0]

    def _composition(self, options: dict[str, Value]) -> tuple[DictConfig, Plain]:
        if options and options.items() <= self._composition({})[1].items():
            options = {}  # the recipe's own
        key = tuple(sorted(options.items()))
        if key not in self._composed:
            groups = self._model | options
            words = [*self.overrides, *(f"{group}={option}" for group, option in groups.items())]
            try:
                composed = hydra.compose("train", words, return_hydra_config=True)
            except (HydraException, OmegaConfBaseException) as error:
                raise InputError(composition.explain(error, "train", words)) from None
            chosen: Any = OmegaConf.to_container(composed.hydra.runtime.choices)
            OmegaConf.set_struct(composed, False)
            composed.pop("hydra")  # large, and copied for each trial
            self._composed[key] = composed, chosen
        return self._composed[key]

    def present(self, options: dict[str, Value]) -> list[Dimension]:
        """Return the searched keys that the configuration with these options has."""
        keys = set(_keys(self.config(options)))
        return [d for d in self.values if d.key in keys]

    def settings(self, drawn: dict[str, Value]) -> Plain:
        """Return the resolved configuration of a trial.

        Raises:
            InputError: an interpolation in it cannot be resolved.
        """
        groups = {d.key for d in self.groups}
        composed = self.config({k: v for k, v in drawn.items() if k in groups})
        config = pickle.loads(pickle.dumps(composed))  # four times as fast as copy.deepcopy
        for key, value in drawn.items():
            if key not in groups:
                OmegaConf.update(config, key, space.parsed(key, value), merge=True)
        raw = OmegaConf.to_container(config)
        kept: Plain = masking.keep_variables(raw, composition.resolved(config))
        return kept

    def own_values(self, options: dict[str, Value] | None = None) -> dict[str, Value]:
        """Return the recipe's own value of each searched key, where it can be drawn.

        Args:
            options: of groups, where another than the recipe's is chosen.
        """
        options = options or {}
        config, chosen = self._composition(options)
        own = {d.key: chosen.get(d.key) for d in self.groups}
        own |= {d.key: OmegaConf.select(config, d.key) for d in self.present(options)}
        return {
            d.key: own[d.key] for d in self.dimensions if d.key in own and d.contains(own[d.key])
        }

    def completed(self, guess: dict[str, Value]) -> dict[str, Value]:
        """Return a guess with the recipe's own value of each key that it leaves out.

        Raises:
            InputError: it sets a key that could not be drawn, or a value.
        """
        known = {d.key: d for d in self.dimensions}
        for key, value in guess.items():
            if key not in known:
                raise InputError(f"study.guesses: {key} is not searched{nearest(key, list(known))}")
            if not known[key].contains(value):
                raise InputError(f"study.guesses: {key}={value} is not in {known[key].word}")
        options = {d.key: guess[d.key] for d in self.groups if d.key in guess}
        own = self.own_values(options)
        present = {*options, *(d.key for d in self.present(options))}
        if absent := sorted(guess.keys() - present):
            words = " ".join(f"{d.key}={own.get(d.key, '...')}" for d in self.groups)
            raise InputError(f"study.guesses: {words} has no key {absent[0]}")
        return own | guess

    def check(self) -> None:
        """Refuse a space with a key that no option has, or with a value that is wrong.

        Raises:
            InputError: naming the key.
        """
        found: dict[str, None] = {}
        seen: set[str] = set()
        for drawn in self.samples():
            seen |= drawn.keys()
            settings = masking.with_variables(self.settings(drawn))
            found |= dict.fromkeys(problems(settings, quick=True))
        words = {d.key: d for d in self.values}
        for key in words:
            if key not in seen:
                raise InputError(f"{key}: {self._unknown(key)}")
        if found:
            raise InputError("; ".join(_with_word(line, words) for line in found))
        conflicts.check(self.settings({})["trainer"], self.overrides)

    def samples(self) -> Iterator[dict[str, Value]]:
        """Yield drawn settings that stand for all: options of groups, with the ends of the rest."""
        for options in itertools.islice(self._combinations(), COMBINATIONS):
            samples = {d.key: d.samples for d in self.present(options)}
            for place in range(max(map(len, samples.values()), default=1)):
                yield options | {
                    key: values[min(place, len(values) - 1)] for key, values in samples.items()
                }

    def _combinations(self) -> Iterator[dict[str, Value]]:
        names = [d.key for d in self.groups]
        for options in itertools.product(*(d.samples for d in self.groups)):
            yield dict(zip(names, options, strict=True))

    def _unknown(self, key: str) -> str:
        known = [k for options in self._combinations() for k in _keys(self.config(options))]
        group = key.partition(".")[0]
        if group in (d.key for d in self.groups):
            return f"no option of {group} that is searched has this key{nearest(key, known)}"
        return f"there is no such key{nearest(key, known)}"


def _keys(config: DictConfig) -> list[str]:
    content: Any = OmegaConf.to_container(config)
    return list(composition.flat_keys(content))


def _with_word(line: str, words: dict[str, Dimension]) -> str:
    """Name the search word that a wrong value comes from."""
    dimension = words.get(line.partition("=")[0])
    if dimension is None:
        return line
    draws_numbers = "integer" in line and "interval" in dimension.word
    advice = ": int(interval(a,b)) draws whole numbers" if draws_numbers else ""
    return f"{line} (from {dimension.key}={dimension.word}{advice})"
