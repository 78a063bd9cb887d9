"""`compile=true` must train as eager steps do, leave the same behind, and say where it cannot.

Most tests run the function of all steps without a compiler, in double precision: it must be the
same mathematics. `tests/soak/soak_compiled.py` compiles all of it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from torch.utils.data import DataLoader, TensorDataset

from src.kindling.build import Experiment

Build = Callable[..., Experiment]
pytestmark = pytest.mark.xdist_group("compiled")  # one process imports the compiler
SHORT = (
    "model=quadrants",
    "model.hidden_features=8",
    "data.batch_size=100",  # nine per epoch, the last of 77
    "trainer.max_epochs=2",
    "trainer.precision=64-true",
    "steps_per_execution=2",
    "logger=none",
)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the function of all steps run as it is."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile the same function once for all tests, and leave nothing in the user's cache.

    What a fresh cache would begin with is left out: headers that are compiled in advance, and
    programs that find out what the processor can.
    """
    quick = {"cpp_cache_precompile_headers": False, "cpp.vec_isa_ok": True}
    with pytest.MonkeyPatch.context() as patch, inductor.patch(quick):
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


def fit(experiment: Experiment, checkpoint: Path | None = None) -> Experiment:
    experiment.trainer.fit(
        experiment.model, datamodule=experiment.data, ckpt_path=checkpoint, weights_only=True
    )
    return experiment


def weights(experiment: Experiment) -> list[Tensor]:
    return [p.detach() for p in experiment.model.parameters()]


def left(experiment: Experiment) -> dict[str, Any]:
    """Return all that a checkpoint or a callback may look at."""
    trainer = experiment.trainer
    return {
        "weights": experiment.model.state_dict(),
        "gradients": [p.grad for p in experiment.model.parameters()],
        "optimizer": trainer.optimizers[0].state_dict(),
        "schedules": [c.scheduler.last_epoch for c in trainer.lr_scheduler_configs],
        "step": trainer.global_step,
        "loss": float(trainer.callback_metrics["train/loss"]),
    }


CASES = [
    "optimizer=sgd optimizer.weight_decay=0.1",
    "optimizer=momentum scheduler=cosine",
    "optimizer=momentum optimizer.nesterov=false +optimizer.dampening=0.5",
    "optimizer=adam optimizer.weight_decay=0.1 scheduler=step",
    "optimizer=adam +optimizer.amsgrad=true",
    "optimizer=adamw",
    "optimizer=adamw optimizer.fused=null +optimizer.maximize=true scheduler=plateau",
    "optimizer=rmsprop optimizer.momentum=0.9 +optimizer.centered=true",
    "optimizer=adagrad optimizer.lr_decay=0.1 optimizer.weight_decay=0.1",
    "trainer.gradient_clip_val=0.1",
    "trainer.gradient_clip_val=0.001 trainer.gradient_clip_algorithm=value",
    "trainer.accumulate_grad_batches=2",
    "trainer.max_steps=5",
    "steps_per_execution=1 trainer.accumulate_grad_batches=2",
    "model=line steps_per_execution=1",
    "model=teacher data.rows=300 data.in_features=5 data.out_features=2",
]


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("case", CASES)
def test_weights_gradients_and_all_state_are_those_of_eager_steps(
    case: str, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = (*(SHORT if "model=" not in case else SHORT[3:]), *case.split())
    eager, compiled = fit(build(*overrides)), fit(build(*overrides, "compile=true"))
    assert_compiled(capsys)
    torch.testing.assert_close(left(compiled), left(eager), rtol=1e-9, atol=1e-12)


def assert_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    """Check that there was a compiled function, and that it was not given up."""
    said = capsys.readouterr()
    assert "compile=true" not in said.err  # with which the line begins that says why
    assert "compiling " in said.out


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(("first", "then"), [("true", "false"), ("false", "true")])
def test_a_run_resumes_the_other_way_round_from_its_checkpoint(
    first: str, then: str, build: Build, tmp_path: Path
) -> None:
    whole = fit(build(*SHORT, "trainer.max_epochs=4", "scheduler=constant"))
    half = (*SHORT, "scheduler=constant", f"compile={first}")
    fit(build(*half))
    rest = build(*SHORT, "trainer.max_epochs=4", "scheduler=constant", f"compile={then}")
    fit(rest, tmp_path / "checkpoints" / "last.ckpt")
    for name in ("weights", "gradients", "optimizer", "schedules", "step"):
        torch.testing.assert_close(left(rest)[name], left(whole)[name], rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.filterwarnings("ignore")  # of Lightning, about the loader
@pytest.mark.parametrize("words", ["", "steps_per_execution=1 trainer.accumulate_grad_batches=2"])
def test_loaders_of_ones_own_are_compiled_too(
    words: str, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    eager, compiled = [build(*SHORT, *words.split(), f"compile={c}") for c in ("false", "true")]
    for experiment in (eager, compiled):
        rows = TensorDataset(*experiment.data.split("train"))
        experiment.trainer.fit(experiment.model, DataLoader(rows, 100, shuffle=True))
    assert_compiled(capsys)
    torch.testing.assert_close(left(compiled), left(eager), rtol=1e-9, atol=1e-12)


class Half(nn.Module):
    """Two layers, one of which is not asked."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(3, 4), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Ask one layer."""
        return self.used(x)


@pytest.mark.usefixtures("uncompiled")
def test_parameters_that_the_loss_does_not_use_do_not_decay(build: Build) -> None:
    experiment = build(*SHORT, "optimizer.weight_decay=0.9", "compile=true")
    experiment.model.net = Half().double()
    before = [p.detach().clone() for p in experiment.model.net.parameters()]
    fit(experiment)
    same = [torch.equal(a, b) for a, b in zip(before, weights(experiment), strict=True)]
    assert same == [False, False, True, True]


class Fails:
    """What a compiler may give: a function that fails when it is called."""

    def __init__(self, function: Any, **options: Any) -> None:
        pass

    def __call__(self, *arguments: Any) -> Tensor:
        raise RuntimeError("the compiler said:\n\nno such luck")


@pytest.mark.parametrize("optimizer", ["momentum", "adamw", "adagrad"])
def test_where_compiling_fails_nothing_is_lost(
    optimizer: str,
    build: Build,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch, "compile", Fails)
    overrides = (*SHORT, f"optimizer={optimizer}", "scheduler=cosine")
    eager, compiled = fit(build(*overrides)), fit(build(*overrides, "compile=true"))
    torch.testing.assert_close(left(compiled), left(eager), rtol=0, atol=0)
    assert capsys.readouterr().err.splitlines() == [
        "warning: compile=true: the step is not compiled: the compiler said:;"
        " these steps run eagerly"
    ]


class Watches(pl.Callback):
    """A callback that wants to see each step."""

    seen = 0

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Count it."""
        self.seen += 1


def test_a_callback_that_looks_into_each_step_sees_each(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment, callback = build(*SHORT, "compile=true"), Watches()
    experiment.trainer.callbacks.append(callback)
    fit(experiment)
    assert callback.seen == experiment.trainer.global_step == 18
    assert "Watches.on_before_optimizer_step is not compiled: it sees" in capsys.readouterr().err


def test_a_version_of_torch_that_cannot_isolate_recompiles_compiles_without(
    build: Build, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(function: Any, *, fullgraph: bool, dynamic: bool, options: Any) -> Any:
        return function  # as it would be compiled

    monkeypatch.setattr(torch, "compile", older)
    assert fit(build(*SHORT, "compile=true")).trainer.global_step == 18
    said = capsys.readouterr()
    assert "compiling" in said.out
    assert said.err == ""


def test_a_version_of_torch_without_an_option_runs_eagerly(
    build: Build, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(function: Any, *, fullgraph: bool) -> Any:
        raise AssertionError("not reached")

    monkeypatch.setattr(torch, "compile", older)
    eager, compiled = fit(build(*SHORT)), fit(build(*SHORT, "compile=true"))
    torch.testing.assert_close(left(compiled), left(eager), rtol=0, atol=0)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: compile=true: the step is not compiled: ")
    assert "unexpected keyword argument" in line


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer=lbfgs", "LBFGS is not compiled: its update is not written as a function"),
        ("trainer.fast_dev_run=2", "a fast development run is not compiled: it would take longer"),
        ("debug=anomaly", "detect_anomaly is not compiled: it watches each operation"),
    ],
)
def test_what_is_not_compiled_runs_eagerly_and_one_line_says_why(
    override: str, line: str, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = fit(build(*SHORT, override, "trainer.max_epochs=1", "compile=true"))
    assert experiment.trainer.global_step > 0
    said = capsys.readouterr().err.splitlines()
    assert said == [f"warning: compile=true: {line}; these steps run eagerly"]


def test_a_network_that_its_author_compiles_is_not_compiled_twice(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = build(*SHORT, "trainer.max_epochs=1", "compile=true")
    experiment.model.net = torch.compile(experiment.model.net, backend="eager")
    name = type(fit(experiment).model).__name__
    line = f"{name} is not compiled: it applies torch.compile itself; these steps run eagerly"
    assert capsys.readouterr().err == f"warning: compile=true: {line}\n"


def test_a_batch_with_more_than_tensors_runs_eagerly(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = build(
        *SHORT, "trainer.max_epochs=1", "trainer.limit_val_batches=0", "compile=true"
    )
    loss, model = experiment.model.training_loss, experiment.model
    model.on_before_batch_transfer = lambda batch, _: {"rows": batch, "name": "x"}
    model.training_loss = lambda batch: loss(batch["rows"])
    experiment.trainer.fit(model, datamodule=experiment.data)
    assert experiment.trainer.global_step > 0
    said = capsys.readouterr().err.splitlines()
    line = "a batch with a str is not compiled: only tensors are"
    assert said == [f"warning: compile=true: {line}; these steps run eagerly"]


# With the compiler ---------------------------------------------------------------------------


# torch's own compiler, when it is first imported, calls a part of torch that is deprecated.
REAL = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@REAL
def test_a_loss_that_looks_at_its_values_runs_eagerly(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = build(*SHORT, "trainer.max_epochs=1", "compile=true")
    plain = experiment.model.loss

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return plain(outputs, targets) * (2 if outputs.sum() > 0 else 1)

    experiment.model.loss = loss
    fit(experiment)
    [line] = capsys.readouterr().err.splitlines()
    assert "the step is not compiled: Data-dependent branching" in line


@REAL
def test_one_compilation_serves_all_epochs_and_resuming_repeats_them(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = (*SHORT, "trainer.precision=32-true", "trainer.max_epochs=4")
    eager = fit(build(*overrides))
    counters.clear()
    whole = fit(build(*overrides, "compile=true"))
    assert counters["stats"]["unique_graphs"] == 1  # two full batches; the last one runs eagerly
    said = capsys.readouterr()
    # A CUDA build of torch says so if there is no GPU.
    assert [line for line in said.err.splitlines() if "No CUDA runtime" not in line] == []
    assert [line for line in said.out.splitlines() if "compiling" in line] == [
        "compiling 2 steps per call (once; cached on disk afterwards)",
    ]
    for a, b in zip(weights(whole), weights(eager), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert list(whole.model.state_dict()) == list(eager.model.state_dict())

    half = build(*overrides, "compile=true")
    half.trainer.callbacks.append(StopsAt(13))  # inside the second epoch
    fit(half)
    assert half.trainer.global_step == 13
    rest = build(*overrides, "compile=true")
    fit(rest, tmp_path / "inside.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(weights(rest), weights(whole), strict=True))


class StopsAt(pl.Callback):
    """Save and stop after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop if it is that step."""
        if trainer.global_step == self.step:
            trainer.save_checkpoint(f"{trainer.default_root_dir}/inside.ckpt")
            trainer.should_stop = True
            trainer.fit_loop.epoch_loop.max_steps = self.step

    def steps_until_next(self, trainer: pl.Trainer) -> float:
        """Return the steps up to it."""
        return self.step - trainer.global_step if trainer.global_step < self.step else torch.inf
