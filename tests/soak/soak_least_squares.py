"""A hundred seeds of the linear regression, each trained whole."""

from tests.models.test_least_squares import Build, trained
from tests.models.test_linear_regression import least_squares, relative_distance


def soak_a_hundred_seeds_end_within_a_millionth_of_least_squares(build: Build) -> None:
    distances = []
    for seed in range(100):
        experiment = trained(build, seed)
        solution = least_squares(*experiment.data.split("train"))
        distances.append(relative_distance(experiment.model.net.weight, solution))
    print(f"farthest of 100 seeds: {max(distances):.1e}")
    assert max(distances) < 1e-6
