"""Linear regression by gradient descent: a model with a closed-form solution.

Letters: B batch, D features, C outputs.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, R2Score

from src.kindling.model import BaseModule, OptimizerFactory, SchedulerFactory


class LinearRegression(BaseModule):
    """y = X beta, trained on the mean squared residual.

    Args:
        in_features: D, features per row.
        out_features: C, values to predict per row; the tutorial has one.
        bias: whether to learn an intercept.
        true_coefficients: the D coefficients that generated the data, if known; the distance of the
            learned coefficients from them is then a metric, `coefficient_error`.
        optimizer: factory of the optimizer, called with the parameters.
        scheduler: factory of the learning-rate schedule.

    Raises:
        ValueError: `true_coefficients` are not D numbers.

    Source: University of Washington, CSE 446, section 9.
    """

    target = "value"
    monitor = "train/loss"  # the objective of least squares; val/loss would pick an earlier step

    def __init__(
        self,
        in_features: PositiveInt = 2,
        out_features: PositiveInt = 1,
        bias: bool = False,
        true_coefficients: list[float] | None = None,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        if true_coefficients is not None and len(true_coefficients) != in_features:
            raise ValueError(
                f"true_coefficients has {len(true_coefficients)} numbers for {in_features} features"
            )
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.in_features, self.out_features = in_features, out_features
        self.true_coefficients = true_coefficients
        self.net = nn.Linear(in_features, out_features, bias=bias)

    @property
    def coefficients(self) -> Tensor:
        """The learned beta, [C, D], detached."""
        assert isinstance(self.net, nn.Linear)
        return self.net.weight.detach()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared residual of outputs [B, C] against targets [B, C]."""
        return F.mse_loss(outputs, targets)

    def metrics(self) -> dict[str, Metric]:
        """Return R2, the fraction of the variance that is explained."""
        return {"r2": R2Score()}

    def parameter_metrics(self) -> dict[str, Tensor]:
        """Return the Euclidean distance between the learned and the true coefficients."""
        if self.true_coefficients is None:
            return {}
        true = torch.tensor(self.true_coefficients).to(self.coefficients)  # [D]
        return {"coefficient_error": torch.linalg.vector_norm(self.coefficients - true)}
