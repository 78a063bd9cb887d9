"""What a fit leaves behind when it is stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from src.kindling.build import Experiment
from src.kindling.training import fit


class Stop(pl.Callback):
    """Ends a run in the middle of an epoch."""

    def on_train_batch_end(self, *_: Any) -> None:
        raise SystemExit(3)


def test_a_profile_ends_with_the_run_that_it_is_of(
    build: Callable[..., Experiment], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = build("debug=profile", "trainer.check_val_every_n_epoch=1", "logger=none")
    trainer: Any = built.trainer
    trainer.callbacks.append(Stop())
    with pytest.raises(SystemExit):
        fit.fit_and_test(built, tmp_path, None, [])
    # Left open, it would end the next run that profiles in this process, a trial or a job.
    assert trainer.profiler.profiler is None
