"""The function of several optimizer steps that `compile=true` compiles, as plain operations.

Letters: K steps of a call, P values of a block of parameters, S tensors of state.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value

from src.kindling.speed.blocks import Block, Loss

LossOf = Callable[[list[Tensor], Any], Tensor]


def function(
    blocks: Sequence[Block], loss: LossOf, clip: Callable[[list[Tensor]], list[Tensor]]
) -> Callable[..., Tensor]:
    """Return the function of all steps, ready to be traced.

    It writes into the blocks' parameters, gradients [P] and states [S, P] in place, and returns the
    losses of all batches. Its scalars, [K, ...], are those of the updates of each step.

    Args:
        blocks: what the optimizer updates.
        loss: the loss of a batch as a function of the blocks' vectors.
        clip: what is done to the gradients before an update.
    """
    counts = [len(b.update.scalars(b.param_group, 1, True)) for b in blocks]
    updates = [block.update for block in blocks]
    grad = grad_and_value(loss)

    def gradient_of(vectors: list[Tensor], batches: list[Any]) -> tuple[list[Tensor], list[Tensor]]:
        gradient, value = grad(vectors, batches[0])
        losses = [value]
        for batch in batches[1:]:
            more, value = grad(vectors, batch)
            gradient = [a + b for a, b in zip(gradient, more, strict=True)]
            losses.append(value)
        return clip(gradient), losses

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
            gradient, of_step = gradient_of(vectors, batches)
            losses += of_step
            parts = torch.split(row, counts)
            moved = [
                update(p, g, state, part.unbind())
                for update, p, g, state, part in zip(
                    updates, vectors, gradient, flat_states, parts, strict=True
                )
            ]
            vectors = [p for p, _ in moved]
            flat_states = [list(state) for _, state in moved]
        _write_all(parameters, vectors)
        _write_all(gradients, gradient)
        for state, flat_state in zip(states, flat_states, strict=True):
            _write_all(state, flat_state)
        return torch.stack(losses)

    return steps


def loss_of_vectors(loss: Loss, blocks: Sequence[Block], accumulate: int) -> LossOf:
    """Return a batch's share of its step's loss as a function of the blocks' vectors [P]."""
    names = [block.names for block in blocks]
    shapes = [[p.shape for p in block.parameters] for block in blocks]

    def loss_of(vectors: list[Tensor], batch: Any) -> Tensor:
        values: dict[str, Tensor] = {}
        for vector, block_names, block_shapes in zip(vectors, names, shapes, strict=True):
            values |= dict(zip(block_names, _unflatten(vector, block_shapes), strict=True))
        value: Tensor = functional_call(loss, values, (batch,), tie_weights=False) / accumulate
        return value

    return loss_of


def clipped(gradients: list[Tensor], clip_val: float | None, algorithm: str) -> list[Tensor]:
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


def _write_all(blocks: list[list[Tensor]], vectors: list[Tensor]) -> None:
    for tensors, vector in zip(blocks, vectors, strict=True):
        _write(tensors, vector)


def _write(tensors: list[Tensor], vector: Tensor) -> None:
    """Change the tensors in place to what the vector [P] holds."""
    for tensor, part in zip(tensors, _unflatten(vector, [t.shape for t in tensors]), strict=True):
        tensor.copy_(part)
