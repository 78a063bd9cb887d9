"""A tensor is an array that knows its type and its device, and mostly speaks NumPy.

The steps are those of all four tutorials, foremost PyTorch's "What is PyTorch?" introduction;
docs.pytorch.org/docs/stable/torch.html lists every operation.
"""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.tour.page import show


def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a sum of two shapes: aligned at the right, a 1 or a gap stretches.

    Raises ValueError where two sizes differ and neither is 1.
    """
    shape = []
    for m, n in zip_longest(reversed(a), reversed(b), fillvalue=1):
        if m != n and 1 not in (m, n):
            raise ValueError(f"{a} and {b} do not broadcast: {m} against {n}")
        shape.append(n if m == 1 else m)
    return tuple(reversed(shape))


def create() -> Tensor:
    """Print the ways to make a tensor; give the random one, [5, 3]."""
    show("empty takes memory as it finds it, so only its shape is known.", torch.empty(5, 3).shape)
    show("rand draws from U(0, 1).", torch.rand(5, 3))
    show("zeros fills with 0, here with whole numbers.", torch.zeros(5, 3, dtype=torch.long))
    x = torch.tensor([5.5, 3])
    show("tensor takes the numbers of a list.", x)
    x = x.new_ones(5, 3, dtype=torch.double)
    show("new_ones keeps the type and device of x, unless told otherwise.", x)
    x = torch.randn_like(x, dtype=torch.float)
    show("randn_like keeps the shape, draws from N(0, 1), here with another type.", x)
    show("size() gives the shape, which is a tuple.", x.size(), isinstance(x.size(), tuple))
    return x


def add(x: Tensor) -> None:
    """Print addition four ways, and the other operations that end in an underscore."""
    y, result = torch.rand(5, 3), torch.empty(5, 3)
    torch.add(x, y, out=result)
    show("torch.add(x, y, out=result) fills a tensor that is there already:", result)
    same = torch.equal(x + y, result) and torch.equal(torch.add(x, y), result)
    show("x + y and torch.add(x, y) give the same in a new one:", same)
    y.add_(x)
    show("y.add_(x) gives it in place: y itself is now the sum.", torch.equal(y, result))
    y.copy_(x).t_()
    show("Every trailing underscore means in place: y.copy_(x).t_() leaves y with", y.size())


def index(x: Tensor) -> None:
    """Print indexing, and a tensor of one element as a Python number."""
    show("Indexing is NumPy's: x[:, 1], x[1:3, 0], x[x > 1].", x[:, 1], x[1:3, 0], x[x > 1])
    one = torch.randn(1)
    show("item() makes one element a Python number.", one, one.item())


def reshape() -> None:
    """Print what view changes, what it shares and what clone does not."""
    x = torch.randn(4, 4)
    y, z = x.view(16), x.view(-1, 8)
    show("view reshapes; one -1 is worked out.", x.size(), y.size(), z.size())
    copy = x.clone().view(16)
    x[0, 0] = 0
    shared = f"x[0, 0] {x[0, 0]:.4f}  view {y[0]:.4f}  clone {copy[0]:.4f}"
    show("A write to x shows in its view and not in its clone.", shared)
    array, images = np.empty((10000, 3, 28, 28)), torch.empty(10000, 3, 28, 28)
    flat = images.view(-1, 3, 28**2)
    show("NumPy's reshape is torch's view.", array.reshape(10000, 3, 28**2).shape, flat.size())
    show("The original keeps its shape, unless the view is assigned to it.", images.size())


def compare() -> None:
    """Print the same functions in NumPy and torch."""
    a, t = np.array([0.1, 0.2, 0.3]), torch.tensor([0.1, 0.2, 0.3])
    show("An array holds float64, a tensor float32, unless told otherwise.", a, t)
    show("norm of the vector:", np.linalg.norm(a), torch.linalg.norm(t))
    A, T = np.array([[1, 2], [3, 4.0]]), torch.tensor([[1, 2], [3, 4.0]])
    show("norm of the matrix [[1, 2], [3, 4]]:", np.linalg.norm(A), torch.linalg.norm(T))
    show("mean along dimension 0: axis= in NumPy, dim= in torch.", A.mean(axis=0), T.mean(dim=0))
    show("Matrix product: A @ A and T.matmul(T).", A @ A, T.matmul(T))
    show("Element by element: A * A and T * T.", A * A, T * T)
    show("zeros:", np.zeros((2, 3)), torch.zeros(2, 3))
    show("ones:", np.ones((2, 3)), torch.ones(2, 3))


def stretch() -> None:
    """Print broadcasting, by torch and by the rule."""
    x, y = torch.zeros(5, 1, 4, 1), torch.zeros(3, 1, 2)
    show("Broadcasting aligns sizes from the right and stretches each 1:", (x + y).size())
    show("By the rule:", broadcast((5, 1, 4, 1), (3, 1, 2)))


def share_with_numpy() -> None:
    """Print that array and tensor are one memory, whichever is written to."""
    a = torch.ones(5)
    b = a.numpy()
    a.add_(1)
    show("numpy() shares: adding to the tensor shows in the array.", a, b)
    c = np.ones(5)
    d = torch.from_numpy(c)
    np.add(c, 1, out=c)
    show("from_numpy shares: adding to the array shows in the tensor, float64 as it was.", c, d)
    d.mul_(2)
    show("And back: doubling that tensor in place doubles the array.", d, c)
    whole = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int32)
    show("The type passes over: int32 here.", torch.from_numpy(whole), torch.tensor(whole).numpy())


def move(x: Tensor) -> None:
    """Print a sum on the accelerator, where there is one, brought back with another type."""
    found = torch.accelerator.current_accelerator(check_available=True)
    device = found or torch.device("cpu")
    show("to() moves a tensor; the device here:", device if found else "cpu (no accelerator found)")
    z = x.to(device) + torch.ones_like(x, device=device)
    show("Both parts of a sum must be on one device.", z)
    show("to() changes device and type together.", z.to("cpu", torch.double))


def main(output: Path | None = None) -> None:
    """Print the chapter; with `output`, also write its plots there."""
    torch.manual_seed(0)
    x = create()
    add(x)
    index(x)
    reshape()
    compare()
    stretch()
    share_with_numpy()
    move(torch.tensor([0.25, 0.5]))
