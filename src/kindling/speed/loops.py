"""Lightning's loops over epochs and batches, with only the work that somebody asked for.

Lightning spends about a millisecond on an epoch, whatever it holds: hooks that do nothing,
profilers that are off, results that nobody logged. Where an epoch is a few steps of 0.1 ms, that is
most of the time. Here the same things happen in the same order, with the same counts for
checkpoints and callbacks, but what is not needed is found out once a fit. An execution runs through
several epochs where it may (src/kindling/speed/epochs_per_call.py).

Only executions run so (`steps_per_execution` above 1, or `compile=true`), on one device and without
a profiler. Automatic optimization, a fit's first epoch (which may continue a stopped one), and
whatever `_is_plain` does not know, are Lightning's own; only random numbers are started there too.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins import Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy

from src.kindling.process import signals
from src.kindling.speed.epochs_per_call import EpochsPerCall
from src.kindling.speed.hooks import Hooks, is_written, preparations, was_logged
from src.kindling.speed.validation_loop import ValidationLoop


def install(trainer: pl.Trainer) -> None:
    """Give a Trainer these loops in place of its own, before its fit begins."""
    epochs, batches = trainer.fit_loop, trainer.fit_loop.epoch_loop
    trainer.fit_loop = FitLoop(trainer, epochs.min_epochs, epochs.max_epochs)
    batches = EpochLoop(trainer, batches.min_steps, batches.max_steps)
    trainer.fit_loop.epoch_loop = batches
    own = batches.val_loop
    batches.val_loop = ValidationLoop(
        trainer, own._trainer_fn, own._stage, own.verbose, own.inference_mode
    )


class EpochLoop(_TrainingEpochLoop):
    """The batches of one epoch."""

    plain = False  # whether this epoch runs here, or is Lightning's
    span = 1  # epochs that this execution may take

    def bind(self, loader: Any, turn: Callable[[], None]) -> None:
        """Look up, once a fit, what there is to do around a batch.

        Args:
            loader: yields the batches.
            turn: goes from one epoch of a span to the next.
        """
        self._loader, self._turn = loader, turn
        self._ahead = getattr(loader, "ahead", 1)
        trainer = self.trainer
        self._module: Any = trainer.lightning_module
        self._attributes = vars(self._module)
        self._connector = trainer._logger_connector
        self._hooks = Hooks(trainer, "on_train_batch_start", "on_train_batch_end")
        self._prepare = preparations(trainer)
        validations: Any = self.val_loop
        validations.setup_data()
        validations.bind()
        self.validates = trainer.enable_validation and sum(trainer.num_val_batches) > 0
        true = type(trainer.precision_plugin).forward_context is Precision.forward_context
        self._context = nullcontext if true else trainer.precision_plugin.train_step_context
        self.manual_optimization.on_run_start()  # optimizers then count their steps

    def run(self, data_fetcher: _DataFetcher) -> None:
        """Train on each batch of the epoch, and validate when it is time."""
        if not self.plain:
            super().run(data_fetcher)
            return
        self.batch_progress.reset_on_run()
        self.val_loop.batch_progress.total.reset()
        last = len(self._loader) - 1
        for index, batch in enumerate(self._fetched()):
            self._train(batch, index, index == last)
            if self.validates:
                self.on_advance_end(data_fetcher)
            else:
                self._batches_that_stepped += 1
                self._save_loggers_on_train_batch_end()
            if self.done:
                break

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Train on one batch, as Lightning does; it may be augmented while it is fetched."""
        self._start_call()
        super().advance(data_fetcher)

    def _fetched(self) -> Iterator[Any]:
        """Yield the batches of the loader, which may augment them while they are fetched."""
        batches = iter(self._loader)
        while True:
            self._start_call()
            try:
                yield next(batches)
            except StopIteration:
                return

    def _start_call(self) -> None:
        randomness = getattr(self.trainer.lightning_module, "randomness", None)
        if randomness is not None:
            randomness.start_call(self.global_step)

    def _train(self, batch: Any, index: int, last: bool) -> None:
        """Hand one batch (of an execution: a list of them) to the module."""
        progress, results = self.batch_progress, self._results
        progress.is_last_batch = last
        batch = self._prepared(batch)
        if self.span > 1:
            batch = list(batch)  # which grows from epoch to epoch
        progress.increment_ready()
        # What `self.log` in a hook looks at; see Lightning's logger connector.
        self._connector._first_loop_iter = index == 0
        results.batch, results.batch_size, results.dataloader_idx = batch, None, None
        self._hooks("on_train_batch_start", batch, index)
        progress.increment_started()
        ahead = self._fetched_ahead(self.span - 1) if self.span > 1 else []
        outputs = self._stepped(batch, index)
        if self.span > 1:
            outputs = self._gone_on(batch, outputs, ahead)
        progress.increment_processed()
        self._hooks("on_train_batch_end", outputs, batch, index)
        logged = was_logged(results)
        if logged:
            self._connector.on_batch_end()
        results.batch = None
        progress.increment_completed()
        if logged:
            self._connector.update_train_step_metrics()

    def _prepared(self, batch: Any) -> Any:
        for prepare in self._prepare:
            batch = prepare(batch)
        return batch

    def _stepped(self, batch: Any, index: int) -> Any:
        self._attributes["_current_fx_name"] = "training_step"  # for `self.log`: see hooks.py
        with self._context():
            outputs = self._module.training_step(batch, index)
        self._attributes["_current_fx_name"] = None
        return outputs

    def _gone_on(self, batches: list[Any], first: Any, ahead: list[Any]) -> Any:
        """Run through the epochs of a span after its first; return the outputs of all.

        It ends early for a signal, and where `self.log` wants the mean of each epoch.
        """
        outputs = [first]
        while len(outputs) < self.span:
            if self.trainer.should_stop or self._results or signals.pending_signal():
                break
            ahead = ahead or self._fetched_ahead(self.span - len(outputs))
            self._turn_to_next()
            batch = self._prepared(ahead.pop() if ahead else next(iter(self._loader)))
            self._count_begun()
            batches += batch
            outputs.append(self._stepped(batch, 0))
        return self._module.execution.joined(outputs)

    def _turn_to_next(self) -> None:
        """Go to the next epoch of a span, with the counts of epochs by themselves."""
        progress = self.batch_progress
        progress.increment_processed()
        progress.increment_completed()
        self._batches_that_stepped += 1
        self._turn()
        progress.reset_on_run()
        self._start_call()

    def _count_begun(self) -> None:
        progress = self.batch_progress
        progress.is_last_batch = True
        progress.increment_ready()
        progress.increment_started()

    def _fetched_ahead(self, epochs: int) -> list[Any]:
        """Return the batches of the next epochs, the last one first; none where they may be random.

        Fetched one after the other they take a fifth of the time that they take between steps,
        which push the code and its data out of the processor's cache.
        """
        if self._ahead == 1:
            return []
        fetched, sampler = [], self._loader.sampler
        now = sampler.epoch
        for epoch in range(now + 1, now + 1 + min(self._ahead, epochs)):
            sampler.set_epoch(epoch)
            fetched.append(next(iter(self._loader)))
        sampler.set_epoch(now)
        return fetched[::-1]


class FitLoop(_FitLoop):
    """The epochs of a fit."""

    epoch_loop: EpochLoop
    epoch_progress: Any
    _sampler: Any

    def run(self) -> None:
        """Run the fit, with numbers below 1e-38 as zeros.

        Adam's moments of what has no gradient decay to such numbers, which move no weight, and with
        which a processor computes so slowly that the steps took 17 to 35% longer.
        """
        torch.set_flush_denormal(True)
        try:
            super().run()
        finally:
            torch.set_flush_denormal(False)

    def on_run_start(self) -> None:
        """Begin the fit; look up what there is to do around an epoch."""
        super().on_run_start()
        self._plain = _is_plain(self.trainer)
        if self._plain and self._combined_loader is not None:
            self._hooks = Hooks(self.trainer, "on_train_epoch_start", "on_train_epoch_end")
            [loader] = self._combined_loader.flattened
            self._sampler = getattr(loader, "sampler", None)
            self.epoch_loop.bind(loader, self._turn)
            self._spans = EpochsPerCall(self.trainer, loader, self.epoch_loop.validates)

    def on_iteration_done(self) -> None:
        """End an epoch: none that comes after it continues a stopped one."""
        super().on_iteration_done()
        self.epoch_loop.plain = self._plain

    def on_advance_start(self) -> None:
        """Begin an epoch."""
        if not self.epoch_loop.plain:
            super().on_advance_start()
            return
        self._sampler.set_epoch(self.epoch_progress.current.processed)
        self.epoch_progress.increment_ready()
        self._hooks("on_train_epoch_start")
        self.epoch_progress.increment_started()
        self.epoch_loop.span = self._spans.length()

    def _turn(self) -> None:
        """Go from one epoch of a span to the next."""
        progress = self.epoch_progress
        progress.increment_processed()
        progress.increment_completed()
        self._sampler.set_epoch(progress.current.processed)
        progress.increment_ready()
        progress.increment_started()

    def advance(self) -> None:
        """Run through an epoch."""
        if self.epoch_loop.plain and self._data_fetcher is not None:
            self.epoch_loop.run(self._data_fetcher)
        else:
            super().advance()

    def on_advance_end(self) -> None:
        """End an epoch."""
        if not self.epoch_loop.plain:
            super().on_advance_end()
            return
        connector, batches = self.trainer._logger_connector, self.epoch_loop
        connector.epoch_end_reached()
        self.epoch_progress.increment_processed()
        self._hooks("on_train_epoch_end")
        if was_logged(batches._results):
            connector.on_epoch_end()
            batches._batches_that_stepped -= 1  # the charts' axis: an epoch ends with its last step
            connector.update_train_epoch_metrics()
            batches._batches_that_stepped += 1
        self.epoch_progress.increment_completed()


def _is_plain(trainer: Any) -> bool:
    """Say whether an epoch is nothing but batches from one loader, on one device."""
    module, loaders = trainer.lightning_module, trainer.fit_loop._combined_loader.flattened
    return (
        not module.automatic_optimization
        and type(trainer.strategy) is SingleDeviceStrategy
        and isinstance(trainer.profiler, PassThroughProfiler)
        and len(loaders) == 1
        and hasattr(loaders[0], "batches")  # src/kindling/loader.py, or what can stand for it
        and not trainer.reload_dataloaders_every_n_epochs
        and not is_written(module, "on_train_batch_start", pl.LightningModule)  # it may say -1
    )
