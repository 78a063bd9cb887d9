"""Broadcasting against torch and NumPy, and every step that the chapter prints."""

import numpy as np
import pytest
import torch

from src.tour.tensors import broadcast


@pytest.mark.parametrize(
    ("a", "b"),
    [((5, 1, 4, 1), (3, 1, 2)), ((2, 3), (3,)), ((1,), (7, 1)), ((), (4, 2)), ((0, 3), (1, 3))],
)
def test_broadcast_gives_the_shape_of_torch_and_numpy(a, b):
    assert broadcast(a, b) == tuple(torch.broadcast_shapes(a, b)) == np.broadcast_shapes(a, b)
    assert broadcast(b, a) == broadcast(a, b)


def test_broadcast_of_the_tutorial():
    assert broadcast((5, 1, 4, 1), (3, 1, 2)) == (5, 3, 4, 2)


@pytest.mark.parametrize(("a", "b"), [((2, 3), (2,)), ((4, 1), (3, 2)), ((0,), (2,))])
def test_broadcast_refuses_what_torch_refuses(a, b):
    with pytest.raises(ValueError, match="do not broadcast"):
        broadcast(a, b)
    with pytest.raises(RuntimeError):
        torch.zeros(a) + torch.zeros(b)


def values(text: str, sentence: str) -> str:
    """The indented lines beneath the sentence, their indentation removed."""
    lines = text.split(sentence, 1)[1].splitlines()[1:]
    end = next((i for i, line in enumerate(lines) if not line.startswith("    ")), len(lines))
    return "\n".join(line[4:] for line in lines[:end])


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("tensor takes the numbers", "tensor([5.5000, 3.0000])"),
        ("size() gives", "torch.Size([5, 3])\nTrue"),
        ("x + y and torch.add", "True"),
        ("y.add_(x) gives it in place", "True"),
        ("Every trailing underscore", "torch.Size([3, 5])"),
        ("view reshapes", "torch.Size([4, 4])\ntorch.Size([16])\ntorch.Size([2, 8])"),
        ("NumPy's reshape is", "(10000, 3, 784)\ntorch.Size([10000, 3, 784])"),
        ("The original keeps", "torch.Size([10000, 3, 28, 28])"),
        ("An array holds", "[0.1 0.2 0.3]\ntensor([0.1000, 0.2000, 0.3000])"),
        ("norm of the vector", "0.37416573867739417\ntensor(0.3742)"),
        ("norm of the matrix", "5.477225575051661\ntensor(5.4772)"),
        ("mean along", "[2. 3.]\ntensor([2., 3.])"),
        ("zeros:", "[[0. 0. 0.]\n [0. 0. 0.]]\ntensor([[0., 0., 0.],\n        [0., 0., 0.]])"),
        ("ones:", "[[1. 1. 1.]\n [1. 1. 1.]]\ntensor([[1., 1., 1.],\n        [1., 1., 1.]])"),
        ("Broadcasting aligns", "torch.Size([5, 3, 4, 2])"),
        ("By the rule", "(5, 3, 4, 2)"),
        ("numpy() shares", "tensor([2., 2., 2., 2., 2.])\n[2. 2. 2. 2. 2.]"),
        (
            "from_numpy shares",
            "[2. 2. 2. 2. 2.]\ntensor([2., 2., 2., 2., 2.], dtype=torch.float64)",
        ),
        ("And back", "tensor([4., 4., 4., 4., 4.], dtype=torch.float64)\n[4. 4. 4. 4. 4.]"),
        ("to() changes device and type", "tensor([1.2500, 1.5000], dtype=torch.float64)"),
    ],
)
def test_what_is_printed(chapter, sentence, expected):
    assert values(chapter("tensors"), sentence) == expected


def test_products_are_told_apart(chapter):
    text = chapter("tensors")
    product, squares = values(text, "Matrix product"), values(text, "Element by element")
    assert product == "[[ 7. 10.]\n [15. 22.]]\ntensor([[ 7., 10.],\n        [15., 22.]])"
    assert squares == "[[ 1.  4.]\n [ 9. 16.]]\ntensor([[ 1.,  4.],\n        [ 9., 16.]])"


def test_a_write_shows_in_the_view_and_not_in_the_clone(chapter):
    line = values(chapter("tensors"), "A write to x").split()
    assert line[2] == line[4] == "0.0000"
    assert float(line[6]) != 0


def test_types_of_new_tensors(chapter):
    text = chapter("tensors")
    assert values(text, "new_ones keeps").endswith("dtype=torch.float64)")
    assert "dtype" not in values(text, "randn_like keeps")
    assert values(text, "zeros fills").count("0, 0, 0") == 5
    assert "dtype=torch.int32" in values(text, "The type passes over")


def test_item_is_the_printed_element(chapter):
    tensor, number = values(chapter("tensors"), "item() makes").splitlines()
    assert float(tensor.removeprefix("tensor([").removesuffix("])")) == pytest.approx(
        float(number), abs=5e-5
    )
