"""Random numbers follow from (seed, step, rank): a run that was stopped anywhere repeats itself."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from src.kindling.build import Experiment
from src.kindling.process.randomness import Randomness

Build = Callable[..., Experiment]
CPU = torch.device("cpu")


def drawn(seed: int = 0, rank: int = 0, step: int = 5, part: int = 0) -> float:
    Randomness(seed, rank, CPU).seed_batch(step, part)
    return torch.rand(()).item()


def test_seed_rank_step_and_batch_of_a_step_each_have_numbers_of_their_own() -> None:
    assert drawn() == drawn()
    seeds, ranks, steps, parts = ([drawn(**{k: n}) for n in range(50)] for k in
                                  ("seed", "rank", "step", "part"))  # fmt: skip
    assert len({*seeds, *ranks, *steps, *parts}) == 4 * 50 - 3  # (0, 0, 5, 0) is in each
    assert abs(sum(steps) / 50 - 0.5) < 0.15


def test_a_call_starts_numpy_and_python_too() -> None:
    def three(step: int) -> tuple[float, ...]:
        Randomness(0, 0, CPU).seed_fetch(step)
        return random.random(), np.random.rand(), torch.rand(()).item()

    assert three(7) == three(7)
    assert not set(three(7)) & set(three(8))


class StoppedError(Exception):
    """The run ends here."""


class StopAt(Callback):
    """Save and stop at the first call that ends at this step or later."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
        if trainer.global_step >= self.step:
            trainer.save_checkpoint(self.path)
            raise StoppedError


@pytest.mark.parametrize("steps", [1, 3])
def test_a_run_with_dropout_resumes_inside_an_epoch_to_the_same_bits(
    steps: int, build: Build, tmp_path: Path
) -> None:
    def fresh(*callbacks: Callback) -> Experiment:
        experiment = build(
            "model.hidden_features=16",
            "model.dropout=0.5",
            "data.batch_size=100",  # nine steps per epoch
            "trainer.max_epochs=4",
            "logger=none",
            f"steps_per_execution={steps}",
        )
        experiment.trainer.callbacks[:0] = callbacks

        def augmented(batch: Any, loader: int) -> Any:
            batches = batch if isinstance(batch, list) else [batch]
            noisy = [(x + np.random.rand() + random.random(), y) for x, y in batches]
            return noisy if isinstance(batch, list) else noisy[0]

        experiment.data.on_after_batch_transfer = augmented
        return experiment

    def fit(experiment: Experiment, **options: Any) -> list[torch.Tensor]:
        options |= {"datamodule": experiment.data, "weights_only": True}
        experiment.trainer.fit(experiment.model, **options)
        return [p.detach() for p in experiment.model.parameters()]

    whole = fit(fresh())
    with pytest.raises(StoppedError):
        fit(fresh(StopAt(14, tmp_path / "inside.ckpt")))
    resumed = fit(fresh(), ckpt_path=tmp_path / "inside.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
