"""The network of two of the examples, in torch alone."""

from torch import Tensor, nn


class TwoLayers(nn.Module):
    """D -> H ReLU -> C, with dropout between the layers.

    Args:
        in_features: D.
        hidden_features: H.
        out_features: C.
        bias: whether the layers have a bias.
        dropout: share of the hidden units that training zeroes at random.
    """

    def __init__(
        self, in_features: int, hidden_features: int, out_features: int, bias: bool, dropout: float
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_features, hidden_features, bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_features, out_features, bias=bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs [B, D] to outputs [B, C]."""
        outputs: Tensor = self.output(self.dropout(self.hidden(inputs).relu()))
        return outputs
