"""On two processes `self.log` means what it means in Lightning."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from tests.forked import Forked

EACH = ("trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1")
YAML = f"""
defaults:
  - default
ranks:
  _target_: {__name__}.Ranks
"""


class Ranks(Callback):
    """Logs the rank, over all processes and of each alone."""

    def on_validation_epoch_end(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        pl_module.log("val/mean", float(trainer.global_rank), sync_dist=True)
        pl_module.log("val/alone", float(trainer.global_rank))


def test_a_logged_value_is_the_mean_over_ranks_or_comes_with_lightnings_warning(
    tmp_path: Path,
) -> None:
    (tmp_path / "callbacks").mkdir()
    (tmp_path / "callbacks" / "ranks.yaml").write_text(YAML)
    own = (
        f"hydra.searchpath=[file://{tmp_path}]",
        "callbacks=ranks",
        "~callbacks.figures",
        "logger=csv",
    )
    forked = Forked(tmp_path, "train", *own, "trainer=ddp_cpu", *EACH, ranks=2)
    assert forked.wait() == 0
    metrics = json.loads((forked.run / "metrics.json").read_text())
    assert metrics["val/mean"] == 0.5
    assert metrics["val/alone"] == 0.0  # of the process that writes the files
    warned = [line for line in forked.err.splitlines() if "It is recommended to use" in line]
    assert warned
    assert all("'val/alone'" in line for line in warned)
