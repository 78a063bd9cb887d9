"""The optimizer steps of an execution as one compiled function: `compile=true`.

Forward, loss, backward, clipping and update of all K steps become one graph, traced from the same
`training_loss` that is called without it. Nothing between two steps goes through Python, and on a
GPU the whole is one CUDA graph (written with care, and untried: no GPU was at hand).

Parameters and the optimizer's state stay where they are and are changed in place: whoever looks
between two executions (a checkpoint, a validation, a callback) sees what eager steps leave, the
`grad` of the last step among it. Random numbers, as dropout draws them, come from torch's generator
and are those of the same seed, but not the ones that eager steps would draw.

Letters: K steps of an execution, P values of a block of parameters, S tensors of state.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from src.kindling.speed.steps import StepBackend, count_steps, start_batch, step_schedulers
from src.kindling.speed.updates import UPDATES, Group, Update, empty_state

SHAPES = 2  # an epoch has two: of K full batches, and of what is left at its end
JOINED = 2**17  # values of a group up to which it is updated as one vector
HOOKS = (  # what callbacks and models may define to look into a step
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "optimizer_step",
    "optimizer_zero_grad",
    "configure_gradient_clipping",
    "lr_scheduler_step",
    "backward",
)
LIBRARIES = tuple(f"G['__import_{name}" for name in ("torch_", "torchmetrics", "lightning"))
# Whose definitions of them are taken into account.
OURS = ("lightning.", "src.kindling.model", "src.kindling.callbacks.non_finite")


class NotCompiledError(Exception):
    """These steps run eagerly."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} is not compiled: {why}; these steps run eagerly")


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
    """Parameters of one group of the optimizer that are updated as one vector [P].

    Args:
        group: the optimizer's settings for them.
        names: what they are called in `Loss`.
        parameters: themselves.
        update: how they move.
        fresh: whether they have not been updated yet.
    """

    group: Group
    names: list[str]
    parameters: list[nn.Parameter]
    update: Update
    fresh: bool

    def states(self, optimizer: Optimizer) -> list[list[Tensor]]:
        """Return the S tensors of state, each as a list over the parameters."""
        return [[optimizer.state[p][name] for p in self.parameters] for name in self.update.names]

    def clocks(self, optimizer: Optimizer) -> list[Tensor]:
        """Return the counts of steps, where the optimizer counts them."""
        states = [optimizer.state.get(p, {}) for p in self.parameters]
        return [state["step"] for state in states if "step" in state]


class CompiledSteps:
    """Steps by a function that is compiled once for each shape of the batches; a `Stepper`.

    Args:
        module: the BaseModule, attached to its Trainer.
        otherwise: takes the steps that cannot be compiled.
    """

    def __init__(self, module: Any, otherwise: StepBackend) -> None:
        self.module, self.trainer, self.otherwise = module, module.trainer, otherwise
        self.optimizer: Optimizer = module.trainer.optimizers[0]
        self.schedulers = step_schedulers(module)
        self.blocks: list[Block] = []
        self._parameters: list[list[nn.Parameter]] = []
        self._last_numbers: tuple[list[list[float]], Tensor] = [], torch.empty(0)
        self.eager = False  # for good, once something could not be compiled
        self._functions: dict[Any, Callable[..., Tensor] | None] = {}  # None: left to eager steps

    def take(self, groups: list[list[Any]]) -> Tensor:
        """Take one step for each group; see `Stepper`."""
        if not self.eager:
            try:
                with torch.no_grad():  # the gradient is a function's value here, not autograd's
                    losses = self._take(groups)
                return self.otherwise.take(groups) if losses is None else losses
            except NotCompiledError as obstacle:
                _warn(obstacle)
                self.eager = True
        return self.otherwise.take(groups)

    def _take(self, groups: list[list[Any]]) -> Tensor | None:
        """Take the steps; return None if batches of this shape are left to eager steps."""
        if not self.blocks:
            _check(self.module)
            self.blocks = list(_blocks(self.module, self.optimizer, groups[0][0]))
            self._parameters = [block.parameters for block in self.blocks]
        shapes = _shapes(groups)
        if shapes in self._functions:
            function = self._functions[shapes]
            return None if function is None else self._call(function, groups)
        function = self._functions[shapes] = self._announced(len(groups))
        if function is None:
            return None
        with warnings.catch_warnings():  # the compiler's own, of what it is about to change
            warnings.simplefilter("ignore")
            return self._call(function, groups)

    def _announced(self, steps: int) -> Callable[..., Tensor] | None:
        """Return the function for batches of a new shape, and say that it will be compiled.

        Data of many shapes would be compiled over and over: beyond the first they run eagerly.
        """
        if len(self._functions) >= SHAPES:
            if len(self._functions) == SHAPES:
                _warn(NotCompiledError("a further shape of batches", f"{SHAPES} shapes are"))
            return None
        many = "one step" if steps == 1 else f"{steps} steps"
        print(f"compiling {many} an execution (once; cached on disk afterwards)", flush=True)
        options: dict[str, Any] = {
            "fullgraph": True,
            "dynamic": False,
            "isolate_recompiles": True,  # its limit counts this run's alone, not a whole sweep's
            "options": _options(self.module.device),
        }
        compiled: Callable[..., Tensor] = torch.compile(self._function(), **options)
        return compiled

    def _call(self, function: Callable[..., Tensor], groups: list[list[Any]]) -> Tensor:
        """Take the steps by a function; keep the optimizer's and Lightning's counts."""
        optimizer, blocks, cuda = self.optimizer, self.blocks, self.module.device.type == "cuda"
        before = [vars(scheduler).copy() for scheduler in self.schedulers]
        settings = [group.copy() for group in optimizer.param_groups]
        fresh = [(block, p) for block in blocks if block.fresh for p in block.parameters]
        for block, p in fresh:
            optimizer.state[p].update(empty_state(optimizer, block.group, p))
        try:
            states = [block.states(optimizer) for block in blocks]
            gradients = [[_gradient(p) for p in block.parameters] for block in blocks]
            if cuda:
                _begin_graph(self._parameters, gradients, states)
            numbers = self._numbers(len(groups))
            start_batch(self.module, 0)  # the random numbers of all these steps
            losses = function(self._parameters, gradients, states, numbers, groups)
        except Exception as error:  # all is as it was, and eager steps can be taken
            for _, p in fresh:
                optimizer.state.pop(p)
            for scheduler, attributes in zip(self.schedulers, before, strict=True):
                vars(scheduler).update(attributes)
            for group, values in zip(optimizer.param_groups, settings, strict=True):
                group.update(values)
            raise NotCompiledError("the step", _reason(error)) from error
        for block in blocks:
            block.fresh = False
            if clocks := block.clocks(optimizer):
                torch._foreach_add_(clocks, len(groups))
        count_steps(self.trainer, len(groups))
        return losses.clone() if cuda else losses  # the next replay overwrites a graph's output

    def _numbers(self, steps: int) -> Tensor:
        """Return the numbers of all blocks' updates, [K, numbers], and advance the schedules."""
        counts = [int(next(iter(block.clocks(self.optimizer)), 0)) for block in self.blocks]
        self.optimizer._opt_called = True  # type: ignore[attr-defined] # else a schedule warns
        rows: list[list[float]] = []
        for step in range(1, steps + 1):
            row: list[float] = []
            for block, count in zip(self.blocks, counts, strict=True):
                row += block.update.numbers(block.group, count + step, block.fresh and step == 1)
            rows.append(row)
            for scheduler in self.schedulers:
                scheduler.step()
        before, numbers = self._last_numbers
        if rows == before:  # of a constant schedule
            return numbers
        double = any(p.dtype == torch.float64 for b in self.blocks for p in b.parameters)
        dtype = torch.float64 if double else torch.float32
        numbers = torch.tensor(rows, dtype=dtype).to(self.module.device, non_blocking=True)
        self._last_numbers = rows, numbers
        return numbers

    def _function(self) -> Callable[..., Tensor]:
        """Return the function of all steps, ready to be traced."""
        loss, execution = Loss(self.module), self.module.execution
        names = [block.names for block in self.blocks]
        updates = [block.update for block in self.blocks]
        shapes = [[p.shape for p in block.parameters] for block in self.blocks]
        counts = [len(block.update.numbers(block.group, 1, True)) for block in self.blocks]
        accumulate = execution.accumulate
        clip_val, clip_algorithm = execution.clip_val, execution.clip_algorithm

        def loss_of(vectors: list[Tensor], batch: Any) -> Tensor:
            values: dict[str, Tensor] = {}
            for vector, block_names, block_shapes in zip(vectors, names, shapes, strict=True):
                values |= dict(zip(block_names, _apart(vector, block_shapes), strict=True))
            value: Tensor = functional_call(loss, values, (batch,), tie_weights=False) / accumulate
            return value

        slope = grad_and_value(loss_of)

        def steps(
            parameters: list[list[Tensor]],
            gradients: list[list[Tensor]],
            states: list[list[list[Tensor]]],
            numbers: Tensor,
            groups: list[list[Any]],
        ) -> Tensor:
            vectors = [_joined(block) for block in parameters]
            memories = [[_joined(tensors) for tensors in state] for state in states]
            losses: list[Tensor] = []
            for group, row in zip(groups, numbers.unbind(), strict=True):
                g, total = slope(vectors, group[0])
                for batch in group[1:]:
                    more, value = slope(vectors, batch)
                    g = [a + b for a, b in zip(g, more, strict=True)]
                    total = total + value
                losses.append(total * (accumulate / len(group)))
                g = _clipped(g, clip_val, clip_algorithm)
                each = zip(updates, vectors, g, memories, torch.split(row, counts), strict=True)
                moved = [update(p, d, memory, part.unbind()) for update, p, d, memory, part in each]
                vectors = [p for p, _ in moved]
                memories = [list(memory) for _, memory in moved]
            for old, new in zip(parameters, vectors, strict=True):
                _write(old, new)
            for old, new in zip(gradients, g, strict=True):
                _write(old, new)
            for state, memory in zip(states, memories, strict=True):
                for old, new in zip(state, memory, strict=True):
                    _write(old, new)
            return torch.stack(losses)

        return steps


def _shapes(groups: list[list[Any]]) -> Any:
    """Return what a function is compiled for: the sizes of the groups, and all tensors' shapes."""
    batches = [batch for group in groups for batch in group]
    # Pairs of tensors, as most batches are, without torch's general and slow way through them.
    leaves = [leaf for batch in batches for leaf in batch] if all(map(_is_flat, batches)) else None
    leaves = tree_leaves(batches) if leaves is None else leaves
    sizes = [len(group) for group in groups]
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


def _warn(obstacle: NotCompiledError) -> None:
    print(f"warning: compile=true: {obstacle}", file=sys.stderr)


def _joined(tensors: list[Tensor]) -> Tensor:
    """Return tensors as one vector, [P]."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _apart(vector: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    """Return the tensors of a vector [P]."""
    parts = torch.split(vector, [shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _write(tensors: list[Tensor], vector: Tensor) -> None:
    """Change the tensors in place to what the vector [P] holds."""
    for tensor, part in zip(tensors, _apart(vector, [t.shape for t in tensors]), strict=True):
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
        return {"triton.cudagraphs": True, "guard_filter_fn": _watched}
    from src.kindling.speed.products import ThinProducts  # with it comes the compiler: a second

    return {
        "cpp_wrapper": True,
        "guard_filter_fn": _watched,
        "post_grad_custom_pre_pass": ThinProducts(),
        # A product and its sum are one instruction and one rounding, as in a library's products.
        "cpp.enable_floating_point_contract_flag": "fast",
    }


def _watched(guards: Any) -> list[bool]:
    """Say which of the values that a trace relied on are looked at again before each call.

    The model's own are: a trace is made anew when they change. What torch and Lightning define in
    their files is not: it would take as long as a step, and nothing changes it in a run.
    """
    return [not guard.name.startswith(LIBRARIES) for guard in guards]


def _check(module: Any) -> None:
    """Look for what is known not to be compiled.

    Raises:
        NotCompiledError: there is something.
    """
    trainer, optimizer = module.trainer, module.trainer.optimizers[0]
    if trainer.fast_dev_run:
        raise NotCompiledError("a fast development run", "it would take longer")
    if not isinstance(trainer.strategy, SingleDeviceStrategy):
        raise NotCompiledError("a step of several processes", "they exchange their gradients")
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        raise NotCompiledError("16-mixed", "it scales each loss by what came before")
    if torch.is_anomaly_enabled():
        raise NotCompiledError("detect_anomaly", "it watches each operation")
    if type(optimizer) not in UPDATES:
        raise NotCompiledError(type(optimizer).__name__, "its update is not written as a function")
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise NotCompiledError("a hook on the optimizer", "it wants to see each step")
    for watcher in (module, *trainer.callbacks):
        if getattr(watcher, "wants_each_step", False):
            raise NotCompiledError(f"{type(watcher).__name__} with skip", "it may leave a step out")
        for hook in HOOKS:
            where = getattr(getattr(type(watcher), hook, None), "__module__", OURS[0])
            if not where.startswith(OURS):
                raise NotCompiledError(f"{type(watcher).__name__}.{hook}", "it sees each step")


def _blocks(module: Any, optimizer: Optimizer, batch: Any) -> Iterator[Block]:
    """Yield the optimizer's parameters that have a gradient, in blocks that are updated alike."""
    names = {p: name for name, p in Loss(module).named_parameters()}
    slopes = _slopes(module, batch)
    for group in optimizer.param_groups:
        update = UPDATES[type(optimizer)](group)
        moving = [p for p in group["params"] if slopes.get(names.get(p, "")) is not None]
        joined = sum(p.numel() for p in moving) <= JOINED
        parts: dict[Any, list[nn.Parameter]] = {}
        for p in moving:
            _check_parameter(p, slopes[names[p]], names[p])
            state = optimizer.state.get(p, {})
            fresh = any(state.get(name) is None for name in update.names)
            alike = p.dtype, fresh, float(state.get("step", 0)), "" if joined else names[p]
            parts.setdefault(alike, []).append(p)
        for (_, fresh, *_), parameters in parts.items():
            yield Block(group, [names[p] for p in parameters], parameters, update, fresh)


def _slopes(module: Any, batch: Any) -> dict[str, Tensor | None]:
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
        slopes = torch.autograd.grad(value, list(wanted.values()), allow_unused=True)
    return dict(zip(wanted, slopes, strict=True))


def _check_parameter(p: nn.Parameter, slope: Tensor | None, name: str) -> None:
    """Look for what cannot be compiled in a parameter.

    Raises:
        NotCompiledError: there is something.
    """
    if p.is_complex():
        raise NotCompiledError(name, "it is complex")
    if slope is not None and slope.layout != torch.strided:
        raise NotCompiledError(name, "its gradient is sparse")
    # torch has no public name for either.
    if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None):
        raise NotCompiledError(name, "a hook wants to see its gradient")


def _reason(error: Exception) -> str:
    """Return the line that says most of a compiler's message of many."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not line.endswith("raised:")), repr(error))
