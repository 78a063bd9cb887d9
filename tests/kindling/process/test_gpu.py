"""Training on GPUs; `make test-gpu` runs this where torch can use one.

It needs a CUDA build of torch: `make setup` takes that of PyPI on Linux.
"""

import json
import math
from pathlib import Path

import pytest
import torch

from tests.kindling.conftest import Command

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("own_models"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use"),
]


def finished(run: Path) -> bool:
    """Say whether a run has come to its end with finite metrics."""
    metrics = json.loads((run / "metrics.json").read_text())
    return "test/loss" in metrics and all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("trainer", ["gpu", "ddp", "fsdp"])
def test_a_run_on_gpus_trains_tests_and_is_evaluated_again(command: Command, trainer: str) -> None:
    command("train", f"trainer={trainer}", "trainer.max_epochs=3")
    assert finished(command.latest)
    command("evaluate", f"run={command.latest}", "accelerator=cpu")


@pytest.mark.parametrize("trainer", ["gpu", "ddp", "fsdp"])
def test_a_run_on_gpus_is_resumed(command: Command, trainer: str) -> None:
    command("train", f"trainer={trainer}", "trainer.max_epochs=2")
    command("train", "resume=latest", "trainer.max_epochs=4")
    assert finished(command.latest)
    assert json.loads((command.latest / "run.json").read_text())["status"] == "finished"
