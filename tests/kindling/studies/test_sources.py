"""The metrics that a run can log, read from sources alone: certain, or not claimed at all."""

import textwrap
from pathlib import Path

import pytest

from src.kindling.errors import InputError
from src.kindling.studies import metric, sources, space
from src.kindling.studies.recipe import Recipe

QUIET = ["callbacks.checkpointing.monitor=train/loss", "~callbacks.figures", "logger=none"]
HEAD = """
from torchmetrics import MetricCollection, R2Score
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.wrappers import ClasswiseWrapper
from src.kindling.model import BaseModule

class Base(BaseModule):
    def parameter_metrics(self):
        if self.net is None:
            return {}
        return {"norm": self.net.weight.norm()}
"""


@pytest.mark.usefixtures("composing")
@pytest.mark.parametrize("model", ["line", "quadrants", "teacher"])
def test_no_name_is_missing_that_a_step_logs(model: str) -> None:
    recipe = Recipe([f"model={model}", *QUIET], [])
    known = sources.metrics(recipe.settings({}))
    assert known is not None
    _, logged = metric.logged(recipe.settings({}), recipe.overrides)
    train, val = ([n for n in logged if n.startswith(s)] for s in ("train/", "val/"))
    assert known.issuperset(train + val)
    assert {name for name in known if name.startswith("val/")} == set(val)


def known(
    monkeypatch: pytest.MonkeyPatch, folder: Path, body: str, callback: str
) -> set[str] | None:
    """Return what is known of a model with this body of its class."""
    module = f"guest_{abs(hash((body, callback)))}"
    text = f"{HEAD}\nclass Guest(Base):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
    (folder / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    callbacks = {"one": {"_target_": callback}}
    return sources.metrics({"model": {"_target_": f"{module}.Guest"}, "callbacks": callbacks})


OURS = "src.kindling.callbacks.signals.StopOnSignal"


def test_metrics_that_are_written_out_are_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    body = """
    def metrics(self):
        return {"accuracy": MulticlassAccuracy(2), "r2": R2Score()}
    """
    found = known(monkeypatch, tmp_path, body, OURS)
    assert found == {"val/loss", "val/accuracy", "val/r2", "val/norm"}


@pytest.mark.parametrize(
    "body",
    [
        "def training_step(self, batch, index):\n    self.log('train/x', 1.0)",
        "def on_fit_end(self):\n    self.trainer.callback_metrics['val/x'] = 1.0",
        "def configure_model(self):\n    pass",
        "def metrics(self):\n    return dict(x=R2Score())",
        "def metrics(self):\n    return {**super().metrics(), 'x': R2Score()}",
        "def metrics(self):\n    return {f'x{2}': R2Score()}",
        "def metrics(self):\n    return {'x': self.own}",
        "def metrics(self):\n    return {'x': MetricCollection([R2Score()])}",
        "def metrics(self):\n    return {'x': ClasswiseWrapper(MulticlassAccuracy(2))}",
        "def loss_metric(self):\n    return ClasswiseWrapper(MulticlassAccuracy(2))",
        "metrics = None",
    ],
)
def test_other_metrics_are_known_by_a_step_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str
) -> None:
    assert known(monkeypatch, tmp_path, body, OURS) is None


def test_a_callback_from_elsewhere_may_log_anything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = "lightning.pytorch.callbacks.LearningRateMonitor"
    assert known(monkeypatch, tmp_path, "pass", other) is None
    assert known(monkeypatch, tmp_path, "pass", OURS) == {"val/loss", "val/norm"}


def test_a_plain_module_is_not_known() -> None:
    target = "lightning.pytorch.demos.boring_classes.BoringModel"
    assert sources.metrics({"model": {"_target_": target}, "callbacks": {}}) is None


@pytest.mark.usefixtures("composing")
def test_a_searched_model_that_does_not_log_the_metric_is_named() -> None:
    recipe = Recipe(*space.split(["model=choice(quadrants,line)", "~callbacks.figures"]))
    assert metric.chosen(["val/loss"], [], recipe) == ["val/loss"]
    line = r"study.metric=val/accuracy: no run logs it: .* \(with model=line\)"
    with pytest.raises(InputError, match=line):
        metric.chosen(["val/accuracy"], [], recipe)
