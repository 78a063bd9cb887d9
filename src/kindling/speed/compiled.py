"""The optimizer steps of a call as one compiled function: `compile=true`.

Forward, loss, backward, clipping and update of all steps become one graph, traced from the model's
`training_loss`. No Python runs between two steps, and on a GPU the whole is one CUDA graph.

Parameters and the optimizer's state are changed in place: a checkpoint, a validation or a callback
between two calls sees what eager steps leave, the `grad` of the last step included. Random numbers,
as dropout draws them, come from torch's generator; they follow from the seed, but are not those
that eager steps would draw.

K is the steps of a call.
"""

import warnings
from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from src.kindling.speed.blocks import Block, Loss, NotCompiledError, blocks_of, check
from src.kindling.speed.traced import clipped, function, loss_of_vectors
from src.kindling.speed.updates import empty_state

SHAPES = 2  # an epoch has two: of full batches, and with the smaller batch at its end
LIBRARIES = tuple(f"G['__import_{name}" for name in ("torch_", "torchmetrics", "lightning"))


class CompiledSteps:
    """Optimizer steps by a function that is compiled once for each shape of the batches.

    Args:
        trainer: the Trainer in its fit.
        steps: K, the most optimizer steps per call.
    """

    def __init__(self, trainer: Any, steps: int) -> None:
        self.trainer, self.module, self.steps = trainer, trainer.lightning_module, steps
        self.optimizer: Any = None  # the one that the blocks are of
        self._count = 0  # of its parameters
        self.blocks: list[Block] = []
        self._parameters: list[list[nn.Parameter]] = []
        self._last_scalars: tuple[list[list[float]], Tensor] = [], torch.empty(0)
        self._functions: dict[Any, Callable[..., Tensor] | None] = {}  # None: left to eager steps

    def count(self, index: int, end: int) -> int:
        """Return how many of the next batches one compiled function takes; 0 for none.

        It is always the same number, or a whole epoch, so that few functions are compiled. A point
        of the history, every `log_every_n_steps`, is a single step.

        Args:
            index: batches of this epoch that have been trained on.
            end: the number of its batches at which the call ends or leaves the epoch.
        """
        trainer, accumulate = self.trainer, self.trainer.accumulate_grad_batches
        most = min(self.steps, max(trainer.log_every_n_steps - 1, 1)) * accumulate
        if index % accumulate:
            return 0
        if index == 0 and end == trainer.num_training_batches <= most:
            return end
        return most if end - index >= most else 0

    def take(self, batches: list[Any]) -> list[Tensor] | None:
        """Train on batches of one epoch; count the steps, and advance the schedules.

        Returns:
            The loss of each batch as Lightning has it, divided by the batches of its step; None if
            batches of this shape are left to eager steps.

        Raises:
            NotCompiledError: these steps cannot be compiled; nothing has changed.
        """
        size = self.trainer.accumulate_grad_batches
        microbatches = [batches[start : start + size] for start in range(0, len(batches), size)]
        with torch.no_grad():  # the gradient is a function's value here, not autograd's
            losses = self._take(microbatches)
        return None if losses is None else list(losses.unbind())

    def _take(self, microbatches: list[list[Any]]) -> Tensor | None:
        optimizer, shapes = self.trainer.optimizers[0], _shapes(microbatches)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if optimizer is not self.optimizer or len(parameters) != self._count:
            check(self.trainer)
            self.blocks = list(blocks_of(self.module, optimizer, microbatches[0][0]))
            self._parameters = [block.parameters for block in self.blocks]
            self.optimizer, self._count, self._functions = optimizer, len(parameters), {}
        if shapes in self._functions:
            function = self._functions[shapes]
            return None if function is None else self._call(function, microbatches)
        function = self._functions[shapes] = self._announced(len(microbatches))
        if function is None:
            return None
        with warnings.catch_warnings():  # the compiler's own, of what it is about to change
            warnings.simplefilter("ignore")
            return self._call(function, microbatches)

    def _announced(self, steps: int) -> Callable[..., Tensor] | None:
        """Return the function for batches of a new shape, and say that it will be compiled.

        Each new shape is another compilation: beyond the first few, batches run eagerly.
        """
        if len(self._functions) >= SHAPES:
            return None
        many = "one step" if steps == 1 else f"{steps} steps"
        print(f"compiling {many} per call (once; cached on disk afterwards)", flush=True)
        try:
            compile_: Any = torch.compile  # whose options differ from version to version
            compiled: Callable[..., Tensor] = compile_(
                self._traced(),
                fullgraph=True,
                dynamic=False,
                options=_options(self.module.device),
                **_isolated(),
            )
        except Exception as error:  # this version of torch has no such option
            raise NotCompiledError("the step", _reason(error)) from error
        return compiled

    def _call(self, function: Callable[..., Tensor], microbatches: list[list[Any]]) -> Tensor:
        """Take the steps by a function; keep the optimizer's and Lightning's counts."""
        optimizer, blocks, cuda = self.optimizer, self.blocks, self.module.device.type == "cuda"
        schedules = [c.scheduler for c in self._step_schedules]
        before = [vars(schedule).copy() for schedule in schedules]
        settings = [group.copy() for group in optimizer.param_groups]
        new = [(block, p) for block in blocks if block.uninitialized for p in block.parameters]
        for block, p in new:
            optimizer.state[p].update(empty_state(optimizer, block.param_group, p))
        try:
            states = [block.states(optimizer) for block in blocks]
            gradients = [[_gradient(p) for p in block.parameters] for block in blocks]
            if cuda:
                _begin_graph(self._parameters, gradients, states)
            scalars = self._scalars(len(microbatches))
            losses = function(self._parameters, gradients, states, scalars, microbatches)
        except Exception as error:  # all is as it was, and eager steps can be taken
            for _, p in new:
                optimizer.state.pop(p)
            for schedule, attributes in zip(schedules, before, strict=True):
                vars(schedule).update(attributes)
            for group, values in zip(optimizer.param_groups, settings, strict=True):
                group.update(values)
            raise NotCompiledError("the step", _reason(error)) from error
        for block in blocks:
            block.uninitialized = False
            if counters := block.step_counters(optimizer):
                torch._foreach_add_(counters, len(microbatches))
        self._count_steps(len(microbatches))
        return losses.clone() if cuda else losses  # the next replay overwrites a graph's output

    @property
    def _step_schedules(self) -> list[Any]:
        configs = self.trainer.lr_scheduler_configs
        return [c for c in configs if c.interval == "step" and not c.reduce_on_plateau]

    def _count_steps(self, steps: int) -> None:
        """Count the steps as Lightning does."""
        loop = self.trainer.fit_loop.epoch_loop
        progress = loop.automatic_optimization.optim_progress.optimizer
        progress.step.increment_by(steps)
        progress.zero_grad.increment_by(steps)
        for _ in self._step_schedules:
            loop.scheduler_progress.increment_by(steps)

    def _scalars(self, steps: int) -> Tensor:
        """Return the scalars of all blocks' updates, [K, scalars], and advance the schedules."""
        counts = [int(next(iter(b.step_counters(self.optimizer)), 0)) for b in self.blocks]
        self.optimizer._opt_called = True  # else a schedule warns that its step came first
        rows: list[list[float]] = []
        for step in range(1, steps + 1):
            row: list[float] = []
            for block, count in zip(self.blocks, counts, strict=True):
                first = block.uninitialized and step == 1
                row += block.update.scalars(block.param_group, count + step, first)
            rows.append(row)
            for config in self._step_schedules:
                config.scheduler.step()
        before, scalars = self._last_scalars
        if rows == before:  # of a constant schedule
            return scalars
        double = any(p.dtype == torch.float64 for b in self.blocks for p in b.parameters)
        dtype = torch.float64 if double else torch.float32
        scalars = torch.tensor(rows, dtype=dtype).to(self.module.device, non_blocking=True)
        self._last_scalars = rows, scalars
        return scalars

    def _traced(self) -> Callable[..., Tensor]:
        """Return the function of all steps, ready to be traced."""
        trainer, blocks = self.trainer, self.blocks
        loss = loss_of_vectors(Loss(self.module), blocks, trainer.accumulate_grad_batches)
        value, algorithm = trainer.gradient_clip_val, trainer.gradient_clip_algorithm
        return function(blocks, loss, lambda gradients: clipped(gradients, value, algorithm))


def _shapes(microbatches: list[list[Any]]) -> Any:
    """Return what a function is compiled for: the batches of each step, and all tensors' shapes.

    Raises:
        NotCompiledError: a batch holds something else than tensors.
    """
    batches = [batch for group in microbatches for batch in group]
    # Pairs of tensors, as most batches are, without torch's general and slow way through them.
    leaves = [leaf for batch in batches for leaf in batch] if all(map(_is_flat, batches)) else None
    if leaves is None:
        leaves = tree_leaves(batches)
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                raise NotCompiledError(f"a batch with a {type(leaf).__name__}", "only tensors are")
    sizes = [len(group) for group in microbatches]
    return (*sizes, *[leaf.shape for leaf in leaves], *[leaf.dtype for leaf in leaves])


def _is_flat(batch: Any) -> bool:
    return isinstance(batch, tuple | list) and all(isinstance(leaf, Tensor) for leaf in batch)


def _gradient(p: nn.Parameter) -> Tensor:
    """Return where the last step's gradient of a parameter is written."""
    if p.grad is None:
        p.grad = torch.zeros_like(p)
    return p.grad


def _begin_graph(*tensors: Any) -> None:
    """Say that a CUDA graph may be replayed, and change these tensors where they are."""
    for tensor in tree_leaves(tensors):
        torch._dynamo.mark_static_address(tensor, guard=False)
    mark: Any = torch.compiler.cudagraph_mark_step_begin
    mark()


def _options(device: torch.device) -> dict[str, Any]:
    """Return how to compile for a device: without Python between kernels, in either way."""
    if device.type == "cuda":
        return {"triton.cudagraphs": True, "guard_filter_fn": _rechecked}
    return {
        "cpp_wrapper": True,
        "guard_filter_fn": _rechecked,
        # A product and its sum are one instruction and one rounding, as in a library's products.
        "cpp.enable_floating_point_contract_flag": "fast",
    }


def _isolated() -> dict[str, bool]:
    """Return the option by which torch's limit counts this run's compilations, not a whole sweep's.

    torch 2.11 lacks it: a sweep in one process compiles eight models and runs the others eagerly.
    """
    return dict.fromkeys({"isolate_recompiles"} & signature(torch.compile).parameters.keys(), True)


def _rechecked(guards: Any) -> list[bool]:
    """Select the guards that are re-checked before each call.

    Those of the model are: it is traced again when they change. Those of what torch and Lightning
    define in their files are not: the check would take as long as a step, and nothing changes them.
    """
    return [not guard.name.startswith(LIBRARIES) for guard in guards]


def _reason(error: Exception) -> str:
    """Return the most telling line of a compiler's long message."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not line.endswith("raised:")), repr(error))
