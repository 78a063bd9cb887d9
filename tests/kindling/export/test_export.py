"""An export answers as its checkpoint does, in whatever runs the file."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.kindling import restore
from src.kindling.errors import InputError
from src.kindling.export import export, formats
from src.kindling.export.calls import Call, differences, names, record, rows
from src.kindling.export.program import explained, fits, shapes, trace
from tests.conftest import ROOT, Command, has_command

KEYS = ("run", "output", "precision", "quantize", "opset", "tolerance")
OPTIONS: dict[str, Any] = {**dict.fromkeys(KEYS), "format": "pt2"}


class Nested(nn.Module):
    """Takes a dictionary and a scale, and answers with a dictionary; `sum` is a target."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(1, 4)
        self.heads = nn.Linear(4, 2)

    def forward(self, inputs: dict[str, Tensor], scale: float, *, shift: Tensor) -> Any:
        features = self.features(inputs["numbers"][..., None]).relu()  # [B, T, D]
        values = self.heads((features * inputs["mask"][..., None]).sum(1)) * scale
        return {"value": values + shift, "length": inputs["mask"].sum(1)}


def nested_inputs(batch: int, length: int) -> Any:
    generator = torch.Generator().manual_seed(length)
    numbers = torch.randn(batch, length, generator=generator)
    mask = torch.ones(batch, length, dtype=torch.int64)
    inputs = {"numbers": numbers, "mask": mask, "sum": torch.zeros(batch)}
    return (inputs, 2.0), {"shift": torch.ones(2)}


class Asked:
    """Data that asks a model with fixed inputs, once per length."""

    def __init__(self, *lengths: int) -> None:
        self.lengths = lengths

    def prediction_inputs(self) -> Any:
        return self.lengths


class NestedModel(Nested):
    def predict_step(self, lengths: Any, batch_idx: int) -> Any:
        calls = [nested_inputs(3, length) for length in lengths]
        return [self(*args, **kwargs) for args, kwargs in calls]


@pytest.fixture(scope="module")
def nested() -> tuple[Any, list[Call]]:
    torch.manual_seed(0)
    model = NestedModel().eval()
    return model, record(Asked(5, 7), model)


def test_calls_are_recorded_at_three_batch_sizes(nested: tuple[Any, list[Call]]) -> None:
    _, calls = nested
    assert [rows(call.tensors) for call in calls] == [6, 1, 3, 3]
    found = names(calls[0], NestedModel().forward)
    assert found == (["numbers", "mask", "sum", "shift"], ["value", "length"])
    x = torch.ones(1)
    assert names(Call(((x,), {}), (x, {"a": x})), lambda x: x) == (
        ["x"],
        ["outputs_0", "outputs_1_a"],
    )
    # A file has each name once, among its inputs and outputs together.
    twice = Call((({"a": {"b": x}, "a_b": x},), {}), {"c": x, "a_b_0": x})
    assert names(twice, lambda c: c) == (["a_b_0", "a_b_1"], ["c", "a_b_0_1"])


def test_nested_inputs_are_flattened_and_those_that_are_not_read_left_out(
    nested: tuple[Any, list[Call]], tmp_path: Path
) -> None:
    model, calls = nested
    flat, program = trace(model, calls)
    assert flat.kept == [0, 1, 3]  # `sum` is a target, in the batch by chance
    assert [[type(size) for size in shape] for shape in shapes(program)] == [
        [str, str],
        [str, str],
        [int],
    ]
    signature = formats.Signature(["numbers", "mask", "shift"], ["value", "length"], {})
    formats.write_pt2(program, tmp_path / "model.pt2", signature)
    with explained():  # torch 2.11 warns of the buffer that it reads
        run = formats.load_pt2(tmp_path / "model.pt2")
    off = [d for d, _ in differences(calls, lambda inputs: run(flat.selected(inputs)))]
    assert len(off) == 2 * len(calls)
    assert max(off) < 1e-6
    assert all(fits(flat.selected(call.inputs), shapes(program)) for call in calls)


def test_a_difference_is_seen_in_values_shapes_and_nans() -> None:
    call = Call(((torch.ones(2),), {}), torch.tensor([1.0, torch.nan]))
    assert list(differences([call], lambda _: [torch.tensor([1.5, torch.nan])])) == [(0.5, 1.0)]
    assert list(differences([call], lambda _: [torch.tensor([1.0, 1.0])])) == [(torch.inf, 1.0)]
    turned = Call(((torch.ones(2),), {}), torch.tensor([1j]))
    assert list(differences([turned], lambda _: [torch.tensor([2j])])) == [(1.0, 1.0)]
    fixed = r"its answers are \[\[2\]\], and those of the file \[\[3\]\]: an operation fixes"
    with pytest.raises(InputError, match=fixed):
        list(differences([call], lambda _: [torch.ones(3)]))
    another = Call(((torch.ones(2),), {"both": True}), (call.answer, call.answer))
    with pytest.raises(InputError, match=r"those of the file \[\[2\]\]: forward is called in sev"):
        list(differences([call, another], lambda _: [call.answer]))


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self(torch.ones(3, 2))


class FixedBatch(Branches):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.zeros(6, 2)], dim=1) if len(x) == 6 else x


class Noisy(Branches):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1e-3 * torch.rand_like(x)


@dataclass
class Points:
    """Points [M, 2] of several sets, and the names of the sets [B]."""

    points: Tensor
    sets: Tensor


class Sets(nn.Module):
    """Takes a dataclass with two dimensions that vary."""

    def forward(self, batch: Points) -> Tensor:
        return batch.points.sum(0) * batch.sets[:, None]

    def predict_step(self, sizes: Any, batch_idx: int) -> Any:
        return [self(Points(torch.ones(size, 2), torch.ones(size - 2))) for size in sizes]


def test_a_dataclass_is_taken_apart_and_its_open_dimensions_named_apart() -> None:
    model = Sets().eval()
    calls = record(Asked(5, 7), model)
    assert names(calls[0], model.forward)[0] == ["points", "sets"]
    flat, program = trace(model, calls)
    [[points, _], [sets]] = shapes(program)
    assert points == "batch" != sets
    assert max(d for d, _ in differences(calls, lambda x: list(flat(*flat.selected(x))))) == 0


class OneRow(Branches):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(3, 2)


class Distances(Branches):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(x, x)  # another algorithm above 25 rows


class Constant(Branches):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(3)


class Counts(Branches):
    def forward(self, x: Tensor) -> Any:
        return x.shape[0]


class Silent(Branches):
    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return batch


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (Branches(), r"cannot be exported: .*data-dependent.*test_export.py:\d+: return x \* 2"),
        (FixedBatch(), "an operation fixes the batch size at 6"),
        (Noisy(), "answers the same input differently each time: it draws random numbers"),
        (OneRow(), r"its forward takes 3 rows, and neither 1 nor 6: shape '\[3, 2\]' is invalid"),
        (Distances(), "an operation depends on the batch size: 2 <= batch and batch <= 25"),
        (Constant(), "answers the same whatever its inputs"),
        (Counts(), "its forward answers no tensor"),
        (Silent(), "passes no tensor to forward"),
    ],
)
def test_a_model_that_cannot_be_exported_gets_one_line(
    model: Any, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=line), explained():
        trace(model.eval(), record(Asked(1), model))
    assert capsys.readouterr().err == ""


class Turns(Branches):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x)


def test_complex_answers_are_refused_where_onnxruntime_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(restore, "load", lambda _: ({}, Asked(1), Turns().eval()))
    with pytest.raises(InputError, match="onnxruntime takes and returns no complex numbers"):
        export.export(tmp_path, tmp_path / "model.onnx", OPTIONS | {"format": "onnx"})
    export.export(tmp_path, tmp_path / "model.pt2", OPTIONS)


def test_the_tolerance_is_that_of_the_coarser_weights() -> None:
    half, single = nn.Linear(1, 1).half(), nn.Linear(1, 1)
    assert export._tolerance(OPTIONS, single, single) == 1e-4
    assert export._tolerance(OPTIONS | {"precision": 32}, half, single) == 1e-2
    assert export._tolerance(OPTIONS | {"quantize": "int8"}, single) is None


class Doubles(Branches):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)  # in place


def test_a_model_that_changes_its_input_is_compared_with_the_input_as_it_was() -> None:
    model = Doubles().eval()
    calls = record(Asked(1), model)
    flat, program = trace(model, calls)
    run = program.module()
    assert max(d for d, _ in differences(calls, lambda x: list(run(*flat.selected(x))))) == 0


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"format": "onxx"}, "^format=onxx: must be 'onnx', 'pt2' or 'safetensors'$"),
        ({"precision": 8}, "^precision=8: must be 32, 16 or 'bf16'$"),
        ({"quantize": "int4"}, "^quantize=int4: must be 'int8'$"),
        ({"quantize": "int8"}, "^quantize=int8: only format=onnx takes it$"),
        ({"opset": 18}, "^opset=18: only format=onnx takes it$"),
        ({"tolerance": "x"}, "^tolerance=x: must be a valid number$"),
    ],
)
def test_a_wrong_option_is_refused_with_its_choices(setting: Any, line: str) -> None:
    with pytest.raises(InputError, match=line):
        export.check(OPTIONS | setting)


@pytest.fixture
def own(own_models: None, command: Command) -> Command:
    if not has_command("export"):  # an older copy, whose engine alone was updated
        pytest.skip("src/export.py is not there")
    command.here("train", "model=quadrants", "trainer.max_epochs=2", "logger=none")
    return command


def test_a_run_is_exported_to_its_directory_and_answers_the_same(own: Command) -> None:
    path = own.latest / "model.pt2"
    relative = os.path.relpath(own.latest)
    printed = own.here("export", "format=pt2", f"run={relative}")
    assert re.search(r"^largest difference from the checkpoint: 0 ", printed, re.MULTILINE)
    assert f"exported to {relative}/model.pt2" in printed
    extra = {"kindling.json": ""}
    function = torch.export.load(path, extra_files=extra).module()
    held = json.loads(extra["kindling.json"])
    assert (held["inputs"], held["outputs"]) == (["inputs"], ["outputs"])
    assert json.loads(held["config"])["model"]["_target_"].endswith("quadrants.Quadrants")
    assert function(torch.zeros(17, 3))[0].shape == (17, 4)


def test_a_file_that_answers_otherwise_is_not_kept(
    own: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded = formats.load_pt2

    def wrong(path: Path) -> formats.Run:
        run = loaded(path)
        return lambda given: [tensor + 0.01 for tensor in run(given)]

    monkeypatch.setattr(formats, "load_pt2", wrong)
    checkpoint, output = own.latest / "checkpoints" / "best.ckpt", tmp_path / "model.pt2"
    with pytest.raises(InputError, match=r"0\.01 .*tolerance=0\.0001: nothing was written"):
        export.export(checkpoint, output, OPTIONS)
    assert not output.exists()
    export.export(checkpoint, output, OPTIONS | {"tolerance": 1})
    assert output.exists()


def test_half_precision_shows_the_metrics_before_and_after(own: Command) -> None:
    printed = own.here("export", "format=pt2", "precision=bf16")
    found = re.findall(r"^test/loss: (\S+) -> (\S+)$", printed, re.MULTILINE)
    assert len(found) == 1
    one, other = map(float, found[0])
    assert one != other
    assert one == pytest.approx(other, rel=0.05)


def test_a_link_in_place_of_the_output_is_replaced_and_not_followed(
    own: Command, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "model.pt2").symlink_to("precious")
    own.here("export", "format=pt2", f"output={tmp_path}/model.pt2")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "model.pt2").is_symlink()


@pytest.mark.services
@pytest.mark.skipif(
    not (has_command("export") and (ROOT / "src/models/fizzbuzz.py").is_file()),
    reason="the command or the FizzBuzz classifier is not there",
)
def test_onnx_plays_a_perfect_game_in_onnxruntime_alone(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    command("train", "model=fizzbuzz", "trainer.accelerator=cpu", "logger=none")
    printed = command("export", f"output={tmp_path}/fizzbuzz.onnx").stdout
    difference = re.search(r"checkpoint: (\S+) ", printed)
    assert difference is not None
    assert float(difference[1]) < 1e-5
    text = (ROOT / "src" / "kindling" / "export" / "README.md").read_text()
    [script] = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(script.splitlines()) <= 15
    assert "torch" not in script
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "100 of 100 right"
    assert "test/accuracy: 1 -> " in command("export", "quantize=int8").stdout


@pytest.mark.services
def test_onnx_names_the_operation_that_it_lacks(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")

    class Eigenvalues(Branches):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.eigvals(x[:, None] * x[:, :, None]).real

    model = Eigenvalues().eval()
    _, program = trace(model, record(Asked(1), model))
    signature = formats.Signature(["x"], ["y"], {})
    with pytest.raises(InputError, match=r"ONNX has no aten[.:]+linalg_eig"), explained():
        formats.write_onnx(program, tmp_path / "model.onnx", signature, OPTIONS)


@pytest.mark.services
def test_onnx_takes_nested_inputs(nested: tuple[Any, list[Call]], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model, calls = nested
    flat, program = trace(model, calls)
    signature = formats.Signature(["numbers", "mask", "shift"], ["value", "length"], {"a": "b"})
    with explained():
        formats.write_onnx(program, tmp_path / "model.onnx", signature, OPTIONS | {"opset": 18})
    run = formats.load_onnx(tmp_path / "model.onnx")
    off = [d for d, _ in differences(calls, lambda inputs: run(flat.selected(inputs)))]
    assert max(off) < 1e-5
    wide = Doubles().eval()
    _, program = trace(wide, record(Asked(1), wide))
    with pytest.raises(InputError, match="quantize=int8: this model has no product"), explained():
        formats.write_onnx(
            program, tmp_path / "wide.onnx", signature, OPTIONS | {"quantize": "int8"}
        )


@pytest.mark.services
def test_safetensors_hold_the_weights_alone(own: Command) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    printed = own.here("export", "format=safetensors")
    assert "\nlargest difference from the checkpoint: 0 " in printed
    weights = safetensors.load_file(str(own.latest / "model.safetensors"))
    saved = torch.load(own.latest / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert weights.keys() == saved.keys()
    assert all(torch.equal(weights[name], saved[name]) for name in saved)
