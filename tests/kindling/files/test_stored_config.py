"""A checkpoint of weights alone holds the configuration, too: the model is rebuilt from it."""

from collections.abc import Callable
from pathlib import Path

import torch

from src.kindling import restore
from src.kindling.build import Experiment


def test_weights_alone_are_restored_with_their_configuration(
    build: Callable[..., Experiment], tmp_path: Path
) -> None:
    experiment = build("trainer.max_epochs=1", "logger=none")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    path = tmp_path / "weights.ckpt"
    experiment.trainer.save_checkpoint(path, weights_only=True)
    assert "optimizer_states" not in torch.load(path, weights_only=True)
    settings, _, model = restore.load(path)
    assert settings == experiment.config
    own = experiment.model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
