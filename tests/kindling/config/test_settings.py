"""A configuration is checked against the code that it configures before anything is built."""

import copy
import functools
import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from src.kindling import layout
from src.kindling.cli import command, composition
from src.kindling.config import signatures, untrusted
from src.kindling.config.settings import validate
from src.kindling.errors import InputError, nearest
from tests.kindling import examples
from tests.kindling.conftest import compose, options

MODELS = options("model")
_composed = functools.cache(compose)


def composed(*overrides):
    """The resolved configuration of a training run, the caller's to change."""
    return copy.deepcopy(_composed(*overrides))


def changed(changes, *overrides):
    """The same with some keys, given dotted, set to other values."""
    whole = composed(*overrides)
    for dotted, value in changes.items():
        *parents, key = dotted.split(".")
        functools.reduce(lambda node, name: node[name], parents, whole)[key] = value
    return whole


def problems(changes, *overrides):
    """What `validate` has against a configuration, by dotted key."""
    with pytest.raises(InputError) as refusal:
        validate(changed(changes, *overrides))
    lines = str(refusal.value).split("; ")
    assert "\n" not in str(refusal.value)
    return {re.split("[=:]", line)[0]: line for line in lines}


# What is right ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_every_model_composes_to_a_valid_configuration(model):
    whole = composed(f"model={model}")
    validate(whole)
    assert layout.model_stem(whole) == model
    assert whole["data"]["_target_"].startswith(f"{examples.__name__}.data.{model}.")


@pytest.mark.parametrize("model", MODELS)
def test_a_resolved_configuration_is_plain_data_with_nothing_to_interpolate(model):
    whole = composed(f"model={model}")
    assert json.loads(json.dumps(whole)) == whole
    assert yaml.safe_load(yaml.safe_dump(whole)) == whole
    assert "${" not in json.dumps(whole)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.lr", 1),
        ("optimizer.betas", [0.5, 0.9]),
        ("data.val_fraction", 0),
        ("data.in_features", 2),
        ("data.in_features", 24),
        ("trainer.max_epochs", None),
        ("trainer.devices", [0]),
        ("trainer.devices", "auto"),
        ("trainer.limit_train_batches", 0.5),
        ("trainer.limit_train_batches", 3),
        ("trainer.fast_dev_run", True),
        ("trainer.fast_dev_run", 3),
        ("trainer.deterministic", "warn"),
        ("trainer.precision", "bf16-mixed"),
        ("trainer.precision", 64),
        ("trainer.profiler", "simple"),
        ("trainer.gradient_clip_val", 1),
        ("seed", 0),
        ("seed", 2**32 - 1),
        ("threads", None),
        ("threads", 4),
        ("resume", "latest"),
        ("compile", True),
        ("steps_per_execution", 8),
    ],
)
def test_takes(key, value):
    whole = changed({key: value})
    before = copy.deepcopy(whole)
    validate(whole)
    assert whole == before


# What is wrong ----------------------------------------------------------------------------------

WRONG_TYPE = [
    ("model.hidden_features", "wide"),
    ("model.hidden_features", 2.5),
    ("model.hidden_features", [3]),
    ("model.hidden_features", {"a": 3}),
    ("model.bias", "perhaps"),
    ("data.batch_size", "many"),
    ("data.val_fraction", "half"),
    ("data.shuffle", 2),
    ("optimizer.lr", "fast"),
    ("optimizer.betas", 0.9),
    ("optimizer.betas", [0.9]),
    ("optimizer.betas", ["a", "b"]),
    ("scheduler.pct_start", "early"),
    ("trainer.max_epochs", "abc"),
    ("trainer.max_epochs", 2.5),
    ("trainer.accelerator", 5),
    ("trainer.deterministic", "perhaps"),
    ("callbacks.progress.seconds_per_line", "often"),
    ("logger.tensorboard.flush_secs", "often"),
    ("seed", "abc"),
    ("seed", 1.5),
    ("log_dir", 5),
    ("resume", 5),
    ("compile", "perhaps"),
    ("threads", "all"),
    ("steps_per_execution", 1.5),
]
OUT_OF_RANGE = [
    ("model.hidden_features", 0),
    ("model.hidden_features", -100),
    ("model.in_features", 0),
    ("data.in_features", 1),
    ("data.in_features", 25),
    ("data.batch_size", 0),
    ("data.val_fraction", 1.0),
    ("data.val_fraction", -0.1),
    ("data.val_fraction", float("nan")),
    ("model.dropout", -0.1),
    ("model.dropout", 1.0),
    ("scheduler.pct_start", 0.0),
    ("scheduler.pct_start", 1.0),
    ("callbacks.progress.seconds_per_line", 0.0),
    ("callbacks.checkpointing.mode", "most"),
    ("trainer.precision", "12-true"),
    ("seed", -1),
    ("seed", 2**32),
    ("threads", 0),
    ("steps_per_execution", 0),
]
NULL = [
    ("model.in_features", None),
    ("model.bias", None),
    ("data.batch_size", None),
    ("data.shuffle", None),
    ("data.seed", None),
    ("optimizer.lr", None),
    ("trainer.accelerator", None),
    ("trainer.accumulate_grad_batches", None),
    ("seed", None),
    ("log_dir", None),
    ("compile", None),
    ("steps_per_execution", None),
]
BOOL_FOR_NUMBER = [
    ("model.hidden_features", True),
    ("data.batch_size", True),
    ("data.val_fraction", False),
    ("data.seed", False),
    ("optimizer.lr", True),
    ("optimizer.betas", [True, 0.9]),
    ("scheduler.pct_start", True),
    ("trainer.max_epochs", True),
    ("trainer.limit_train_batches", True),
    ("seed", True),
    ("threads", True),
    ("steps_per_execution", True),
]
# Pydantic can read these; the constructors get the text as it is, and every text counts as true.
TEXT_FOR_SOMETHING_ELSE = [
    ("model.hidden_features", "100"),
    ("model.bias", "no"),
    ("data.batch_size", "64"),
    ("data.val_fraction", "0.1"),
    ("data.shuffle", "off"),
    ("optimizer.lr", "0.1"),
    ("trainer.max_epochs", "3"),
    ("trainer.detect_anomaly", "no"),
    ("seed", "5"),
    ("threads", "2"),
    ("compile", "no"),
    ("steps_per_execution", "2"),
]


@pytest.mark.parametrize(
    ("key", "value"),
    [*WRONG_TYPE, *OUT_OF_RANGE, *NULL, *BOOL_FOR_NUMBER, *TEXT_FOR_SOMETHING_ELSE],
)
def test_refuses_and_names_the_key(key, value):
    assert list(problems({key: value})) == [key]


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [
        ("line", "data.noise", -0.1),
        ("line", "model.bias", "none"),
        ("line", "data.rows", 0),
        ("teacher", "data.targets", "noise"),
        ("teacher", "data.targets", None),
        ("teacher", "model.reduction", "max"),
        ("teacher", "model.hidden_features", 1.5),
    ],
)
def test_refuses_for_the_other_models_and_names_the_key(model, key, value):
    assert list(problems({key: value}, f"model={model}")) == [key]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("model.hiden_features", "hidden_features"),
        ("model.in_feature", "in_features"),
        ("data.batchsize", "batch_size"),
        ("data.shufle", "shuffle"),
        ("optimizer.weight_deacy", "weight_decay"),
        ("scheduler.pct_strat", "pct_start"),
        ("trainer.max_epoch", "max_epochs"),
        ("trainer.accelerater", "accelerator"),
        ("callbacks.progress.second_per_line", "seconds_per_line"),
        ("callbacks.progres", "progress"),
        ("logger.tensorboard.flush_sec", "flush_secs"),
        ("sede", "seed"),
        ("thread", "threads"),
        ("step_per_execution", "steps_per_execution"),
    ],
)
def test_names_the_unknown_key_and_the_one_that_was_meant(key, meant):
    found = problems({key: 3})
    assert list(found) == [key]
    assert f"'{meant}'" in found[key]


def test_names_an_unknown_key_that_is_like_no_other():
    found = problems({"model.zzz": 3})
    assert "hidden_features" in found["model.zzz"]  # one of few, so all are listed


@pytest.mark.parametrize(
    "keys",
    [
        ["model.hidden_features", "data.batch_size", "trainer.max_epochs", "optimizer.lr"],
        ["seed", "threads", "steps_per_execution"],
        ["seed", "optimizer.lr", "data.batch_size"],
        ["model.hidden_features", "model.in_features"],
    ],
)
def test_reports_all_problems_together(keys):
    assert sorted(problems(dict.fromkeys(keys, "wrong"))) == sorted(keys)


@pytest.mark.parametrize(
    "group", ["model", "data", "optimizer", "scheduler", "trainer", "logger", "callbacks"]
)
def test_names_a_group_that_is_missing_or_no_group(group):
    whole = composed()
    del whole[group]
    with pytest.raises(InputError, match=f"^{group}"):
        validate(whole)
    assert list(problems({group: 3})) == [group]


@pytest.mark.parametrize(
    "target",
    ["src.kindling.Nothing", "src.nothing.Net", "nothing", "", ".", "src..kindling.Net", 3],
)
def test_names_a_target_that_is_not_there(target):
    assert list(problems({"model._target_": target})) == ["model._target_"]


def test_a_callback_without_a_target_is_left_with_all_others_and_else_refused():
    settings = {"callbacks.checkpointing": {"every_n_epochs": 5}}  # an experiment's
    validate(changed(settings, "callbacks=none"))
    refused = problems(settings)["callbacks.checkpointing"]
    assert refused.startswith("callbacks.checkpointing: has no _target_: choose from")
    line = "callbacks.progress=null: write ~callbacks.progress to leave it out"
    assert problems({"callbacks.progress": None}) == {"callbacks.progress": line}


def test_a_value_that_is_long_is_cut_short_in_the_message():
    assert len(problems({"model.hidden_features": "x" * 5000})["model.hidden_features"]) < 300


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("compile", "no", "must be true or false"),
        ("model.bias", "true", "must be true or false"),
        ("trainer.deterministic", "no", "must be true or false or 'warn'"),
        ("trainer.devices", 1.5, "must be a valid list, a valid string or a valid integer"),
        ("trainer.devices", ["a"], "[0] must be a valid integer"),
        ("optimizer.betas", [0.9], "[1] is missing"),
        ("callbacks.checkpointing.mode", "most", "must be 'min' or 'max'"),
        ("data.in_features", 1, "must be greater than or equal to 2"),
    ],
)
def test_says_what_would_be_right_in_one_sentence(key, value, said):
    assert problems({key: value})[key].partition(": ")[2] == said


@pytest.mark.parametrize("key", ["offline", "project"])
def test_an_annotation_that_cannot_be_read_leaves_the_others_to_be_checked(key):
    logger = {"_target_": "lightning.pytorch.loggers.WandbLogger", key: 3}
    assert list(problems({"logger": {"wandb": logger}})) == [f"logger.wandb.{key}"]


# A user's own model -----------------------------------------------------------------------------

SOURCE = """
from typing import Annotated, Literal
from pydantic import Field, PositiveInt

class Model:
    def __init__(
        self,
        width: PositiveInt,
        rate: Annotated[float, Field(gt=0, lt=1)] = 0.5,
        mode: Literal["fast", "exact"] = "fast",
        names: list[str] | None = None,
        flag: bool = False,
        anything=None,
    ):
        raise AssertionError("a configuration is checked without building anything")
"""


@pytest.fixture(params=["", "from __future__ import annotations"], ids=["plain", "postponed"])
def own(request, tmp_path, monkeypatch):
    """The dotted name of a class that is not the project's."""
    (tmp_path / "kindling_own_model.py").write_text(request.param + SOURCE)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "own.yaml").write_text("_target_: kindling_own_model.Model")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with layout.added_folders([tmp_path, examples.CONF]):
        yield "kindling_own_model.Model"
    sys.modules.pop("kindling_own_model", None)


@pytest.mark.parametrize(
    "arguments",
    [
        {"width": 3},
        {"width": 3, "rate": 0.1, "mode": "exact", "names": ["a"], "flag": True},
        {"width": 3, "names": None, "anything": {"deep": [1, None]}},
    ],
)
def test_a_users_own_model_is_taken_by_its_annotations(own, arguments):
    validate(changed({"model": {"_target_": own, **arguments}}))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("width", 0, "greater than 0"),
        ("width", None, "integer"),
        ("width", True, "true"),
        ("rate", 1.0, "less than 1"),
        ("mode", "slow", "'fast' or 'exact'"),
        ("names", "a", "list|array"),
        ("names", [1], "string"),
        ("flag", None, "must be true or false"),
        ("wide", 3, "'width'"),
    ],
)
def test_a_users_own_model_is_refused_by_its_annotations(own, key, value, said):
    found = problems({"model": {"_target_": own, "width": 3, key: value}})
    assert list(found) == [f"model.{key}"]
    assert re.search(said, found[f"model.{key}"])


# Interpolation ----------------------------------------------------------------------------------


def test_resolved_carries_every_interpolation_out():
    assert composition.resolved(OmegaConf.create({"a": "${b.c}", "b": {"c": [1, 2]}})) == {
        "a": [1, 2],
        "b": {"c": [1, 2]},
    }


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"a": "${data.width}"}, "data.width"),
        ({"a": "${oc.env:KINDLING_IS_NOT_SET}"}, "KINDLING_IS_NOT_SET"),
        ({"a": "???"}, "a"),
    ],
)
def test_resolved_names_what_cannot_be_carried_out(content, named):
    with pytest.raises(InputError, match=re.escape(named)):
        composition.resolved(OmegaConf.create(content))


# nearest ----------------------------------------------------------------------------------------

WORDS = st.lists(st.text("abcdefgh_.", min_size=1, max_size=12), min_size=1, max_size=15)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(choices=WORDS, data=st.data())
def test_nearest_to_a_choice_is_the_choice_itself(choices, data):
    word = data.draw(st.sampled_from(choices))
    assert nearest(word, choices) == f": did you mean {word!r}?"


@pytest.mark.parametrize(
    ("word", "choices", "answer"),
    [
        ("adaw", ["sgd", "adamw", "muon"], ": did you mean 'adamw'?"),
        ("max_epoch", ["seed", "trainer.max_epochs"], ": did you mean 'trainer.max_epochs'?"),
        (
            "val/loss",
            ["train/loss", "val/loss/dataloader_idx_0"],
            ": did you mean 'val/loss/dataloader_idx_0'?",
        ),
        ("zzz", ["adam", "sgd"], ": choose from adam, sgd"),
        ("zzz", [f"option{n}" for n in range(50)], ""),
        ("zzz", [], ""),
    ],
)
def test_nearest_names_the_choice_that_was_meant_or_the_few_there_are(word, choices, answer):
    assert nearest(word, choices) == answer


# What may be rebuilt from a file ----------------------------------------------------------------

SOURCE_FILE = Path("somewhere") / "best.ckpt"
QUADRANTS = "tests.kindling.examples.models.quadrants.Quadrants"
HOSTILE = [
    "os.system",
    "posix.system",
    "builtins.eval",
    "builtins.exec",
    "builtins.__import__",
    "subprocess.Popen",
    "subprocess.run",
    "shutil.rmtree",
    "pickle.loads",
    "numpy.load",
    "torch.load",
    "torch.hub.load",
    "torch.optim",
    "hydra.utils.instantiate",
    "src.models.torch.load",
    "src.kindling.optimizers.torch.load",
    "src.kindling.config.settings.importlib.import_module",
    "tests.kindling.examples.models.quadrants",
    f"{QUADRANTS}.load_from_checkpoint",
    "lightning.pytorch.Trainer.fit",
    f"{QUADRANTS} ",
    f" {QUADRANTS}",
    "tests.kindling.examples.models.quadrants.quadrants",
    f"{QUADRANTS}\x00",
    "",
    None,
    3,
    b"os.system",
    ["os.system"],
    [QUADRANTS],
    {"_target_": QUADRANTS},
    {"name": "os.system"},
]
PLACES = {
    "a group": lambda node: {"model": node},
    "the top": lambda node: node,
    "below a good one": lambda node: {
        "model": {
            "_target_": "tests.kindling.examples.models.quadrants.Quadrants",
            "optimizer": node,
        }
    },
    "a list": lambda node: {"callbacks": [1, {"deep": [[node]]}]},
    "a tuple": lambda node: {"callbacks": ({"deep": (node,)},)},
    "its arguments": lambda node: {"data": {"_args_": [node]}},
}


def allowed_targets():
    return {value for _, key, value in untrusted.allowed_targets() if key == "_target_"}


def refusal_of(content):
    with pytest.raises(InputError) as refusal:
        untrusted.check(content, SOURCE_FILE)
    assert str(SOURCE_FILE) in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("target", HOSTILE, ids=repr)
def test_refuses_targets_that_are_not_in_conf(target):
    assert repr(target) in refusal_of({"model": {"_target_": target, "command": "true"}})


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("target", ["os.system", ["os.system"]], ids=repr)
def test_refuses_them_wherever_they_stand(target, place):
    content = PLACES[place]({"_target_": target, "command": "true"})
    assert repr(target) in refusal_of(content)


@pytest.mark.parametrize("change", ["{}x", "{}.__init__", "x.{}", " {}", "{} ", "{}."])
def test_refuses_targets_that_are_almost_in_conf(change):
    target = change.format(max(allowed_targets()))
    assert repr(target) in refusal_of({"model": {"_target_": target}})


@pytest.mark.parametrize(
    "text",
    ["${oc.env:HOME}", "a ${seed} b", "${", "\\${seed}", "${oc.decode:1}", "${eval:1}"],
)
@pytest.mark.parametrize(
    "place",
    [
        lambda text: {"model": {"name": text}},
        lambda text: {"name": text},
        lambda text: {"callbacks": [[{"names": ("a", text)}]]},
        lambda text: {"model": {"_target_": text}},
    ],
    ids=["a group", "the top", "a list", "a target"],
)
def test_refuses_what_is_still_to_interpolate(place, text):
    assert re.search("an interpolation is not allowed|not in conf/", refusal_of(place(text)))


@pytest.mark.parametrize("content", [None, [], [{"model": 1}], "text", 3, b"bytes"])
def test_refuses_what_is_not_a_configuration(content):
    assert "holds no configuration" in refusal_of(content)


def test_imports_nothing_that_a_refused_configuration_names(tmp_path, monkeypatch):
    (tmp_path / "kindling_trap.py").write_text(
        "import pathlib; pathlib.Path(__file__).with_name('sprung').touch()"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    refusal_of({"model": {"_target_": "kindling_trap.Model"}})
    assert "kindling_trap" not in sys.modules
    assert not (tmp_path / "sprung").exists()
    signatures.locate("kindling_trap.pathlib")  # the trap does work
    assert (tmp_path / "sprung").exists()
    sys.modules.pop("kindling_trap")


@pytest.mark.parametrize("model", MODELS)
def test_trusts_a_configuration_that_this_project_made(model):
    whole = composed(f"model={model}", "logger=[tensorboard,csv,wandb,mlflow,dvclive]")
    assert untrusted.check(copy.deepcopy(whole), SOURCE_FILE) == whole


def test_allowed_targets_are_those_that_stand_in_conf():
    found = [path for folder in layout.conf_folders() for path in folder.rglob("*.yaml")]
    texts = [path.read_text() for path in found]
    written = {
        target
        for text in texts
        for target in re.findall(r"^\s*(?:- )?_target_:\s*([\w.]+)\s*(?:#.*)?$", text, re.M)
    }
    assert sum(text.count("_target_") for text in texts) >= len(written) > len(MODELS)
    assert allowed_targets() == written


def test_a_conf_without_targets_is_none_of_this_project(tmp_path, monkeypatch):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    monkeypatch.setattr(layout, "CONF", tmp_path)
    with layout.added_folders([]), pytest.raises(InputError, match="_target_"):
        allowed_targets()


# Errors in one line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("seed=-1: too small"), 2, "error: seed=-1: too small"),
        (KeyboardInterrupt(), 130, "error: interrupted before anything was saved"),
        (RuntimeError("one\ntwo"), 1, "error: RuntimeError: one"),
        (RuntimeError(), 1, "error: RuntimeError: RuntimeError"),
    ],
)
def test_an_error_is_one_line_and_an_exit_status(monkeypatch, capsys, error, status, line):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as stop, command.one_line_errors():
        raise error
    assert stop.value.code == status
    assert capsys.readouterr() == ("", line + "\n")


def test_a_failure_while_running_names_the_log_with_the_traceback(monkeypatch, capsys):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    error = RuntimeError("no memory")
    error.run_log = Path("logs") / "run.log"
    with pytest.raises(SystemExit) as stop, command.one_line_errors():
        raise error
    assert stop.value.code == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert str(error.run_log) in text


@pytest.mark.parametrize("status", [130, 143])
def test_an_exit_keeps_its_status(status):
    with pytest.raises(SystemExit) as stop, command.one_line_errors():
        raise SystemExit(status)
    assert stop.value.code == status


def test_settings_are_flattened_with_all_the_keys_that_lead_to_them():
    nested = {"a": 1, "b": {"c": {"d": [2], "e": None}, "f": {}}}
    assert layout.flat(nested) == {"a": 1, "b.c.d": [2], "b.c.e": None, "b.f": {}}
