"""Draw a trial's settings from the study's seed and the trial's number alone."""

import inspect
from collections.abc import Callable

import numpy as np
from optuna.samplers import BaseSampler, RandomSampler

from src.kindling.studies.settings import need_scipy
from src.kindling.studies.space import Dimension

# Samplers that need SciPy, by an argument that they alone have.
NEED_SCIPY = {"deterministic_objective": "gp", "qmc_type": "quasi_random"}
Make = Callable[[int], BaseSampler]


def maker(factory: Callable[..., BaseSampler], seed: int, dimensions: list[Dimension]) -> Make:
    """Return what makes the sampler of one trial from its number.

    What a worker draws then does not depend on which trials it drew before: a study that is
    stopped and started again draws the same as one that was never stopped. A grid and a
    quasi-random sequence are the study's, from its own seed; trials take their places in them.

    Raises:
        InputError: a grid of an interval, or SciPy is missing.
    """
    takes = inspect.signature(factory).parameters
    if found := NEED_SCIPY.keys() & takes.keys():
        need_scipy(f"study/sampler={NEED_SCIPY[found.pop()]}")
    grid = {d.key: d.values for d in dimensions} if "search_space" in takes else {}

    def made(number: int) -> BaseSampler:
        drawn = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        if "search_space" in takes:
            return factory(search_space=grid, seed=seed)
        if "qmc_type" in takes:
            return factory(seed=seed, independent_sampler=RandomSampler(seed=drawn))
        return factory(seed=drawn)

    return made
