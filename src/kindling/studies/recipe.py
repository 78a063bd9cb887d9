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
        self._composed: dict[tuple[tuple[str, Value], ...], DictConfig] = {}
        self._chosen: dict[tuple[tuple[str, Value], ...], Plain] = {}  # options of groups

    @property
    def dimensions(self) -> list[Dimension]:
        """All keys that are searched, those first on which the presence of others depends."""
        return [*self.groups, *self.values]

    def config(self, options: dict[str, Value]) -> DictConfig:
        """Return the configuration with these options of groups, composed once.

        Raises:
            InputError: it does not compose.
        """
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
            self._composed[key], self._chosen[key] = composed, chosen
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

    def own_values(self) -> dict[str, Value]:
        """Return the recipe's own value of each searched key, where it can be drawn."""
        config = self.config({})
        own = {d.key: self._chosen[()].get(d.key) for d in self.groups}
        own |= {d.key: OmegaConf.select(config, d.key) for d in self.present({})}
        return {
            d.key: own[d.key] for d in self.dimensions if d.key in own and d.contains(own[d.key])
        }

    def check(self) -> None:
        """Refuse a space with a key that no option has, or with a value that is wrong.

        Raises:
            InputError: naming the key.
        """
        found: dict[str, None] = {}
        seen: set[str] = set()
        for options in itertools.islice(self._combinations(), COMBINATIONS):
            seen |= {d.key for d in self.present(options)}
            found |= dict.fromkeys(self._problems(options))
        for dimension in self.values:
            if dimension.key not in seen:
                raise InputError(f"{dimension.key}: {self._unknown(dimension.key)}")
        if found:
            raise InputError("; ".join(found))
        conflicts.check(self.settings({})["trainer"], self.overrides)

    def _combinations(self) -> Iterator[dict[str, Value]]:
        names = [d.key for d in self.groups]
        for options in itertools.product(*(d.samples for d in self.groups)):
            yield dict(zip(names, options, strict=True))

    def _problems(self, options: dict[str, Value]) -> list[str]:
        """Return what is wrong with the configuration at the ends of each dimension."""
        present = self.present(options)
        samples = [d.samples for d in present]
        found: list[str] = []
        for place in range(max([len(values) for values in samples], default=1)):
            drawn = {
                d.key: values[min(place, len(values) - 1)]
                for d, values in zip(present, samples, strict=True)
            }
            found += problems(masking.with_variables(self.settings(options | drawn)), quick=True)
        words = {d.key: d for d in present}
        return [_with_word(line, words) for line in dict.fromkeys(found)]

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
    advice = ": int(interval(a,b)) draws whole numbers" if "integer" in line else ""
    return f"{line} (from {dimension.key}={dimension.word}{advice})"
