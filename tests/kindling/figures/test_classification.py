"""The numbers in a classifier's pictures are those of torchmetrics, and of textbooks."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_precision_recall_curve,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
)

from src.kindling.figures import classification
from src.kindling.figures.view import View

ROWS, CLASSES = 200, 4


def seen(classes: int = CLASSES, data: Any = None) -> View:
    """A view of a classifier that is right more often than not."""
    random = np.random.default_rng(3)
    targets = random.integers(0, classes, ROWS)
    logits = random.normal(size=(ROWS, classes)) + 1.5 * np.eye(classes)[targets]
    model, data = SimpleNamespace(), data or SimpleNamespace()
    return View(model, data, "validation", None, targets, logits, 5, lambda inputs: logits)


def tensors(view: View) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(view.outputs).softmax(dim=1), torch.from_numpy(view.targets)


def test_probabilities_are_the_softmax() -> None:
    view = seen()
    assert classification.probabilities(view) == pytest.approx(tensors(view)[0].numpy())


def test_the_confusion_matrix_counts_true_by_predicted() -> None:
    view = seen()
    expected = multiclass_confusion_matrix(*tensors(view), CLASSES).numpy()
    assert np.array_equal(classification.confusion(view), expected)
    right = int(np.trace(expected))
    assert classification.Confusion().title(view) == f"Confusion matrix: {right} of {ROWS} right"


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_a_long_name_of_a_class_ends_in_an_ellipsis_and_a_short_one_is_whole(classes: int) -> None:
    names = ["a class of long name", *(f"c{number}" for number in range(1, classes))]
    axes = Figure().subplots()
    classification.Confusion().draw(axes, seen(classes, SimpleNamespace(class_names=names)))
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        first, *others = [label.get_text() for label in labels]
        assert others == names[1:]
        assert first == names[0] or (first[-1] == "…" and names[0].startswith(first[:-1]))


def test_the_calibration_error_is_the_expected_one() -> None:
    view = seen()
    expected = multiclass_calibration_error(*tensors(view), CLASSES, n_bins=10, norm="l1")
    assert f"off by {float(expected):.3f}" in classification.Calibration().title(view)


def test_wilsons_interval_is_that_of_the_textbook() -> None:
    low, high = classification.wilson(np.array([8, 0]), np.array([10, 10]))
    assert low == pytest.approx([0.4902, 0.0], abs=1e-4)
    assert high == pytest.approx([0.9433, 0.2775], abs=1e-4)


def test_the_curve_has_precision_and_recall_at_each_threshold() -> None:
    random = np.random.default_rng(0)
    true, scores = random.random(80) < 0.3, random.integers(0, 20, 80) / 20  # equal ones too
    recall, precision = classification.curve(true, scores)
    arguments = torch.from_numpy(scores), torch.from_numpy(true).long()
    expected_precision, expected_recall, _ = binary_precision_recall_curve(*arguments)
    assert recall[::-1] == pytest.approx(expected_recall.numpy())  # which begins at recall 1
    assert precision[:0:-1] == pytest.approx(expected_precision.numpy()[:-1])
    area = classification.average_precision(true, scores)
    assert area == pytest.approx(float(binary_average_precision(*arguments)))


def test_classes_are_called_by_the_names_that_the_data_gives() -> None:
    assert classification.class_names(seen()) == ["0", "1", "2", "3"]
    named = SimpleNamespace(class_names=("number", "fizz", "buzz", "fizzbuzz"))
    assert list(classification.curves(seen(data=named))) == list(named.class_names)


@pytest.mark.parametrize("classes", [2, 13, 40])
def test_any_number_of_classes_is_drawn(classes: int) -> None:
    view = seen(classes)
    for picture in classification.pictures(view.model):
        assert picture.suits(view)
        assert picture.png(view).startswith(b"\x89PNG")
    assert len(classification.shown_classes(view)) == min(classes, 7)


def test_what_is_not_a_logit_per_class_is_left_out() -> None:
    view = seen(classification.CLASSES + 1)
    assert not classification.suits(view)  # as the tokens of a language
    view = seen()
    view.targets = view.targets[:, None]
    assert not classification.suits(view)
    view.outputs = view.targets = None  # the batches are dictionaries, say
    assert not any(picture.suits(view) for picture in classification.pictures(None))
