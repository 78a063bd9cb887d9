"""The tutorials as chapters to run; each prints what it teaches, best read in this order."""

CHAPTERS = (
    "tensors",
    "autograd",
    "gradient_descent",
    "neuron",
    "layers",
    "linear_regression",
    "two_layer_net",
    "fizzbuzz",
    "precision_and_data",
)
