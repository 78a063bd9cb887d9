"""Training on GPUs; `make test-gpu` runs this where torch can use one.

It needs a CUDA build of torch: `make setup` takes that of PyPI on Linux.
"""

import json
import math
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests import kills
from tests.conftest import environment
from tests.kindling.conftest import Command

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("own_models"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use"),
]
# Validated, and so saved, every second epoch.
TRAINED = ("trainer.accelerator=gpu", "trainer.check_val_every_n_epoch=2", "trainer.max_epochs=60")
WAYS = {
    "eager": [],
    "one step per call": ["steps_per_execution=1"],
    "compiled": ["compile=true"],
    "compiled, bfloat16": ["compile=true", "trainer.precision=bf16-mixed"],
    "bfloat16": ["trainer.precision=bf16-mixed"],
    "float16": ["trainer.precision=16-mixed"],
    "float64": ["trainer.precision=64-true"],
}


def finished(run: Path) -> bool:
    """Say whether a run has come to its end with finite metrics."""
    metrics = json.loads((run / "metrics.json").read_text())
    return "test/loss" in metrics and all(math.isfinite(value) for value in metrics.values())


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights at a run's end."""
    content = torch.load(run / "checkpoints" / "last.ckpt", "cpu", weights_only=True)
    state: dict[str, torch.Tensor] = content["state_dict"]
    return state


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


@pytest.mark.parametrize("listed", [False, True])
def test_a_gpu_that_is_not_there_gets_one_line(command: Command, listed: bool) -> None:
    count = torch.cuda.device_count()
    devices = f"[{count}]" if listed else count + 1
    said = command("train", "trainer.accelerator=gpu", f"trainer.devices={devices}", status=2)
    assert said.stderr.startswith(f"error: trainer.devices={devices}: this machine has {count} GPU")
    assert said.stderr.count("\n") == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_run_killed_on_a_gpu_ends_as_if_nothing_had_happened(way: str, tmp_path: Path) -> None:
    straight, killed = Command(tmp_path / "straight"), Command(tmp_path / "killed")
    straight("train", *TRAINED, *WAYS[way])
    words = killed.line("train", *TRAINED, *WAYS[way])
    with subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL) as process:
        while not (killed.latest / "checkpoints" / "last.ckpt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    killed("train", "resume=latest")
    assert list(kills.differences(straight.latest, killed.latest)) == []


def test_several_steps_per_call_are_the_same_bits_on_a_gpu(tmp_path: Path) -> None:
    one, many = Command(tmp_path / "one"), Command(tmp_path / "many")
    one("train", *TRAINED, "steps_per_execution=1")
    many("train", *TRAINED)
    for name, tensor in weights(one.latest).items():
        torch.testing.assert_close(weights(many.latest)[name], tensor, rtol=0, atol=0)


def test_compiled_steps_are_eager_ones_but_for_rounding_on_a_gpu(tmp_path: Path) -> None:
    eager, compiled = Command(tmp_path / "eager"), Command(tmp_path / "compiled")
    eager("train", *TRAINED)
    said = compiled("train", *TRAINED, "compile=true")
    assert "compiling" in said.stdout
    assert "eagerly" not in said.stderr
    for name, tensor in weights(eager.latest).items():
        torch.testing.assert_close(weights(compiled.latest)[name], tensor, rtol=1e-3, atol=1e-4)


def test_what_a_gpu_trained_is_exported(command: Command) -> None:
    pytest.importorskip("onnxruntime")
    command("train", "trainer.accelerator=gpu", "trainer.max_epochs=2")
    for kind in ("onnx", "pt2", "safetensors"):
        command("export", f"run={command.latest}", f"format={kind}")
