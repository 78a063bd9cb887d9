"""What a compiled call updates: blocks of parameters; and what is not compiled, with the reason."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from src.kindling.model import BaseModule
from src.kindling.speed.hooks import overrides
from src.kindling.speed.updates import UPDATES, ParamGroup, Update

JOINED = 2**17  # parameters of a param group up to which it is updated as one vector
HOOKS = (  # hooks that look into a step
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "configure_gradient_clipping",
    "backward",
)


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
        more = "" if isinstance(module, BaseModule) else ", and derive from BaseModule"
        why = f"return the loss from training_loss(self, batch) instead{more}"
        raise NotCompiledError(f"{name}.training_step", why)
    for part in module.modules():
        if isinstance(part, torch._dynamo.OptimizedModule):
            raise NotCompiledError(name, "it applies torch.compile itself")
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


def blocks_of(module: Any, optimizer: Optimizer, batch: Any) -> Iterator[Block]:
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
