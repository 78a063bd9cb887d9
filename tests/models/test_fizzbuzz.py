"""FizzBuzz against cross entropy written out, and against the rule of the game."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from src.data.fizzbuzz import FizzBuzzData, encode, fizzbuzz
from src.kindling.build import Experiment
from src.models.fizzbuzz import FizzBuzz
from tests.conftest import Command

Build = Callable[..., Experiment]


@pytest.mark.parametrize("signed_digits", [False, True])
def test_loss_is_the_cross_entropy_of_a_two_layer_net(signed_digits: bool) -> None:
    model = FizzBuzz(hidden_features=20, signed_digits=signed_digits).double()
    x, y = FizzBuzzData().split("train")
    found = model.training_loss((x.double(), y)).item()

    inputs = x.double().numpy() * 2 - 1 if signed_digits else x.double().numpy()
    w1, b1, w2, b2 = (p.detach().numpy() for p in model.net.parameters())
    logits = np.maximum(inputs @ w1.T + b1, 0) @ w2.T + b2
    likelihood = np.exp(logits)[np.arange(len(y)), y] / np.exp(logits).sum(axis=1)
    assert found == pytest.approx(float(-np.log(likelihood).mean()), rel=1e-12)


def test_smooth_labels_are_for_training_alone() -> None:
    model = FizzBuzz(hidden_features=20, label_smoothing=0.3)
    x, y = FizzBuzzData().split("train")
    logits = model(x)
    for training, smoothing in ((True, 0.3), (False, 0.0)):
        expected = F.cross_entropy(logits, y, label_smoothing=smoothing)
        found = model.train(training).loss(logits, y)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_it_answers_with_the_most_probable_class() -> None:
    model = FizzBuzz()
    digits = encode(torch.arange(1, 101), 10)
    assert torch.equal(model.predict_step(digits), model(digits).argmax(dim=1))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_default_recipe_plays_all_of_1_to_100_right(seed: int, build: Build) -> None:
    experiment = build("model=fizzbuzz", f"seed={seed}", "logger=none")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    numbers = torch.arange(1, 101)
    answers = experiment.model.eval().predict_step(encode(numbers, 10))
    assert int((answers == fizzbuzz(numbers)).sum()) == 100


def test_the_game_is_played_and_counted(command: Command, tmp_path: Path) -> None:
    command("train", "model=fizzbuzz", "trainer.accelerator=cpu")
    game = command("predict").stdout.split()
    plain = ["fizz" * (n % 3 == 0) + "buzz" * (n % 5 == 0) or str(n) for n in range(1, 101)]
    right = sum(a == b for a, b in zip(game[:100], plain, strict=True))
    assert f"{right} of 100 right" in " ".join(game)
    assert right >= 97
    said = command.here("predict", "numbers=[15,300]")
    assert said.split()[:2] == ["fizzbuzz", "fizzbuzz"]
    command.here("predict", "numbers=1..1000", f"output={tmp_path}/game.json")
    assert len(json.loads((tmp_path / "game.json").read_text())) == 1000
    refused = command("predict", "numbers=1024", status=2).stderr
    assert refused.startswith("error: ")
    assert "1023" in refused
    assert refused.count("\n") == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_it_is_learned_on_a_gpu(command: Command) -> None:
    command("train", "model=fizzbuzz", "trainer.accelerator=gpu")
    assert "100 of 100 right" in command("predict").stdout
