"""The game against its rule, the training against NumPy."""

import copy

import numpy as np
import pytest
import torch

from src.tour.fizzbuzz import binary_digits, decode, encode, make_data, make_model, predict, train


def spoken(number: int) -> str:
    return "fizz" * (number % 3 == 0) + "buzz" * (number % 5 == 0) or str(number)


def test_encode_then_decode_is_the_game():
    assert [decode(n, encode(n)) for n in range(1, 1024)] == [spoken(n) for n in range(1, 1024)]
    assert [encode(n) for n in (1, 2, 5, 12, 15)] == [0, 0, 2, 1, 3]
    assert [decode(7, label) for label in range(4)] == ["7", "fizz", "buzz", "fizzbuzz"]


def test_binary_digits_begin_with_the_ones():
    assert binary_digits(6, 4) == [0, 1, 1, 0]
    for number in range(1024):
        assert "".join(map(str, reversed(binary_digits(number)))) == format(number, "010b")


def test_training_data():
    X, Y = make_data(range(101, 1024))
    assert X.shape == (923, 10)
    assert X.dtype == torch.float32
    assert Y.shape == (923,)
    assert Y.dtype == torch.int64
    assert (X @ 2.0 ** torch.arange(10)).tolist() == list(range(101, 1024))
    # Up to 1023 there are 341, 204 and 68 multiples of 3, 5 and 15; up to 100 there are 33, 20, 6.
    assert Y.bincount().tolist() == [493, 308 - 62, 184 - 62, 62]


def softmax_regression(model, X, Y, lr, batch_size, epochs):
    """SGD on the mean cross-entropy of a two-layer ReLU net, written out in NumPy."""
    W1, b1, W2, b2 = (p.detach().numpy().copy() for p in model.parameters())
    losses = []
    for _ in range(epochs):
        for i in range(0, len(X), batch_size):
            x, y = X[i : i + batch_size], Y[i : i + batch_size]
            h = x @ W1.T + b1  # [B, H]
            a = np.maximum(h, 0)
            z = a @ W2.T + b2  # [B, C]
            p = np.exp(z - z.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            losses.append(-np.log(p[range(len(y)), y]).mean())
            d = (p - np.eye(4)[y]) / len(y)  # [B, C]
            dh = d @ W2 * (h > 0)  # [B, H]
            W2, b2 = W2 - lr * d.T @ a, b2 - lr * d.sum(0)
            W1, b1 = W1 - lr * dh.T @ x, b1 - lr * dh.sum(0)
    return losses, (W1, b1, W2, b2)


def test_training_agrees_with_numpy_step_by_step():
    torch.manual_seed(1)
    model = make_model(hidden=20).double()
    X, Y = make_data(range(101, 500))
    X = X.double()
    expected, weights = softmax_regression(model, X.numpy(), Y.numpy(), 0.05, 128, epochs=5)
    result = train(model, X, Y, epochs=5)
    assert len(result.batch_losses) == 5 * 4
    assert len(result.epoch_losses) == 5
    np.testing.assert_allclose(result.batch_losses, expected, rtol=1e-10)
    for parameter, weight in zip(result.model.parameters(), weights, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-9, atol=1e-12)


def test_an_epochs_loss_is_taken_on_all_data_after_it():
    X, Y = make_data(range(101, 229))  # one batch: each epoch's loss is the next step's
    result = train(make_model(), X, Y, epochs=4)
    assert result.epoch_losses[:-1] == pytest.approx(result.batch_losses[1:], rel=1e-6)


def test_the_start_is_spared_and_training_repeats():
    start = make_model()
    before = copy.deepcopy(start.state_dict())
    X, Y = make_data(range(101, 1024))
    first, second = train(start, X, Y, epochs=3), train(start, X, Y, epochs=3)
    assert first.batch_losses == second.batch_losses
    for name, value in start.state_dict().items():
        assert torch.equal(value, before[name])
        assert not torch.equal(value, first.model.state_dict()[name])


def test_predict_takes_the_largest_logit():
    class Echo(torch.nn.Module):
        def forward(self, digits: torch.Tensor) -> torch.Tensor:
            return digits[:, :4]  # a one among the lowest four digits is the answer

    assert predict(Echo(), [1, 2, 4, 8]) == [0, 1, 2, 3]


def test_what_is_printed(chapter):
    lines = chapter("fizzbuzz", "epochs=700").splitlines()
    start = lines.index("The rule itself, for 1, 2, 5, 12 and 15:")
    assert [line.strip() for line in lines[start + 1 : start + 6]] == [
        "1", "2", "buzz", "fizz", "fizzbuzz"
    ]  # fmt: skip
    losses = [float(line.split()[-1]) for line in lines if line.startswith("Epoch:")]
    assert len(losses) == 11
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.75
    said = " ".join(lines[-11:-1]).split()
    right = [word == spoken(number) for number, word in enumerate(said, 1)]
    assert len(right) == 100
    wrong = [number for number, fine in enumerate(right, 1) if not fine]
    assert lines[-1] == f"{sum(right)} of 100 right; wrong at {wrong}"
    assert sum(right) >= 75  # measured 88 after 700 epochs, 97 after 2,000
