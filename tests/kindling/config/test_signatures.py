"""What a constructor takes is read from its source as the import of it would tell."""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from src.kindling.config import ranges, signatures
from src.kindling.config.source import UNREAD, UnreadableError
from src.kindling.config.values import misfit
from src.kindling.layout import CONF

TARGETS = sorted(
    {
        target
        for path in CONF.rglob("*.yaml")
        if "study" not in path.parts  # which need a package of their own, and are imported
        for target in re.findall(r"^\s*_target_:\s*([\w.]+)", path.read_text(), re.MULTILINE)
    }
)
# What a YAML can say, of every type and at the ends of ranges.
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, -1, -2, 7, 24, 25, 64, 0.0, 0.5, 1.0, 1.5, -0.1, float("nan")),
    *("", "a", "auto", "warn", "min", "sum", "32-true", "bf16-mixed", "16", "3"),
    *([], [1], [0.5, 0.9], ["a"], [0.9], [[1]], {}, {"a": 1}, {"hours": 2}),
]
# No YAML gives these: they come from the program, or from an editor's point of view never.
OTHERS = {"src.kindling.optimizers.Muon": {"params"}}


def whole(target: str) -> inspect.Signature:
    names = inspect.signature(signatures.locate(target)).parameters
    return signatures.from_source(target, frozenset(names))


def verdicts(annotation: Any) -> list[list[str]]:
    """What is said of each value; the members of a union may come in any order."""
    return [sorted(re.findall(r"\w+", misfit(v, annotation) or "")) for v in VALUES]


def test_there_are_targets() -> None:
    assert {target.split(".")[0] for target in TARGETS} == {"src", "torch", "lightning"}


@pytest.mark.parametrize("target", TARGETS)
def test_the_source_tells_what_the_import_tells(target: str) -> None:
    imported = signatures.from_object(signatures.locate(target)).parameters
    read = whole(target).parameters
    assert list(read) == list(imported)
    for name, expected in imported.items():
        found = read[name]
        assert found.kind == expected.kind
        if found.default is not UNREAD:
            assert repr(found.default) == repr(expected.default)
        if found.annotation is UNREAD or found.default is UNREAD:
            # What the project's own constructors take must be known without an import.
            assert not target.startswith("src.") or name in OTHERS[target]
        else:
            assert verdicts(found.annotation) == verdicts(expected.annotation), name


def test_lightning_and_torch_are_read_whole() -> None:
    for target in ("lightning.pytorch.Trainer", "torch.optim.AdamW", "torch.optim.SGD"):
        parameters = whole(target).parameters.values()
        assert [p.name for p in parameters if UNREAD in (p.annotation, p.default)] == []


def test_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kindling_trap.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('sprung').touch()\n"
        "class Base:\n    def __init__(self, width: int = 3): ...\n"
        "class Model(Base): ...\n"
        "@made\nclass Made:\n    def __init__(self): ...\n"
        "class Foreign(made()): ...\n"
        "def wrapped(width: 'list[Base] | int', depth=UNKNOWN, *rest, name: Unknown): ...\n"
        "wrong = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    taken = signatures.from_source("kindling_trap.Model", frozenset({"width"})).parameters
    assert list(taken) == ["width"]
    assert (taken["width"].annotation, taken["width"].default) == (int, 3)
    _, depth, _, name = signatures.from_source(
        "kindling_trap.wrapped", frozenset({"name"})
    ).parameters
    wrapped = signatures.from_source(
        "kindling_trap.wrapped", frozenset({"name", "width"})
    ).parameters
    assert verdicts(wrapped["width"].annotation)[VALUES.index(3)] == []
    assert wrapped[depth].default is UNREAD
    assert wrapped[name].annotation is UNREAD
    for name in ("Made", "Foreign", "wrong"):
        with pytest.raises(UnreadableError):
            signatures.from_source(f"kindling_trap.{name}", frozenset())
    with pytest.raises(AttributeError, match="module 'kindling_trap' has no attribute 'Modle'"):
        signatures.from_source("kindling_trap.Modle", frozenset())
    assert "kindling_trap" not in sys.modules
    assert not (tmp_path / "sprung").exists()


# Ranges -----------------------------------------------------------------------------------------

TOO_FAR = {
    "betas": [[0.9, 1.0], [-0.1, 0.9]],
    "accelerator": ["abacus"],
    "strategy": ["dpp"],
    "devices": [0],
    "max_epochs": [-2],
    "max_steps": [-2],
    "max_time": ["soon"],
    "limit_train_batches": [1.5, -1],
    "limit_val_batches": [1.5, -1],
    "limit_test_batches": [1.5, -1],
    "overfit_batches": [1.5, -1],
    "fast_dev_run": [-1],
    "gradient_clip_algorithm": ["hard"],
    "profiler": ["stopwatch"],
}
# Lightning takes these, and does what nobody can mean: divides by them, or does nothing.
NOT_REFUSED_THERE = {
    *("num_nodes", "min_epochs", "min_steps", "check_val_every_n_epoch", "num_sanity_val_steps"),
    *("log_every_n_steps", "gradient_clip_val", "accumulate_grad_batches"),
}


@pytest.mark.parametrize("name", sorted(ranges.TRAINER.keys() - NOT_REFUSED_THERE))
def test_what_is_out_of_the_trainers_range_is_refused_by_lightning(name: str) -> None:
    trainer = signatures.locate("lightning.pytorch.Trainer")
    for value in TOO_FAR[name]:
        assert misfit(value, ranges.TRAINER[name])
        with pytest.raises(Exception, match=r"\S"):
            trainer(**{"accelerator": "cpu", "logger": False, "devices": 1, name: value})


def test_the_names_of_lightning_are_all_there() -> None:
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.strategies import StrategyRegistry

    strategies, accelerators = StrategyRegistry.available_strategies(), AcceleratorRegistry
    assert {"auto", *strategies} == set(ranges.TRAINER["strategy"].__args__)
    known = {"auto", "gpu", *accelerators.available_accelerators()}
    assert known == set(ranges.TRAINER["accelerator"].__args__)


@pytest.mark.parametrize("target", [t for t in TARGETS if t.startswith("torch.optim.")])
def test_what_is_out_of_an_optimizers_range_is_refused_by_torch(target: str) -> None:
    import torch

    optimizer = signatures.locate(target)
    taken = inspect.signature(optimizer).parameters.keys() & ranges.OPTIMIZER.keys()
    assert "lr" in taken
    for name in taken:
        for value in TOO_FAR.get(name, [-0.1]):
            assert misfit(value, ranges.OPTIMIZER[name])
            with pytest.raises(ValueError, match="Invalid"):
                optimizer([torch.zeros(1)], **{name: value})
