"""The next character of a text, given those before it.

Letters: B batch, T characters, D features, V = 128 characters.
"""

from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from src.kindling.model import BaseModule, OptimizerFactory, SchedulerFactory

CHARACTERS = 128


class Tokens(BaseModule):
    """A recurrent network whose output layer is its embedding.

    Args:
        hidden_features: D.
        optimizer: makes the optimizer from the parameter groups.
        scheduler: makes the learning-rate schedule.
    """

    def __init__(
        self,
        hidden_features: PositiveInt = 16,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.embedding = nn.Embedding(CHARACTERS, hidden_features)
        self.recurrent = nn.GRU(hidden_features, hidden_features, batch_first=True)
        self.output = nn.Linear(hidden_features, CHARACTERS, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Map characters [B, T] to logits [B, T, V]."""
        logits: Tensor = self.output(self.recurrent(self.embedding(tokens))[0])
        return logits

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross entropy of logits [B, T, V] against characters [B, T]."""
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def configure_optimizers(self) -> Any:
        """Decay matrices only."""
        matrices = [p for p in self.parameters() if p.dim() > 1]
        others = [p for p in self.parameters() if p.dim() <= 1]
        assert self.optimizer_factory is not None
        return self.optimizer_factory(
            [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
        )

    def predict_step(self, batch: Any, batch_idx: int = 0) -> Any:
        """Continue the prompt with the most probable characters."""
        tokens = batch["tokens"]
        for _ in range(batch["length"]):
            tokens = torch.cat([tokens, self(tokens)[:, -1:].argmax(-1)], dim=1)
        return {"text": "".join(map(chr, tokens[0].tolist()))}
