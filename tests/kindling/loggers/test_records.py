"""TensorBoard's own reader and plugins find what a run wrote: each tab, each run once."""

import json
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import pytest
import torch
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.context import RequestContext
from tensorboard.plugins.hparams import api_pb2, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context
from torch import nn

from src.kindling.loggers import records
from tests.conftest import ROOT, environment, has_room
from tests.kindling import examples
from tests.kindling.conftest import Command
from tests.kindling.examples.models.line import Line

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of what TensorBoard brings along
    from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin

QUICK = ("model=line", "trainer.accelerator=cpu")


class Reader:
    """What TensorBoard knows of a log directory, by its own reader."""

    def __init__(self, log_dir: Path) -> None:
        self.multiplexer = EventMultiplexer(size_guidance={}, tensor_size_guidance={})
        self.multiplexer.AddRunsFromDirectory(str(log_dir)).Reload()
        self.provider = MultiplexerDataProvider(self.multiplexer, str(log_dir))
        self.context = SimpleNamespace(
            data_provider=self.provider, logdir=str(log_dir), plugin_name_to_instance={}
        )

    def session_groups(self) -> list[Any]:
        """The rows of the HPARAMS tab."""
        statuses = [value for name, value in api_pb2.Status.items()]
        request = api_pb2.ListSessionGroupsRequest(allowed_statuses=statuses, slice_size=100)
        context = Context(self.context)
        groups = list_session_groups.Handler(RequestContext(), context, "", request).run()
        return list(groups.session_groups)

    def points(self, run: str, tag: str) -> list[Any]:
        """The points of a tag, whatever its plugin."""
        return list(self.multiplexer.Tensors(run, tag))

    def tags(self, plugin: str, run: str) -> set[str]:
        """The tags of a run that a tab shows."""
        return set(
            self.multiplexer.ActivePlugins()
            and self.multiplexer.GetAccumulator(run).PluginTagToContent(plugin)
        )


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A log directory with four runs: finished, with another setting, resumed, and failed."""
    command = Command(tmp_path_factory.mktemp("dashboard") / "logs")
    runs = {}
    command.here("train", *QUICK, "trainer.max_epochs=30")
    runs["plain"] = command.latest
    command.here("train", *QUICK, "trainer.max_epochs=30", "optimizer.lr=0.01", "data.noise=0.5")
    runs["other"] = command.latest
    command.here("train", *QUICK, "trainer.max_epochs=20", "data.noise=0.2")
    runs["resumed"] = command.latest
    second = int(time.time())
    while int(time.time()) == second:  # event files are read in the order of their seconds
        time.sleep(0.05)
    command.here("train", "resume=latest", "trainer.max_epochs=40")
    loss, left = Line.loss, list(range(25))

    def failing(self: Any, *arguments: Any) -> Any:
        left.pop()  # which fails after 25 batches
        return loss(self, *arguments)

    with mock.patch.object(Line, "loss", failing), pytest.raises(SystemExit):
        command.here("train", *QUICK)
    runs["failed"] = command.latest
    assert len(set(runs.values())) == 4
    return SimpleNamespace(reader=Reader(command.log_dir), runs=runs, log_dir=command.log_dir)


def name(logs: Any, which: str) -> str:
    """TensorBoard's name of a run: its path below the log directory."""
    path: Path = logs.runs[which] / "tensorboard"
    return path.relative_to(logs.log_dir.resolve()).as_posix()


def test_hparams_lists_each_run_once_with_its_last_metrics(logs: Any) -> None:
    rows = {group.name: group for group in logs.reader.session_groups()}
    # By the link `latest` the reader finds the last run twice, and it is one row all the same.
    assert "latest/tensorboard" in logs.reader.multiplexer.Runs()
    assert rows.keys() == {f"line/{path.name}" for path in logs.runs.values()}
    for path in logs.runs.values():
        found = {m.name.tag: m.value for m in rows[f"line/{path.name}"].metric_values}
        if path == logs.runs["failed"]:
            assert "train/loss" in found
            assert "test/loss" not in found
        else:
            expected = json.loads((path / "metrics.json").read_text())
            assert found == pytest.approx(expected, rel=1e-6)


def test_a_row_has_the_settings_that_runs_are_compared_by(logs: Any) -> None:
    rows = {group.name.rpartition("/")[2]: group for group in logs.reader.session_groups()}
    settings = rows[logs.runs["other"].name].hparams
    assert settings["optimizer.lr"].number_value == 0.01
    assert settings["data.noise"].number_value == 0.5  # the command line set it
    assert "data.noise" not in rows[logs.runs["plain"].name].hparams
    assert settings["model"].string_value == "line"
    assert settings["optimizer"].string_value == "SGD"
    assert settings["model.bias"].bool_value is False
    assert {"seed", "data.batch_size", "trainer.max_epochs", "scheduler"} <= set(settings)
    assert len(settings) < 20


def test_a_resumed_run_has_the_settings_of_now_and_those_of_its_start(logs: Any) -> None:
    [row] = [g for g in logs.reader.session_groups() if g.name.endswith(logs.runs["resumed"].name)]
    assert row.hparams["trainer.max_epochs"].number_value == 40
    assert row.hparams["data.noise"].number_value == 0.2


def test_the_row_of_a_run_says_how_it_ended(logs: Any) -> None:
    rows = {group.name.rpartition("/")[2]: group for group in logs.reader.session_groups()}
    status = {which: rows[path.name].sessions[0].status for which, path in logs.runs.items()}
    success, failure = (api_pb2.Status.Value(f"STATUS_{s}") for s in ("SUCCESS", "FAILURE"))
    assert status == {
        "plain": success,
        "other": success,
        "resumed": success,
        "failed": failure,
    }


@pytest.mark.parametrize("which", ["plain", "resumed"])
def test_every_chart_counts_optimizer_steps_and_none_twice(logs: Any, which: str) -> None:
    metrics = json.loads((logs.runs[which] / "metrics.json").read_text())
    trained = {"plain": 30, "resumed": 40}[which]
    tags = logs.reader.tags("scalars", name(logs, which))
    assert tags == set(metrics)
    for tag in tags:
        steps = [point.step for point in logs.reader.points(name(logs, which), tag)]
        assert steps == sorted(set(steps))
        every, after = (10, trained - 1) if not tag.startswith("test/") else (None, trained)
        assert steps[-1] == after
        if every:  # training points and validations of the same step stand at the same place
            assert {step % every for step in steps} == {9}


def test_the_layout_answers_whether_it_learns_is_fast_and_is_healthy(logs: Any) -> None:
    layout = CustomScalarsPlugin(logs.reader.context).layout_impl(RequestContext(), "")
    categories = {c["title"]: c["chart"] for c in json.loads(layout)["category"]}
    assert list(categories) == ["Is it learning?", "Is it fast?", "Is it healthy?"]
    assert categories["Is it learning?"][0]["multiline"]["tag"] == ["train/loss", "val/loss"]
    shown = {tag for charts in categories.values() for c in charts for tag in c["multiline"]["tag"]}
    logged = {t for t in logs.reader.tags("scalars", name(logs, "plain")) if t[:5] == "train"}
    assert logged <= shown


def test_configuration_and_facts_are_there_as_text(logs: Any) -> None:
    run = name(logs, "plain")
    [said] = logs.reader.points(run, "configuration/text_summary")
    [text] = said.tensor_proto.string_val
    config = (logs.runs["plain"] / "config.yaml").read_text()
    assert text.decode() == "\n".join(f"    {line}" for line in config.splitlines())
    [said] = logs.reader.points(run, "run/text_summary")
    facts = said.tensor_proto.string_val[0].decode()
    assert f"| versions.torch | {version('torch')} |" in facts


def test_the_graph_names_the_layers(logs: Any) -> None:
    for which in ("plain", "resumed"):
        graph = logs.reader.multiplexer.Graph(name(logs, which))
        assert any("weight" in node.name for node in graph.node)


class Dropping(nn.Module):
    """A network with parts in different modes, that draws random numbers while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.frozen = nn.Dropout(), nn.BatchNorm1d(3).eval()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.frozen(self.first(inputs))
        return result


def test_tracing_leaves_modes_and_random_numbers_alone() -> None:
    net, before = Dropping(), torch.get_rng_state()
    net.first.train()
    graph = GraphDef.FromString(records.graph(net, torch.zeros(1, 3)).graph_def)
    assert any("batch_norm" in node.op for node in graph.node)
    assert [net.training, net.first.training, net.frozen.training] == [True, True, False]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_that_cannot_be_traced_costs_one_line(capsys: Any, tmp_path: Path) -> None:
    from src.kindling.loggers.tensorboard import TensorBoardLogger

    class Odd(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("not with zeros\nand more")

    logger = TensorBoardLogger(str(tmp_path))
    model = Odd()
    model.example_input_array = torch.zeros(1, 1)
    logger.log_graph(model)
    logger.finalize("success")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "warning: no graph of the network, which cannot be traced: not with zeros;"
        " logger.tensorboard.graph=false leaves it out\n"
    )


class Forms(pl.LightningModule):
    """Tokens [B, T] and a mask [B, T], together or in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        features = self.embedding(tokens) * mask[..., None] * self.scale
        outputs: torch.Tensor = self.head(features.sum(1))
        return outputs


@pytest.mark.parametrize("kind", [tuple, dict])
def test_the_graph_of_any_module_is_that_of_its_example_input_array(kind: type) -> None:
    model = Forms().double()
    inputs = {"tokens": torch.zeros(1, 3, dtype=torch.long), "mask": torch.ones(1, 3)}
    model.example_input_array = inputs if kind is dict else tuple(inputs.values())
    found = records.traceable(model)
    assert found is not None
    graph = GraphDef.FromString(records.graph(*found).graph_def)
    assert any("embedding" in node.op for node in graph.node)
    assert any("head" in node.name for node in graph.node)


def test_a_module_without_example_or_in_features_has_no_graph() -> None:
    assert records.traceable(Forms()) is None


def test_weights_that_only_double_precision_holds_have_a_histogram(tmp_path: Path) -> None:
    from src.kindling.loggers.tensorboard import TensorBoardLogger

    net = nn.Linear(2, 3).double()
    nn.init.uniform_(net.weight, 1e39, 1e40)
    logger = TensorBoardLogger(str(tmp_path))
    logger.log_histograms(net, 0)
    logger.finalize("success")


def test_a_run_that_makes_every_warning_an_error_shows_none(tmp_path: Path) -> None:
    few = ("trainer.max_epochs=2", "trainer.accelerator=cpu", "model.hidden_features=16")
    words = examples.arguments("train", *few, f"log_dir={tmp_path}")
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "src.train", *words],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (done.returncode, done.stderr) == (0, "")
    names = {path.stem for path in (tmp_path / "latest" / "figures").glob("*")}
    expected = {"confusion", "calibration", "precision_recall"}
    assert names == (expected if has_room("figures") else set())
