"""What every model promises; one that is added to conf/model is held to it from its first day."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hydra.utils import get_class

from src.kindling.build import Experiment
from src.kindling.config.hydra_calls import instantiate
from src.kindling.data import BaseData
from src.kindling.model import BaseModule
from src.kindling.training.prediction import cast
from tests.conftest import ROOT, compose, options

Build = Callable[..., Experiment]
MODELS = options("model") if (ROOT / "conf" / "model").is_dir() else []  # all deleted, none new yet


def extends_ours(model: str) -> bool:
    """Return whether a model promises more than any LightningModule does."""
    return issubclass(get_class(compose(f"model={model}")["model"]["_target_"]), BaseModule)


OURS = [model for model in MODELS if extends_ours(model)]


def first_batch(experiment: Experiment) -> Any:
    """Return the batch of the first step, of any form."""
    experiment.data.prepare_data()
    experiment.data.setup("fit")
    return cast(next(iter(experiment.data.train_dataloader())), experiment.model)


def inputs_of(batch: Any) -> Any:
    """Return what `predict_step` takes from a batch: the first of a pair, or all of it."""
    return batch[0] if isinstance(batch, tuple | list) else batch


@pytest.mark.parametrize("model", OURS)
def test_outputs_have_a_row_for_each_input_and_the_promised_width(model: str, build: Build) -> None:
    experiment = build(f"model={model}")
    inputs = inputs_of(first_batch(experiment))
    if hasattr(experiment.model, "in_features"):
        assert inputs.shape[1] == experiment.model.in_features
    outputs = experiment.model(inputs)
    if isinstance(inputs, torch.Tensor):
        assert len(outputs) == len(inputs)
    if hasattr(experiment.model, "out_features"):
        assert outputs.shape[1:] == (experiment.model.out_features,)


@pytest.mark.parametrize("model", OURS)
def test_one_batch_can_be_learned_by_heart(
    model: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = build(f"model={model}", "data.batch_size=8")
    net, batch = experiment.model.float(), first_batch(experiment)
    net.trainer = experiment.trainer
    for name in ("log", "log_dict"):  # Lightning's are for its own loops
        monkeypatch.setattr(net, name, lambda *_, **__: None)
    before = net.eval().training_loss(batch).item()
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        loss = net.training_loss(batch)
        loss.backward()
        optimizer.step()
    # Noise leaves linear regression a residual, and smoothed labels leave a classifier some doubt.
    assert net.eval().training_loss(batch).item() < 0.05 * before


@pytest.mark.parametrize("model", OURS)
def test_a_saved_model_is_restored_to_identical_outputs(
    model: str, build: Build, tmp_path: Path
) -> None:
    experiment = build(f"model={model}", "trainer.max_epochs=2", "logger=none")
    inputs = inputs_of(first_batch(experiment))
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    net = experiment.model.eval()
    restored = type(net).load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt").eval()
    inputs = cast(inputs, net)  # in the precision that was trained in
    with torch.inference_mode():
        assert torch.equal(restored(inputs), net(inputs))


@pytest.mark.parametrize("model", OURS)
def test_model_and_data_load_from_a_checkpoint_with_no_other_argument(
    model: str, build: Build, tmp_path: Path
) -> None:
    experiment = build(f"model={model}", "trainer.max_epochs=1", "logger=none", "seed=5")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    data = type(experiment.data).load_from_checkpoint(checkpoint)
    assert dict(data.hparams) == dict(experiment.data.hparams)
    restored = type(experiment.model).load_from_checkpoint(checkpoint)
    assert dict(restored.hparams) == dict(experiment.model.hparams)
    if isinstance(data, BaseData) and data.loads_from_splits("train"):
        for mine, theirs in zip(data.split("train"), experiment.data.split("train"), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_holds_plain_data_and_the_resolved_configuration(
    model: str, build: Build, tmp_path: Path
) -> None:
    experiment = build(f"model={model}", "trainer.max_epochs=1", "logger=none")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    content = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert content["config"] == experiment.config
    assert foreign(content) == []
    arguments = content.get("hyper_parameters", {})  # a constructor without arguments saves none
    assert all(isinstance(v, int | float | str | list | dict | None) for v in arguments.values())


def foreign(node: Any) -> list[str]:
    """List the types in a checkpoint that are no plain data."""
    if isinstance(node, dict):
        return [name for pair in node.items() for part in pair for name in foreign(part)]
    if isinstance(node, list | tuple):
        return [name for part in node for name in foreign(part)]
    plain = node is None or type(node) in (bool, int, float, str, torch.Tensor)
    return [] if plain else [type(node).__name__]


@pytest.mark.parametrize("model", MODELS)
def test_one_seed_gives_one_result_and_another_seed_another(model: str, build: Build) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        overrides = (f"model={model}", f"seed={seed}", "trainer.max_epochs=2", "logger=none")
        experiment = build(*overrides, "trainer.limit_train_batches=20")
        experiment.trainer.fit(experiment.model, datamodule=experiment.data)
        return [p.detach() for p in experiment.model.parameters()]

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("model", MODELS)
def test_model_and_data_build_from_their_yaml_alone(model: str) -> None:
    settings = compose(f"model={model}")
    for group, kind in (("model", pl.LightningModule), ("data", pl.LightningDataModule)):
        built = instantiate(settings[group])
        assert isinstance(built, kind)
        # The YAML states each argument: what a user may set stands there to be seen.
        stated = {key for key in settings[group] if not key.startswith("_")}
        arguments = set(dict(built.hparams))
        assert stated == arguments, get_class(settings[group]["_target_"])
