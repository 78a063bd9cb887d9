"""Draw a trial's settings from the study's seed and the trial's number alone."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from src.kindling.studies.settings import need_scipy
from src.kindling.studies.space import Dimension

# Samplers that need SciPy, by an argument that they alone have.
NEED_SCIPY = {"deterministic_objective": "gp", "qmc_type": "quasi_random"}
Make = Callable[[int], BaseSampler]


class SeededSampler(BaseSampler):
    """Let a new sampler, seeded by the trial's number, draw each trial.

    What a worker draws then does not depend on which trials it drew before: a study that is
    stopped and started again draws the same as one that was never stopped.

    Args:
        make: makes the sampler from a seed.
        seed: the study's.
        number: returns a trial's number, which its later attempts share.
    """

    def __init__(self, make: Make, seed: int, number: Callable[[Study, FrozenTrial], int]) -> None:
        self._make, self._seed, self._number = make, seed, number
        self._sampler = self._made(0)
        self.number = 0  # of the trial that it draws

    def _made(self, number: int) -> BaseSampler:
        [drawn] = np.random.SeedSequence([self._seed, number]).generate_state(1)
        return self._make(int(drawn))

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial."""
        self.number = self._number(study, trial)
        self._sampler = self._made(self.number)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the keys that are drawn together."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw the keys that are drawn together."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw one key."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Tell the sampler how the trial ended."""
        self._sampler.after_trial(study, trial, state, values)


def maker(factory: Callable[..., BaseSampler], seed: int, dimensions: list[Dimension]) -> Make:
    """Return what makes the sampler of one trial from a seed.

    A grid and a quasi-random sequence are the study's, from its own seed; trials take their places
    in them.

    Raises:
        InputError: a grid of an interval, or SciPy is missing.
    """
    takes = inspect.signature(factory).parameters
    if found := NEED_SCIPY.keys() & takes.keys():
        need_scipy(f"study/sampler={NEED_SCIPY[found.pop()]}")
    if "search_space" in takes:
        grid = {d.key: d.values for d in dimensions}
        return lambda drawn: factory(search_space=grid, seed=seed)
    if "qmc_type" in takes:
        return lambda drawn: factory(seed=seed, independent_sampler=RandomSampler(seed=drawn))
    return lambda drawn: factory(seed=drawn)
