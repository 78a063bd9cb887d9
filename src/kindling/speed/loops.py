"""Lightning's loop over the batches of an epoch, with several optimizer steps per call.

Around each batch Lightning spends a fixed time on callbacks, results and counters; for a small
network that is several times the step itself. Here a call trains on several batches, sometimes of
several epochs (call_plan.py), and calls the callbacks' batch hooks once. Weights, counters, results
of `self.log` and random numbers are those of Lightning's own loop at each step.

Everything else is Lightning's: the loop over epochs, validations, and each fit in which honored.py
finds an obstacle.
"""

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer import call

from src.kindling.process import signals
from src.kindling.process.seeding import Seeding
from src.kindling.speed import honored
from src.kindling.speed.blocks import NotCompiledError, check
from src.kindling.speed.call_plan import CallPlan
from src.kindling.speed.compiled import CompiledSteps
from src.kindling.speed.hooks import preparations
from src.kindling.speed.steps import CallOutputs, EagerSteps


class EpochLoop(_TrainingEpochLoop):
    """The batches of one epoch.

    Args:
        trainer: the Trainer.
        own: the loop of Lightning's that this one replaces.
        steps: K, the most optimizer steps per call.
        compiles: whether the steps of a call become one compiled function where possible.
    """

    batch: Any = None  # the one that is trained on

    def __init__(self, trainer: Any, own: _TrainingEpochLoop, steps: int, compiles: bool) -> None:
        super().__init__(trainer, own.min_steps, own.max_steps)
        self.val_loop = own.val_loop
        self.steps, self.compiles = steps, compiles
        self._plan: CallPlan | None = None
        self._eager: Any = None
        self._compiled: Any = None
        self._looked = False

    # A fit ------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Look up, once per fit, whether calls of several steps are possible, and for whom."""
        self._looked, self._first = True, True
        trainer: Any = self.trainer
        if why := honored.obstacle(trainer):
            self._say(f"{why}: one step per call, the same weights")
            return
        self._plan, self._eager = CallPlan(trainer, self.steps), EagerSteps(trainer)
        self._compiled = self._compiler() if self.compiles else None
        self._prepare = preparations(trainer)
        [self._loader] = trainer.fit_loop._combined_loader.flattened
        self._randomness = next(
            (c.randomness for c in trainer.callbacks if isinstance(c, Seeding)), None
        )
        self._waiting: deque[Any] = deque()  # fetched, and not trained on

    def _compiler(self) -> CompiledSteps | None:
        try:
            check(self.trainer)
        except NotCompiledError as obstacle:
            self._say(f"{obstacle}; these steps run eagerly")
            return None
        return CompiledSteps(self.trainer, self.steps)

    def _say(self, line: str) -> None:
        if self.trainer.is_global_zero:
            named = "compile=true" if self.compiles else f"steps_per_execution={self.steps}"
            print(f"warning: {named}: {line}", file=sys.stderr)

    def teardown(self) -> None:
        """End the fit: the next one may be of other parts."""
        self._plan = self._eager = self._compiled = self._loader = self.batch = None
        self._looked, self._prepare = False, []
        super().teardown()

    @property
    def global_step(self) -> int:
        """Optimizer steps so far; Lightning's own property takes 3 us per step."""
        if self._plan is None:
            return super().global_step
        return int(self._eager.progress.step.total.completed)

    # An epoch ---------------------------------------------------------------------------------

    def run(self, data_fetcher: _DataFetcher) -> None:
        """Train on each batch of the epoch, and validate when it is time."""
        if not self._looked:
            self._look()
        if self._plan is None:
            super().run(data_fetcher)
            return
        self.reset()
        self._last = int(self.trainer.num_training_batches) - 1
        if self._first:  # Lightning has begun to iterate over its batches
            self.on_run_start(data_fetcher)
        self._batches = _rest(data_fetcher) if self._first else iter(self._loader)
        self._first = False
        while not self.done:
            try:
                if self.restarting and self._should_check_val_fx(data_fetcher):
                    self.advance(data_fetcher)  # a run that was stopped around a validation
                else:
                    self.val_loop.restarting = False
                    self._call(self._plan, data_fetcher)
                self.on_advance_end(data_fetcher)
            except StopIteration:
                break
            finally:
                self.on_iteration_done()

    def _call(self, plan: CallPlan, data_fetcher: _DataFetcher) -> None:
        """Train on the batches of one call, with the callbacks' batch hooks around them."""
        self._eager.refresh()
        outputs = CallOutputs({}, [], [], [])
        last, epochs = self.global_step + plan.steps(), plan.epochs()
        self._seeded, self._open = True, False
        while True:
            index = self.batch_progress.current.ready
            self._train_until(plan.end(index, last - self.global_step), outputs)
            epochs -= 1
            if epochs < 1 or self.global_step >= last or not self._continues(plan, data_fetcher):
                break
            self._turn_to_next_epoch()
        self._hook("on_train_batch_end", outputs, self.batch, self.batch_progress.current.ready - 1)
        self._end_batch()

    def _continues(self, plan: CallPlan, data_fetcher: _DataFetcher) -> bool:
        """Say whether the call may continue in the next epoch."""
        return self.batch_progress.is_last_batch and not (
            self.trainer.should_stop
            or signals.pending_signal()
            or self._results  # `self.log` was called: it wants the mean of each epoch
            or (plan.validates and self._should_check_val_fx(data_fetcher))
        )

    def _train_until(self, end: int, outputs: CallOutputs) -> None:
        """Train on the next batches of this epoch, up to the number `end` of its batches."""
        while (index := self.batch_progress.current.ready) < end:
            if self._open:
                self._end_batch()
                self._count_step()
            count = self._compiled.count(index, end) if self._compiled else 0
            batches = self._fetched(max(count, 1))
            self._begin_batch(batches[0], index, first=not outputs.batches)
            self._train(batches, index, count > 0, outputs)
            if self.trainer.should_stop:
                return

    def _fetched(self, count: int) -> list[Any]:
        """Return the next batches, as the module takes them."""
        trainer, progress = self.trainer, self.batch_progress
        accumulate = trainer.accumulate_grad_batches
        while (waiting := len(self._waiting)) < count:
            if self._randomness and not self._seeded:
                self._randomness.seed_fetch(self.global_step + waiting // accumulate)
            self._seeded = False
            batch = next(self._batches)
            progress.is_last_batch = progress.current.ready + waiting == self._last
            for prepare in self._prepare:
                batch = prepare(batch)
            self._waiting.append(batch)
        return [self._waiting.popleft() for _ in range(count)]

    def _begin_batch(self, batch: Any, index: int, first: bool) -> None:
        """Count a batch, and call what comes before the training step."""
        progress, trainer = self.batch_progress, self.trainer
        progress.is_last_batch = index == self._last
        progress.increment_ready()
        self.batch = batch
        self._attach(batch)
        if first:
            self._hook("on_train_batch_start", batch, index)
        elif self._randomness:
            self._randomness.seed_batch(self.global_step, index % trainer.accumulate_grad_batches)
        progress.increment_started()

    def _attach(self, batch: Any) -> None:
        """Let `self.log` know the batch: `_LoggerConnector.on_batch_start`, looked up directly."""
        connector, results = self.trainer._logger_connector, self._results
        connector._first_loop_iter = connector._first_loop_iter is None
        results.batch, results.batch_size, results.dataloader_idx = batch, None, None

    def _train(self, batches: list[Any], index: int, compiled: bool, outputs: CallOutputs) -> None:
        """Train on one batch, or on several by a compiled function."""
        step, accumulate = self.global_step, self.trainer.accumulate_grad_batches
        losses = self._taken_compiled(batches) if compiled else None
        if losses is None:
            self._waiting.extendleft(reversed(batches[1:]))
            batches = batches[:1]
            self._stepped = index == self._last or (index + 1) % accumulate == 0
            result = self._eager.take(batches[0], index, self._stepped)
            losses = [result["loss"]] if result else []
            outputs.clear()
            outputs.update(result)
        else:
            self._stepped = True
            self._count_batches(len(batches) - 1, index)
            outputs["loss"] = losses[-1]
        outputs.losses += losses
        outputs.steps += [step + i // accumulate for i in range(len(losses))]
        outputs.batches += batches
        self.batch, self._open = batches[-1], True
        self.batch_progress.increment_processed()
        if self.batch_progress.is_last_batch:
            self.update_lr_schedulers("epoch", update_plateau_schedulers=False)

    def _taken_compiled(self, batches: list[Any]) -> list[Any] | None:
        """Train on batches by a compiled function; return their losses, None if it cannot."""
        try:
            losses: list[Any] | None = self._compiled.take(batches)
            return losses
        except NotCompiledError as obstacle:
            self._say(f"{obstacle}; these steps run eagerly")
            self._compiled = None
            return None

    def _count_batches(self, more: int, index: int) -> None:
        """Count the batches of a compiled function after its first."""
        progress, trainer = self.batch_progress, self.trainer
        is_last = index + more == self._last
        progress.increment_by(more, is_last_batch=is_last)
        self._batches_that_stepped += -(-(more + 1) // trainer.accumulate_grad_batches) - 1

    def _end_batch(self) -> None:
        """Finish a batch after its hooks: what Lightning does with the values of `self.log`."""
        connector, logged = self.trainer._logger_connector, bool(self._results)
        if logged:
            connector.on_batch_end()
        else:
            self._results.batch = None
        self.batch_progress.increment_completed()
        if logged:
            connector.update_train_step_metrics()
        self._open = False

    def _count_step(self) -> None:
        """Count on the axis of the charts, as `on_advance_end` does at the end of a call."""
        self._batches_that_stepped += self._stepped

    def _turn_to_next_epoch(self) -> None:
        """End an epoch and begin the next one, where nobody has work in between."""
        self._end_batch()
        self._count_step()
        epochs: Any = self.trainer.fit_loop.epoch_progress
        self.trainer._logger_connector.epoch_end_reached()
        epochs.increment_processed()
        epochs.increment_completed()
        self.on_iteration_done()
        _set_sampler_epoch(self._loader, epochs.current.processed)
        epochs.increment_ready()
        epochs.increment_started()
        self.reset()
        if self._randomness:
            self._randomness.seed_fetch(self.global_step)
        self._seeded = True
        self._batches = iter(self._loader)

    def _hook(self, name: str, *arguments: Any) -> None:
        call._call_callback_hooks(self.trainer, name, *arguments)
        call._call_lightning_module_hook(self.trainer, name, *arguments)


def _rest(fetcher: Any) -> Iterator[Any]:
    """Yield the batches that a fetcher has not given yet; `iter` would begin again."""
    with suppress(StopIteration):
        while True:
            yield next(fetcher)[0]
