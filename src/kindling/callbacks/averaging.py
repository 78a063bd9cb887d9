"""The averages of Lightning's callbacks: `best.ckpt` holds them, and the test leaves them alone."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging


def ends_with_average(trainer: Any) -> bool:
    """Return, in `on_train_end`, whether StochasticWeightAveraging has just set the weights.

    It does so after the last epoch, when the checkpoints of that epoch are already written.
    """
    swa = [c for c in trainer.callbacks if isinstance(c, StochasticWeightAveraging)]
    endless = trainer.max_epochs == -1
    return any(c.n_averaged and (endless or trainer.current_epoch > c.swa_end) for c in swa)


@contextmanager
def left_out(trainer: Any) -> Iterator[None]:
    """Test without the callbacks that average weights, as `evaluate` does.

    A checkpoint's weights are the average. WeightAveraging would load those of the last step in
    their place, and StochasticWeightAveraging would copy a module that has been fitted.
    """
    callbacks = trainer.callbacks
    averaging = (StochasticWeightAveraging, WeightAveraging)
    trainer.callbacks = [c for c in callbacks if not isinstance(c, averaging)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")
        try:
            yield
        finally:
            trainer.callbacks = callbacks
