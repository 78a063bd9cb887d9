"""Store a run's configuration in its checkpoints: a model is rebuilt from the file alone."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from src.kindling.config import masking
from src.kindling.layout import Plain

STORED = (bool, int, float, str, list, tuple, dict, type(None))


class StoredConfig(Callback):
    """Add the resolved configuration to each checkpoint, and keep it plain data.

    Many modules call `self.save_hyperparameters()` with an optimizer factory or a network among
    the arguments. A file that holds such an object does not load with `weights_only=True`, and the
    configuration rebuilds it anyway; so hyperparameters other than plain values are left out.

    Args:
        config: the configuration as it is to be stored (see `config/masking.py`), as plain data.
    """

    def __init__(self, config: Plain) -> None:
        self._config = config

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the configuration."""
        checkpoint["config"] = self._config
        arguments = (pl_module.CHECKPOINT_HYPER_PARAMS_KEY, "datamodule_hyper_parameters")
        for key, group in zip(arguments, ("model", "data"), strict=True):
            if key in checkpoint:
                held = masking.as_stored(checkpoint[key], self._config.get(group, {}))
                checkpoint[key] = {k: v for k, v in held.items() if isinstance(v, STORED)}
