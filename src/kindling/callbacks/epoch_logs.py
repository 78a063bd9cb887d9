"""Keep what a part of an epoch has logged, so that a resumed run logs the mean of all of it."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torchmetrics import Metric

from src.kindling.callbacks.loop import has_ended

State = dict[str, Any]


class EpochLogs(Callback):
    """Save, inside an epoch, the sums of `self.log` and the states of the module's torchmetrics.

    Lightning forgets them: a resumed run would log the mean over the rest of the epoch. Each rank
    has its own. Installed in every run.
    """

    def __init__(self) -> None:
        self._ranks: list[State] = []  # from the checkpoint of a resumed run

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: State) -> None:
        """Add the state of each rank to a checkpoint from inside an epoch."""
        if trainer.state.fn != TrainerFn.FITTING or has_ended(trainer):
            return
        results = dict(trainer.fit_loop.epoch_loop._results)
        logged = {
            key: r.metric_state for key, r in results.items() if r.is_tensor and not r.has_reset
        }
        metrics = {name: m for name, m in pl_module.named_modules() if isinstance(m, Metric)}
        if trainer.validating:  # the module may yet reset the others
            used = [result.value for result in results.values() if not result.is_tensor]
            metrics = {name: m for name, m in metrics.items() if any(m is u for u in used)}
        own = {"logged": logged, "metrics": {name: _state(m) for name, m in metrics.items()}}
        if any(own.values()):
            ranks: list[Any] = [apply_to_collection(own, Tensor, _kept)]
            if trainer.world_size > 1:
                ranks *= trainer.world_size
                torch.distributed.all_gather_object(ranks, ranks[0])
            checkpoint["callbacks"][self.state_key] = {"ranks": ranks}

    def load_state_dict(self, state_dict: State) -> None:
        """Keep the states of a resumed run."""
        self._ranks = state_dict["ranks"]

    def on_train_start(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        """Restore them; another number of ranks begins the means again."""
        ranks, self._ranks = self._ranks, []
        if len(ranks) != trainer.world_size:
            return
        own = ranks[trainer.global_rank]
        trainer.fit_loop.epoch_loop._results = _Continued(trainer, own["logged"])
        for name, metric in pl_module.named_modules():
            if isinstance(metric, Metric) and name in own["metrics"]:
                _restore(metric, own["metrics"][name])


class _Continued(_ResultCollection):
    """The results of a resumed epoch: a value that is first logged begins with its sum so far."""

    def __init__(self, trainer: Any, sums: State) -> None:
        super().__init__(training=True)
        self._trainer, self._epoch, self._sums = trainer, trainer.current_epoch, sums

    def __setitem__(self, key: str, result: Any) -> None:
        super().__setitem__(key, result)
        if self._trainer.current_epoch == self._epoch and result.is_tensor:
            for name, value in self._sums.get(key, {}).items():
                setattr(result, name, value)


def _state(metric: Metric) -> State:
    return {"count": metric._update_count, **metric.metric_state}


def _restore(metric: Metric, state: State) -> None:
    metric._update_count = state.pop("count")
    for name, value in state.items():
        setattr(metric, name, apply_to_collection(value, Tensor, Tensor.to, metric.device))


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone()
