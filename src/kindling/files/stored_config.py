"""Store a run's configuration in its checkpoints: a model is rebuilt from the file alone."""

from typing import Any

import lightning.pytorch as pl

from src.kindling.config import masking
from src.kindling.files.checkpoint import AtomicCheckpointIO
from src.kindling.layout import Plain

STORED = (bool, int, float, str, list, tuple, dict, type(None))
ARGUMENTS = {  # group of the configuration -> where Lightning stores the constructor's arguments
    "model": pl.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY,
    "data": pl.LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY,
}


class ConfiguredCheckpointIO(AtomicCheckpointIO):
    """Add the resolved configuration to each checkpoint, and keep it plain data.

    The writer adds it, as Lightning calls no callback for a `save_weights_only` checkpoint.

    Many modules call `self.save_hyperparameters()` with an optimizer factory or a network among
    the arguments. A file that holds such an object does not load with `weights_only=True`, and the
    configuration rebuilds it anyway; so hyperparameters other than plain values are left out.

    Args:
        config: the configuration as it is to be stored (see `config/masking.py`), as plain data.
    """

    def __init__(self, config: Plain) -> None:
        super().__init__()
        self._config = config

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Save the checkpoint with the configuration."""
        content = checkpoint | {"config": self._config}
        for group, key in ARGUMENTS.items():
            if key in content:
                held = masking.as_stored(content[key], self._config.get(group, {}))
                content[key] = {k: v for k, v in held.items() if isinstance(v, STORED)}
        super().save_checkpoint(content, path, storage_options)
