"""Validations amid a fit, with only the work that somebody asked for: see loops.py."""

import inspect
import time
from contextlib import nullcontext
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.plugins import Precision

from src.kindling.speed.hooks import Hooks, is_written, preparations, was_logged

POINTS = ("start", "epoch_start", "batch_start", "batch_end", "epoch_end", "end")


class ValidationLoop(_EvaluationLoop):
    """The batches of one loader, in evaluation mode: what Lightning does, but looked up once a fit.

    What is around the batches takes Lightning a millisecond, whatever they hold.
    """

    plain = False  # whether validations run here, or are Lightning's

    def bind(self) -> None:
        """Look up what there is to do; where something is not known here, leave it to Lightning."""
        trainer: Any = self.trainer
        self._module: Any = trainer.lightning_module
        combined = self._combined_loader
        loaders = [] if combined is None else combined.flattened
        self.plain = (
            not self.skip
            and len(loaders) == 1
            and hasattr(loaders[0], "batches")  # src/kindling/loader.py, or what can stand for it
            and _arguments(self._module.validation_step) == ["batch", "batch_idx"]
            and not is_written(self._module, "on_validation_model_eval", pl.LightningModule)
            and not is_written(self._module, "on_validation_model_train", pl.LightningModule)
        )
        if not self.plain:
            return
        self._loader, self._batches = loaders[0], int(self.max_batches[0])
        self._attributes = vars(self._module)
        self._hooks = Hooks(trainer, *(f"on_validation_{point}" for point in POINTS))
        self._prepare = preparations(trainer)
        true = type(trainer.precision_plugin).forward_context is Precision.forward_context
        self._context = nullcontext if true else trainer.precision_plugin.val_step_context

    def run(self) -> list[Any]:
        """Validate."""
        if not self.plain or self.restarting or self.trainer.sanity_checking:
            found: list[Any] = super().run()
            return found
        trainer: Any = self.trainer
        training = [module for module in self._module.modules() if module.training]
        with torch.no_grad():
            self._module.eval()
            self._has_run = False
            self.batch_progress.reset_on_run()
            self._hooks("on_validation_start")
            self._hooks("on_validation_epoch_start")
            for index, batch in enumerate(islice(self._loader, self._batches)):
                self._step(batch, index)
            self._end()
        for module in training:
            module.training = True
        trainer._last_val_time = time.monotonic()  # for an interval that is given as a time
        return []

    def teardown(self) -> None:
        """End the fit: another one may be of other parts."""
        self.plain = False
        super().teardown()

    def _step(self, batch: Any, index: int) -> None:
        progress, results = self.batch_progress, self._results
        connector = self.trainer._logger_connector
        progress.is_last_batch = index == self._batches - 1
        for prepare in self._prepare:
            batch = prepare(batch)
        progress.increment_ready()
        # What `self.log` in a hook looks at; see Lightning's logger connector.
        connector._first_loop_iter = index == 0
        results.batch, results.batch_size, results.dataloader_idx = batch, None, None
        self._hooks("on_validation_batch_start", batch, index)
        progress.increment_started()
        self._attributes["_current_fx_name"] = "validation_step"
        with self._context():
            outputs = self._module.validation_step(batch, index)
        self._attributes["_current_fx_name"] = None
        progress.increment_processed()
        self._hooks("on_validation_batch_end", outputs, batch, index)
        logged = was_logged(results)
        if logged:
            connector.on_batch_end()
        results.batch = results.batch_size = None
        progress.increment_completed()
        self._has_run = True
        if logged:
            connector.update_eval_step_metrics(self._seen_batches_per_dataloader[0])
        self._seen_batches_per_dataloader[0] += 1

    def _end(self) -> None:
        results, connector = self._results, self.trainer._logger_connector
        connector.epoch_end_reached()
        logged = connector.update_eval_epoch_metrics() if was_logged(results) else {}
        self._hooks("on_validation_epoch_end")
        if was_logged(results):
            connector.on_epoch_end()
            logged |= connector.update_eval_epoch_metrics()
            connector.log_eval_end_metrics(logged)
        self._hooks("on_validation_end")
        connector.reset_results()


def _arguments(function: Any) -> list[str]:
    return [*inspect.signature(function).parameters]
