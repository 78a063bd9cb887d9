"""The optimizers' updates as functions of tensors, so that a compiler sees the whole step.

Each computes what `torch.optim` does, on the state that `torch.optim` keeps. The scalars that
follow from settings, schedule and step count are computed outside, in double precision as in
torch, and passed as tensors: a schedule that moves them needs no new compilation.
Letters: P values of a block of parameters, S tensors of state.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

ParamGroup = dict[str, Any]  # one of an optimizer's `param_groups`
State = Sequence[Tensor]  # S tensors, each [P]


class Update:
    """The update rule of one param group.

    A subclass stores the settings that change the formula; those that only change its numbers are
    read again for each step.

    Args:
        group: the optimizer's settings for these parameters.
    """

    state_names: tuple[str, ...] = ()  # of the S tensors, in the optimizer's own state

    def __init__(self, group: ParamGroup) -> None:
        self.maximize, self.decays = bool(group["maximize"]), bool(group["weight_decay"])

    def scalars(self, group: ParamGroup, step: int, uninitialized: bool) -> list[float]:
        """Return the scalars of a step.

        Args:
            group: the settings as they are at that step.
            step: which step of these parameters it is, from 1.
            uninitialized: whether the state is still empty.
        """
        raise NotImplementedError

    def __call__(
        self, p: Tensor, g: Tensor, state: State, scalars: Sequence[Tensor]
    ) -> tuple[Tensor, State]:
        """Return parameters and state after a step along the gradient g, all [P]."""
        raise NotImplementedError

    def _gradient(self, p: Tensor, g: Tensor, weight_decay: Tensor) -> Tensor:
        g = -g if self.maximize else g
        return g + weight_decay * p if self.decays else g


class SGD(Update):
    """Gradient descent, with momentum or without."""

    def __init__(self, group: ParamGroup) -> None:
        super().__init__(group)
        self.nesterov = bool(group["nesterov"])
        self.state_names = ("momentum_buffer",) if group["momentum"] else ()

    def scalars(self, group: ParamGroup, step: int, uninitialized: bool) -> list[float]:
        """Return lr, weight decay, momentum and the gradient's share in the buffer."""
        share = (
            1.0 if uninitialized else 1 - group["dampening"]
        )  # the first gradient is not dampened
        return [group["lr"], group["weight_decay"], group["momentum"], share]

    def __call__(
        self, p: Tensor, g: Tensor, state: State, scalars: Sequence[Tensor]
    ) -> tuple[Tensor, State]:
        """Return parameters and state after a step along the gradient g, all [P]."""
        lr, weight_decay, momentum, share = scalars
        g = self._gradient(p, g, weight_decay)
        if not state:
            return p - lr * g, ()
        buffer = momentum * state[0] + share * g
        return p - lr * (g + momentum * buffer if self.nesterov else buffer), (buffer,)


class Adam(Update):
    """Adam, and AdamW, whose group says `decoupled_weight_decay`."""

    def __init__(self, group: ParamGroup) -> None:
        super().__init__(group)
        self.decoupled = bool(group["decoupled_weight_decay"])
        self.state_names = ("exp_avg", "exp_avg_sq")
        if group["amsgrad"]:
            self.state_names += ("max_exp_avg_sq",)

    def scalars(self, group: ParamGroup, step: int, uninitialized: bool) -> list[float]:
        """Return step size, weight decay, 1 - beta1, beta2, 1 - beta2, the correction, eps."""
        (beta1, beta2), lr, decay = group["betas"], group["lr"], group["weight_decay"]
        size, correction = lr / (1 - beta1**step), (1 - beta2**step) ** 0.5
        decay = 1 - lr * decay if self.decoupled else decay
        return [size, decay, 1 - beta1, beta2, 1 - beta2, correction, group["eps"]]

    def __call__(
        self, p: Tensor, g: Tensor, state: State, scalars: Sequence[Tensor]
    ) -> tuple[Tensor, State]:
        """Return parameters and state after a step along the gradient g, all [P]."""
        size, decay, new, kept_square, new_square, correction, eps = scalars
        if self.decoupled:
            g = -g if self.maximize else g
            p = p * decay if self.decays else p
        else:
            g = self._gradient(p, g, decay)
        mean = state[0] + new * (g - state[0])
        square = kept_square * state[1] + new_square * g * g
        after: tuple[Tensor, ...] = (mean, square)
        if len(state) == 3:
            after = (mean, square, torch.maximum(state[2], square))
        return p - size * mean / (after[-1].sqrt() / correction + eps), after


class RMSprop(Update):
    """RMSprop, centered or not, with momentum or without."""

    def __init__(self, group: ParamGroup) -> None:
        super().__init__(group)
        self.centered, self.momentum = bool(group["centered"]), group["momentum"] > 0
        self.state_names = ("square_avg",)
        if self.centered:
            self.state_names += ("grad_avg",)
        if self.momentum:
            self.state_names += ("momentum_buffer",)

    def scalars(self, group: ParamGroup, step: int, uninitialized: bool) -> list[float]:
        """Return lr, weight decay, alpha, 1 - alpha, momentum, eps."""
        alpha = group["alpha"]
        return [
            group["lr"],
            group["weight_decay"],
            alpha,
            1 - alpha,
            group["momentum"],
            group["eps"],
        ]

    def __call__(
        self, p: Tensor, g: Tensor, state: State, scalars: Sequence[Tensor]
    ) -> tuple[Tensor, State]:
        """Return parameters and state after a step along the gradient g, all [P]."""
        lr, weight_decay, alpha, new, momentum, eps = scalars
        g = self._gradient(p, g, weight_decay)
        square = alpha * state[0] + new * g * g
        after: tuple[Tensor, ...] = (square,)
        if self.centered:
            mean = state[1] + new * (g - state[1])
            after = (square, mean)
            square = square - mean * mean
        move = g / (square.sqrt() + eps)
        if self.momentum:
            move = momentum * state[-1] + move
            after = (*after, move)
        return p - lr * move, after


class Adagrad(Update):
    """Adagrad."""

    state_names = ("sum",)

    def scalars(self, group: ParamGroup, step: int, uninitialized: bool) -> list[float]:
        """Return the step's lr, weight decay, eps."""
        lr = group["lr"] / (1 + (step - 1) * group["lr_decay"])
        return [lr, group["weight_decay"], group["eps"]]

    def __call__(
        self, p: Tensor, g: Tensor, state: State, scalars: Sequence[Tensor]
    ) -> tuple[Tensor, State]:
        """Return parameters and state after a step along the gradient g, all [P]."""
        lr, weight_decay, eps = scalars
        g = self._gradient(p, g, weight_decay)
        total = state[0] + g * g
        return p - lr * g / (total.sqrt() + eps), (total,)


UPDATES: dict[type[Optimizer], type[Update]] = {
    torch.optim.SGD: SGD,
    torch.optim.Adam: Adam,
    torch.optim.AdamW: Adam,
    torch.optim.RMSprop: RMSprop,
    torch.optim.Adagrad: Adagrad,
}  # these exactly: a subclass may step otherwise


def empty_state(optimizer: Optimizer, group: ParamGroup, p: Tensor) -> dict[str, Tensor]:
    """Return a parameter's state before its first step, in the optimizer's own format.

    A second optimizer creates it, by a step from zero with a zero gradient.
    """
    zero = nn.Parameter(torch.zeros_like(p))
    zero.grad = torch.zeros_like(p)
    kind: Any = type(optimizer)
    twin = kind([{**group, "params": [zero]}])
    twin.step()
    state: dict[str, Tensor] = dict(twin.state[zero])
    if "step" in state:
        state["step"].zero_()
    return state
