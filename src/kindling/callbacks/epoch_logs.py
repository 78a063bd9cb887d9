"""Keep what a part of an epoch has logged, so that a resumed run logs the mean of the whole."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.connectors.logger_connector.result import (
    _Metadata,
    _ResultMetric,
    _Sync,
)
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torchmetrics import Metric

from src.kindling.callbacks.loop import has_ended, keep_results

State = dict[str, Any]


class EpochLogs(Callback):
    """Save the values that `self.log` has gathered, and the states of the module's torchmetrics.

    Lightning forgets them: a resumed run would log the mean over the rest of the epoch, and nothing
    of a value that is not logged again. Each rank has its own. Installed in every run.
    """

    def __init__(self) -> None:
        self._ranks: list[State] = []  # from the checkpoint of a resumed run

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: State) -> None:
        """Add the state of each rank to a checkpoint."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        results = {} if has_ended(trainer) else trainer.fit_loop.epoch_loop._results
        metrics = {name: m for name, m in pl_module.named_modules() if isinstance(m, Metric)}
        own = {
            "results": {key: _entry(r) for key, r in results.items() if _is_kept(r)},
            "metrics": {name: _state(m) for name, m in metrics.items() if m.update_called},
        }
        ranks: list[Any] = [apply_to_collection(own, Tensor, _kept)]
        if trainer.world_size > 1:
            ranks *= trainer.world_size
            torch.distributed.all_gather_object(ranks, ranks[0])
        if any(any(rank.values()) for rank in ranks):
            checkpoint["callbacks"][self.state_key] = {"ranks": ranks}

    def load_state_dict(self, state_dict: State) -> None:
        """Keep the states of a resumed run."""
        self._ranks = state_dict["ranks"]

    def on_train_start(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        """Restore them; another number of ranks begins the means again."""
        ranks, self._ranks = self._ranks, []
        if len(ranks) != trainer.world_size:
            return
        own, metrics = ranks[trainer.global_rank], dict(pl_module.named_modules())
        for name, state in own["metrics"].items():
            if isinstance(metrics.get(name), Metric):
                _restore(metrics[name], state, pl_module.device)
        results = trainer.fit_loop.epoch_loop._results
        for key, entry in own.get("results", {}).items():  # older runs lack them
            result = _result(entry, trainer.strategy.reduce)
            result.value = metrics.get(entry["meta"]["metric_attribute"])
            if result.is_tensor or result.value is not None:
                _restore(result, entry["state"], pl_module.device)
                results[key] = result
                keep_results(trainer)


def _is_kept(result: _ResultMetric) -> bool:
    """Return whether a value of `self.log` goes into a checkpoint; a process group cannot."""
    return not result.has_reset and result.meta.sync.group is None


def _entry(result: _ResultMetric) -> State:
    """Return a value of `self.log` as plain data: its state, and the arguments of `self.log`."""
    meta = vars(result.meta) | {"reduce_fx": result.meta.reduce_fx.__name__}
    sync = meta.pop("_sync")
    return {
        "state": _state(result) | {"_forward_cache": result._forward_cache},
        "is_tensor": result.is_tensor,
        "meta": meta,
        "sync": {"_should": sync.should, "rank_zero_only": sync.rank_zero_only},
    }


def _result(entry: State, reduce: Any) -> _ResultMetric:
    """Return a value of `self.log` from its entry, still without its state."""
    meta = _Metadata(**entry["meta"])
    meta.sync = _Sync(reduce, **entry["sync"])
    return _ResultMetric(meta, entry["is_tensor"])


def _state(metric: Metric) -> State:
    return {"_update_count": metric._update_count, **metric.metric_state}


def _restore(metric: Metric, state: State, device: torch.device) -> None:
    for name, value in apply_to_collection(state, Tensor, Tensor.to, device).items():
        setattr(metric, "_update_count" if name == "count" else name, value)  # of older runs


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone()
