"""The optimizer steps of a call as one compiled function: `compile=true`.

Forward, loss, backward, clipping and update of all steps become one graph, traced from the model's
`training_loss`. No Python runs between two steps, and on a GPU the whole is one CUDA graph.

Parameters and the optimizer's state are changed in place: a checkpoint, a validation or a callback
between two calls sees what eager steps leave, the `grad` of the last step included. Random numbers,
as dropout draws them, come from torch's generator; they follow from the seed, but are not those
that eager steps would draw.

Letters: K steps of a call, P values of a block of parameters, S tensors of state.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import signature
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from src.kindling.model import BaseModule
from src.kindling.speed.hooks import overrides
from src.kindling.speed.updates import UPDATES, ParamGroup, Update, empty_state

SHAPES = 2  # an epoch has two: of full batches, and with the smaller batch at its end
JOINED = 2**17  # parameters of a param group up to which it is updated as one vector
HOOKS = (  # hooks that look into a step
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "configure_gradient_clipping",
    "backward",
)
LIBRARIES = tuple(f"G['__import_{name}" for name in ("torch_", "torchmetrics", "lightning"))


class NotCompiledError(Exception):
    """These steps run eagerly."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} is not compiled: {why}")


class Loss(nn.Module):
    """A model's `training_loss` as a forward whose parameters can be exchanged."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Any) -> Tensor:
        """Return the loss of a batch."""
        loss: Tensor = self.module.training_loss(batch)
        return loss


@dataclass
class Block:
    """Parameters of one param group that are updated as one vector [P].

    Args:
        param_group: the optimizer's settings for them.
        names: their names in `Loss`.
        parameters: the parameters.
        update: the update rule.
        uninitialized: whether they have no optimizer state yet.
    """

    param_group: ParamGroup
    names: list[str]
    parameters: list[nn.Parameter]
    update: Update
    uninitialized: bool

    def states(self, optimizer: Optimizer) -> list[list[Tensor]]:
        """Return the S tensors of state, each as a list over the parameters."""
        return [
            [optimizer.state[p][name] for p in self.parameters] for name in self.update.state_names
        ]

    def step_counters(self, optimizer: Optimizer) -> list[Tensor]:
        """Return the optimizer's counts of steps, if it keeps them."""
        states = [optimizer.state.get(p, {}) for p in self.parameters]
        return [state["step"] for state in states if "step" in state]


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
        optimizer = self.trainer.optimizers[0]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if optimizer is not self.optimizer or len(parameters) != self._count:
            check(self.trainer)
            self.blocks = list(_blocks(self.module, optimizer, microbatches[0][0]))
            self._parameters = [block.parameters for block in self.blocks]
            self.optimizer, self._count, self._functions = optimizer, len(parameters), {}
        shapes = _shapes(microbatches)
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

        Data of many shapes would be compiled over and over: beyond the first they run eagerly.
        """
        if len(self._functions) >= SHAPES:
            return None
        many = "one step" if steps == 1 else f"{steps} steps"
        print(f"compiling {many} per call (once; cached on disk afterwards)", flush=True)
        try:
            compile_: Any = torch.compile  # whose options differ from version to version
            compiled: Callable[..., Tensor] = compile_(
                self._function(),
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

    def _function(self) -> Callable[..., Tensor]:
        """Return the function of all steps, ready to be traced."""
        trainer, loss = self.trainer, Loss(self.module)
        names = [block.names for block in self.blocks]
        updates = [block.update for block in self.blocks]
        shapes = [[p.shape for p in block.parameters] for block in self.blocks]
        counts = [len(b.update.scalars(b.param_group, 1, True)) for b in self.blocks]
        accumulate = trainer.accumulate_grad_batches
        clip_val, clip_algorithm = trainer.gradient_clip_val, trainer.gradient_clip_algorithm

        def loss_of(vectors: list[Tensor], batch: Any) -> Tensor:
            values: dict[str, Tensor] = {}
            for vector, block_names, block_shapes in zip(vectors, names, shapes, strict=True):
                values |= dict(zip(block_names, _unflatten(vector, block_shapes), strict=True))
            value: Tensor = functional_call(loss, values, (batch,), tie_weights=False) / accumulate
            return value

        grad = grad_and_value(loss_of)

        def steps(
            parameters: list[list[Tensor]],
            gradients: list[list[Tensor]],
            states: list[list[list[Tensor]]],
            scalars: Tensor,
            microbatches: list[list[Any]],
        ) -> Tensor:
            vectors = [_flatten(block) for block in parameters]
            flat_states = [[_flatten(tensors) for tensors in state] for state in states]
            losses: list[Tensor] = []
            for batches, row in zip(microbatches, scalars.unbind(), strict=True):
                gradient, value = grad(vectors, batches[0])
                losses.append(value)
                for batch in batches[1:]:
                    more, value = grad(vectors, batch)
                    gradient = [a + b for a, b in zip(gradient, more, strict=True)]
                    losses.append(value)
                gradient = _clipped(gradient, clip_val, clip_algorithm)
                parts = torch.split(row, counts)
                moved = [
                    update(p, g, state, part.unbind())
                    for update, p, g, state, part in zip(
                        updates, vectors, gradient, flat_states, parts, strict=True
                    )
                ]
                vectors = [p for p, _ in moved]
                flat_states = [list(state) for _, state in moved]
            for old, new in zip(parameters, vectors, strict=True):
                _write(old, new)
            for old, new in zip(gradients, gradient, strict=True):
                _write(old, new)
            for state, flat_state in zip(states, flat_states, strict=True):
                for old, new in zip(state, flat_state, strict=True):
                    _write(old, new)
            return torch.stack(losses)

        return steps


def _shapes(microbatches: list[list[Any]]) -> Any:
    """Return what a function is compiled for: the batches of each step, and all tensors' shapes."""
    batches = [batch for group in microbatches for batch in group]
    # Pairs of tensors, as most batches are, without torch's general and slow way through them.
    leaves = [leaf for batch in batches for leaf in batch] if all(map(_is_flat, batches)) else None
    leaves = tree_leaves(batches) if leaves is None else leaves
    sizes = [len(group) for group in microbatches]
    return (*sizes, *[leaf.shape for leaf in leaves], *[leaf.dtype for leaf in leaves])


def _is_flat(batch: Any) -> bool:
    return isinstance(batch, tuple | list) and all(isinstance(leaf, Tensor) for leaf in batch)


def _clipped(gradients: list[Tensor], clip_val: float | None, algorithm: str) -> list[Tensor]:
    """Return the gradients clipped as Lightning does."""
    if not clip_val:
        return gradients
    if algorithm == "value":
        return [g.clamp(-clip_val, clip_val) for g in gradients]
    norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
    share = (clip_val / (norm + 1e-6)).clamp(max=1.0)
    return [g * share for g in gradients]


def _flatten(tensors: list[Tensor]) -> Tensor:
    """Return tensors as one vector, [P]."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _unflatten(vector: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    """Return the tensors of a vector [P]."""
    parts = torch.split(vector, [shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _write(tensors: list[Tensor], vector: Tensor) -> None:
    """Change the tensors in place to what the vector [P] holds."""
    for tensor, part in zip(tensors, _unflatten(vector, [t.shape for t in tensors]), strict=True):
        tensor.copy_(part)


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


def check(trainer: Any) -> None:
    """Refuse what is known not to be compiled.

    Raises:
        NotCompiledError: the first thing found.
    """
    module, optimizer = trainer.lightning_module, trainer.optimizers[0]
    name = type(module).__name__
    if trainer.fast_dev_run:
        raise NotCompiledError("a fast development run", "it would take longer")
    if torch.is_anomaly_enabled():
        raise NotCompiledError("detect_anomaly", "it watches each operation")
    if overrides(module, "training_step", BaseModule):
        raise NotCompiledError(f"{name}.training_step", "only training_loss is compiled")
    if type(optimizer) not in UPDATES:
        raise NotCompiledError(type(optimizer).__name__, "its update is not written as a function")
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise NotCompiledError("a hook on the optimizer", "it sees each step")
    if any(c.interval == "step" and c.frequency != 1 for c in trainer.lr_scheduler_configs):
        raise NotCompiledError("a schedule", "its frequency is not 1")
    for part, base in (*((c, pl.Callback) for c in trainer.callbacks), (module, BaseModule)):
        if getattr(part, "accepts_compiled_steps", False):
            continue
        for hook in HOOKS:
            if hasattr(base, hook) and overrides(part, hook, base):
                raise NotCompiledError(f"{type(part).__name__}.{hook}", "it sees each step")


def _blocks(module: Any, optimizer: Optimizer, batch: Any) -> Iterator[Block]:
    """Yield the optimizer's parameters that have a gradient, in blocks that are updated alike."""
    names = {p: name for name, p in Loss(module).named_parameters()}
    gradients = _gradients(module, batch)
    for group in optimizer.param_groups:
        update = UPDATES[type(optimizer)](group)
        moving = [p for p in group["params"] if gradients.get(names.get(p, "")) is not None]
        joined = sum(p.numel() for p in moving) <= JOINED
        parts: dict[Any, list[nn.Parameter]] = {}
        for p in moving:
            _check_parameter(p, gradients[names[p]], names[p])
            state = optimizer.state.get(p, {})
            uninitialized = any(state.get(name) is None for name in update.state_names)
            alike = p.dtype, uninitialized, float(state.get("step", 0)), "" if joined else names[p]
            parts.setdefault(alike, []).append(p)
        for (_, uninitialized, *_), parameters in parts.items():
            yield Block(group, [names[p] for p in parameters], parameters, update, uninitialized)


def _gradients(module: Any, batch: Any) -> dict[str, Tensor | None]:
    """Return the gradient of each parameter, None for one that the loss does not use."""
    loss = Loss(module)
    copies = {
        name: p.detach().clone().requires_grad_(p.requires_grad)
        for name, p in loss.named_parameters()
    }
    buffers = {name: buffer.clone() for name, buffer in loss.named_buffers()}
    wanted = {name: p for name, p in copies.items() if p.requires_grad}
    with torch.random.fork_rng(), torch.enable_grad():
        value = functional_call(loss, {**copies, **buffers}, (batch,))
        gradients = torch.autograd.grad(value, list(wanted.values()), allow_unused=True)
    return dict(zip(wanted, gradients, strict=True))


def _check_parameter(p: nn.Parameter, gradient: Tensor | None, name: str) -> None:
    """Refuse a parameter that cannot be compiled.

    Raises:
        NotCompiledError: it is complex, has a sparse gradient, or a hook.
    """
    if p.is_complex():
        raise NotCompiledError(name, "it is complex")
    if gradient is not None and gradient.layout != torch.strided:
        raise NotCompiledError(name, "its gradient is sparse")
    # torch has no public name for either.
    if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None):
        raise NotCompiledError(name, "a hook sees its gradient")


def _reason(error: Exception) -> str:
    """Return the most telling line of a compiler's long message."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not line.endswith("raised:")), repr(error))
