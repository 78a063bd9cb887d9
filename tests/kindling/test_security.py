"""Files from strangers: none runs code, fills the memory or writes elsewhere; a line says so."""

import copy
import csv
import importlib
import io
import json
import re
import struct
import sys
import tarfile
import zipfile

import pytest
import torch
import yaml

from src.kindling import build
from src.kindling.config import untrusted
from src.kindling.config.signatures import locate
from src.kindling.files import output
from src.kindling.process.memory import total_memory
from tests.conftest import ROOT
from tests.kindling import examples
from tests.kindling.config.test_settings import HOSTILE, QUADRANTS
from tests.kindling.conftest import compose, options
from tests.kindling.files.test_checkpoint import Hostile

MODELS = options("model")


class Stranger:
    """Plants run directories, and has the commands read them in this process."""

    def __init__(self, folder, patch, capfd):
        self.folder, self.patch, self.capfd = folder, patch, capfd
        self.trace, self.run = folder / "trace", folder / "run"
        self.checkpoint = self.run / "checkpoints" / "best.ckpt"
        self.checkpoint.parent.mkdir(parents=True)

    def plant(self, content=None, config=None):
        """Write a run of these, given as data or as what the files hold."""
        config = yaml.safe_dump(honest()["config"]) if config is None else config
        (self.run / "config.yaml").write_text(config, encoding="utf-8")
        content = honest() if content is None else content
        if isinstance(content, bytes):
            self.checkpoint.write_bytes(content)
        else:
            torch.save(content, self.checkpoint)
        self.checkpoint.with_name("last.ckpt").write_bytes(self.checkpoint.read_bytes())

    def runs(self, name, *arguments):
        """Return the exit status of a command, and what it said."""
        words = [
            f"src/{name}.py",
            *examples.arguments(name, *arguments),
            f"log_dir={self.folder / 'logs'}",
        ]
        self.patch.setattr(sys, "argv", words)
        try:
            importlib.import_module(f"src.{name}").main()
        except SystemExit as stop:
            return stop.code, self.capfd.readouterr()
        return 0, self.capfd.readouterr()

    def refused(self, name, *arguments):
        """Return the one line of a refusal, which has had no effect."""
        before = sorted(self.folder.rglob("*"))
        status, said = self.runs(name, *arguments)
        assert (status, said.out) == (2, ""), said.err
        assert re.fullmatch(r"error: [^\n]+\n", said.err)
        assert sorted(self.folder.rglob("*")) == before
        assert not self.trace.exists()
        return said.err

    def refused_by(self, *names):
        """Return the refusals of commands that read a run, by default of all."""
        keys = {"train": "resume", "evaluate": "run", "predict": "run"}
        return [self.refused(name, f"{keys[name]}={self.run}") for name in names or keys]


@pytest.fixture
def stranger(tmp_path, monkeypatch, capfd):
    return Stranger(tmp_path, monkeypatch, capfd)


CONTENTS = {}


def honest(model="quadrants"):
    """What a checkpoint of this project holds, as far as it is read to rebuild model and data."""
    if model not in CONTENTS:
        settings = compose(f"model={model}", "trainer.accelerator=cpu", "logger=none")
        data, module = build.build_data(settings), build.build_model(settings)
        CONTENTS[model] = {
            "state_dict": module.state_dict(),
            "config": settings,
            "hyper_parameters": dict(module.hparams),
            "datamodule_hyper_parameters": dict(data.hparams),
        }
    return copy.deepcopy(CONTENTS[model])


def classes(model):
    config = honest(model)["config"]
    return [locate(config[group]["_target_"]) for group in ("model", "data")]


@pytest.mark.parametrize("model", MODELS)
def test_an_honest_file_is_read(stranger, model):
    stranger.plant(honest(model))
    for name in ("evaluate", "predict"):
        status, said = stranger.runs(name, f"run={stranger.checkpoint}")
        assert (status, said.err) == (0, "")
    for kind in classes(model):
        assert isinstance(kind.load_from_checkpoint(stranger.checkpoint), kind)


# Code ---------------------------------------------------------------------------------------------


def pickled(form, content):
    file = io.BytesIO()
    if form == "tar":
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("storages"))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
@pytest.mark.parametrize("form", ["zip", "legacy", "tar"])
@pytest.mark.parametrize("key", ["config", "callbacks"])
def test_a_pickle_runs_no_code(stranger, monkeypatch, form, key):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    stranger.plant(pickled(form, {**honest(), key: {"x": Hostile(stranger.trace)}}))
    for said in stranger.refused_by():
        assert "is not a checkpoint of plain data" in said
    for kind in classes("quadrants"):
        with pytest.raises(ValueError, match="is not a checkpoint of plain data"):
            kind.load_from_checkpoint(stranger.checkpoint)
        with pytest.raises((ValueError, TypeError)):
            kind.load_from_checkpoint(stranger.checkpoint, weights_only=False)
    assert not stranger.trace.exists()


def test_the_real_command_says_it_too(command, stranger):
    stranger.plant({**honest(), "callbacks": Hostile(stranger.trace)})
    done = command("evaluate", f"run={stranger.checkpoint}", status=2)
    assert re.fullmatch(r"error: .* is not a checkpoint of plain data: [^\n]*\n", done.stderr)
    assert not stranger.trace.exists()


TAGS = [
    "!!python/object/apply:pathlib.Path.touch [{trace}]",
    "!!python/object/apply:os.system ['touch {trace}']",
    "!!python/object/new:pathlib.Path [{trace}]",
    "!!python/object:src.kindling.errors.InputError {{}}",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/tuple [1]",
    "!touch {trace}",
    "!!binary a",
    "!!timestamp 2001-99-99",
    "2001-99-99",
    "!!int ten",
    "!!set {{os.system}}",
    "!!omap [_target_: os.system]",
    "2001-01-01",
    "{{[1]: 2}}",
    "*unknown",
    "&a [*a]",
    "\x07",
    "9" * 5000,
    "[" * 2000,
]


@pytest.mark.parametrize("tag", TAGS, ids=lambda tag: tag[:30])
def test_a_yaml_tag_takes_no_effect(stranger, tag):
    text = yaml.safe_dump({**honest()["config"], "seed": "HERE"})
    stranger.plant(config=text.replace("HERE", tag.format(trace=stranger.trace)))
    assert re.search("config.yaml|seed", stranger.refused("train", f"resume={stranger.run}"))


# What is rebuilt ----------------------------------------------------------------------------------


def planted(stranger, change):
    """Plant the same change of the configuration in config.yaml and in the checkpoint."""
    content = honest()
    change(content["config"])
    try:
        text = yaml.safe_dump(content["config"])
    except (yaml.YAMLError, RecursionError):  # not all that a checkpoint holds is YAML
        text = "{}"
    stranger.plant(content, text)


@pytest.mark.parametrize("target", [t for t in HOSTILE if t is not None], ids=repr)
def test_a_target_that_is_not_in_conf_is_not_built(stranger, target):
    def change(config):
        config["callbacks"]["new"] = {"_target_": target, "self": str(stranger.trace)}

    planted(stranger, change)
    for said in stranger.refused_by("train", "evaluate"):
        assert "_target_ of callbacks" in said


def put(*place, **values):
    """Return a change that puts values at a place of a configuration."""

    def change(config):
        for key in place:
            config = config.setdefault(key, {})
        config.update(values)

    return change


def nested(levels, wrap):
    node = "x"
    for _ in range(levels):
        node = wrap(node)
    return node


def circle():
    node = {}
    node["again"] = node
    return node


NO_CONFIGURATIONS = {
    # what is changed -> what the line must name
    "an optimizer as model": (put("model", _target_="torch.optim.SGD"), "torch.optim.SGD"),
    "a trainer as data": (put("data", _target_="lightning.pytorch.Trainer"), "Trainer"),
    "a model as optimizer": (put("optimizer", _target_=QUADRANTS), "Quadrants"),
    "a trainer as callback": (put("callbacks", "x", _target_="lightning.pytorch.Trainer"), "Trai"),
    "a model in a model": (put("model", "net", _target_="torch.optim.SGD"), "torch.optim.SGD"),
    "a target below a list": (put("data", rows=[[{"_target_": "os.system"}]]), "os.system"),
    "arguments by place": (put("model", _args_=[10**12]), "_args_ of model"),
    "a partial model": (put("model", _partial_=True), "_partial_ of model"),
    "an optimizer made at once": (put("optimizer", _partial_=False), "_partial_ of optimizer"),
    "recursion": (put("trainer", _recursive_=False), "_recursive_ of trainer"),
    "conversion": (put("data", _convert_="object"), "_convert_ of data"),
    "an unknown instruction": (put("data", _call_="os.system"), "_call_ of data"),
    "the environment": (put("model", name="${oc.env:HOME}"), "${oc.env:HOME}"),
    "no model": (lambda config: config.pop("model"), "no _target_ for model"),
    "a model that is text": (lambda config: config.update(model="x"), "no _target_ for model"),
    "a trainer that is empty": (lambda config: config.update(trainer={}), "for trainer"),
    "a key that is a number": (lambda config: config.update({1: 2}), "an invalid key: 1"),
    "a key of two lines": (lambda config: config.update({"a\nerror: b": 2}), "invalid key"),
    "a very long key": (lambda config: config.update({"a" * 10**6: 2}), "invalid key"),
    "very deep": (put("data", rows=nested(100, lambda node: [node])), "too large"),
    "lists of lists": (put("data", rows=nested(15, lambda node: [node] * 100)), "contains itself"),
    "a circle": (put("data", rows=circle()), "contains itself"),
    "a long list": (put("data", rows=list(range(20_000))), "too large"),
    "a long text": (put("data", rows="x" * 10**6), "data.rows"),
    "a tensor": (put("data", rows=torch.ones(2)), "a Tensor, which is not plain data"),
    "a set": (put("data", rows={1, 2}), "a set, which is not plain data"),
    "an escape": (put("data", rows="\x1b]0;x\x07"), "data.rows"),
}


@pytest.mark.parametrize("kind", NO_CONFIGURATIONS)
def test_what_this_project_would_not_have_written_is_named(stranger, kind):
    change, named = NO_CONFIGURATIONS[kind]
    planted(stranger, change)
    resumed, (said,) = stranger.refused_by("train"), stranger.refused_by("evaluate")
    assert resumed
    assert named in said
    assert len(said) < 2500


def test_instructions_are_those_of_their_group():
    told = untrusted.allowed_targets()
    assert {("optimizer", "_partial_", True), ("model", "_target_", classes("quadrants")[0])} - {
        (group, key, value if key != "_target_" else locate(value)) for group, key, value in told
    } == set()
    partial = {group for group, key, _ in told if key == "_partial_"}
    of_studies = {"study", "sampler", "pruner"}
    assert partial - of_studies == {"optimizer", "scheduler"}


# Sizes --------------------------------------------------------------------------------------------

HUGE = {
    # model -> places that are set, and the size
    "quadrants": [
        (["model.hidden_features"], 10**12),
        (["model.hidden_features"], 10**7),
        (["model.hidden_features"], 10**30),
        (["model.in_features", "data.in_features"], 40),
        (["data.in_features"], -1),
        (["data.in_features"], "many"),
    ],
    "teacher": [
        (["model.hidden_features"], 10**9),
        (["model.in_features"], 10**10),
    ],
}
ARGUMENTS = {"model": "hyper_parameters", "data": "datamodule_hyper_parameters"}


@pytest.mark.parametrize(
    ("model", "places", "size"), [(model, *case) for model in HUGE for case in HUGE[model]]
)
def test_a_size_is_checked_before_it_is_allocated(stranger, monkeypatch, model, places, size):
    monkeypatch.setattr("src.kindling.build.total_memory", lambda: 2**34)
    content = honest(model)
    for place in places:
        group, _, name = place.partition(".")
        content["config"][group][name] = content[ARGUMENTS[group]][name] = size
    stranger.plant(content, yaml.safe_dump(content["config"]))
    stranger.refused_by("train", "evaluate")
    for group, kind in zip(ARGUMENTS, classes(model), strict=True):
        if any(place.startswith(group) for place in places):
            with pytest.raises((ValueError, TypeError, RuntimeError)):
                kind.load_from_checkpoint(stranger.checkpoint)


def test_memory_is_what_this_machine_has():
    assert 2**28 < total_memory() < 2**50


def test_a_model_that_needs_numbers_to_be_built_is_still_loaded(tmp_path):
    model = classes("quadrants")[0]

    class Scaled(model):
        def __init__(self, in_features: int = 3, **others) -> None:
            super().__init__(in_features, **others)
            self.scale = torch.linspace(0, 1, in_features)[-1].item()

    content = honest()
    content["hyper_parameters"].pop("in_features")
    torch.save(content, tmp_path / "a.ckpt")
    assert Scaled.load_from_checkpoint(tmp_path / "a.ckpt").scale == 1


# Archives -----------------------------------------------------------------------------------------


def repacked(edit=lambda name, data: data, extra=(), compression=zipfile.ZIP_STORED, tail=True):
    """Return an honest checkpoint with its members edited, ending as torch ends a file."""
    whole, packed = io.BytesIO(), io.BytesIO()
    torch.save(honest(), whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(packed, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, edit(name, old.read(name)))
        for name, data in extra:
            new.writestr(name, data)
    return with_tail(packed.getvalue()) if tail else packed.getvalue()


def with_tail(packed):
    body, end = packed[:-22], packed[-22:]
    count, size, place = struct.unpack("<10xHLL2x", end)
    record = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, place)
    return body + record + struct.pack("<4sLQL", b"PK\6\7", 0, len(body), 1) + end


def bomb(name):
    def edit(member, data):
        return data + bytes(2**24) if member.endswith(name) else data

    return repacked(edit, compression=zipfile.ZIP_DEFLATED)


def overlapping():
    packed = repacked(tail=False)
    place = struct.unpack("<16xL2x", packed[-22:])[0]
    directory = packed[place:-22]
    count, size = struct.unpack("<10xHL6x", packed[-22:])
    end = struct.pack("<4s4xHHLLH", b"PK\5\6", 9 * count, 9 * count, 9 * size, place, 0)
    return with_tail(packed[:place] + 9 * directory + end)


def elsewhere():
    """An archive of two directories: which is found depends on the reader."""
    packed = bytearray(repacked())
    packed[-34:-26] = struct.pack("<Q", 0)
    return bytes(packed)


ARCHIVES = {
    "a bomb in the pickle": (lambda: bomb("data.pkl"), "is compressed"),
    "a bomb in a tensor": (lambda: bomb("data/0"), "is compressed"),
    "members that overlap": (lambda: overlapping(), "overlap"),
    "a member above": (lambda: repacked(extra=[("../../trace", b"")]), "outside"),
    "a member at the root": (lambda: repacked(extra=[("/tmp/trace", b"")]), "outside"),
    "a member above, inside": (lambda: repacked(extra=[("archive/../../trace", b"")]), "outside"),
    "a plain zip": (lambda: repacked(tail=False), "as torch ends a file"),
    "something before": (lambda: b"PK\x03\x04" + repacked(), "as torch ends a file"),
    "another directory": (lambda: elsewhere(), "as torch ends a file"),
    "a comment": (lambda: repacked(tail=False)[:-2] + b"\1\0x", "as torch ends a file"),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_that_torch_would_not_write_is_not_opened(stranger, monkeypatch, kind):
    content, named = ARCHIVES[kind]
    stranger.plant(content())
    monkeypatch.setattr(torch, "load", pytest.fail)  # nothing is expanded to find out
    assert all(named in said for said in stranger.refused_by("train", "evaluate"))


def test_the_archives_of_these_tests_are_as_torch_writes_them_but_for_one_thing(stranger):
    stranger.plant(repacked())
    assert stranger.runs("evaluate", f"run={stranger.run}")[0] == 0


class Rebuilt:
    """A tensor that is pickled as the call that makes it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


BIG = 10**11
TENSORS = {
    "repeated": lambda: torch.zeros(1).expand(BIG),
    "sparse": lambda: torch.zeros(BIG, layout=torch.sparse_coo),
    "without numbers": lambda: torch.empty(BIG, device="meta"),
    "made up": lambda: Rebuilt(torch.FloatTensor, BIG),
    "repeated, then moved": lambda: Rebuilt(
        torch._utils._rebuild_device_tensor_from_cpu_tensor,
        torch.zeros(1).expand(BIG),
        torch.float64,
        "cpu",
        False,
    ),
    "many names of one": lambda: nested(40, lambda node: [node, node]),
}


@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("key", ["state_dict", "callbacks"])
def test_a_tensor_is_not_larger_than_its_file(stranger, key, kind):
    content = honest()
    content.setdefault(key, {})["net.hidden.weight"] = TENSORS[kind]()
    stranger.plant(content)
    for said in stranger.refused_by("evaluate"):
        assert "is not a checkpoint of plain data" in said


def test_a_tensor_that_says_it_is_larger_than_stored_is_refused(stranger):
    def edit(name, data):
        if name.endswith("data.pkl"):
            assert data.count(b"M\xe8\x03") >= 1  # 1000 numbers
            data = data.replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f")
        return data

    stranger.plant({**honest(), "state_dict": {"x": torch.ones(1000)}})
    stranger.plant(edited(stranger.checkpoint.read_bytes(), edit))
    assert stranger.refused_by("evaluate")


def edited(whole, edit):
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            new.writestr(name, edit(name, old.read(name)))
    return with_tail(packed.getvalue())


STATES = {
    "text": {"net.hidden.weight": "x"},
    "numbers as names": {1: torch.ones(1)},
    "nothing": {},
    "other names": {"a": torch.ones(1)},
    "a list": [torch.ones(1)],
    "whole numbers": {"net.hidden.weight": torch.ones(3, dtype=torch.long)},
}


@pytest.mark.parametrize("kind", STATES)
def test_weights_that_are_none_get_one_line(stranger, kind):
    stranger.plant({**honest(), "state_dict": STATES[kind]})
    assert stranger.refused_by("evaluate")


# Places -------------------------------------------------------------------------------------------

ADDRESSES = ["http://127.0.0.1/best.ckpt", "https://x/run", "s3://x/best.ckpt", "file:///best.ckpt"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_not_read(stranger, address):
    for name, key in (("train", "resume"), ("evaluate", "run"), ("predict", "run")):
        assert "on this machine" in stranger.refused(name, f"{key}={address}")
    for kind in classes("quadrants"):
        with pytest.raises(ValueError, match="on this machine"):
            kind.load_from_checkpoint(address)


@pytest.mark.parametrize("name", ["../../etc", "/etc", "..", "'~'", "latest/../..", "x" * 5000])
def test_a_run_that_is_elsewhere_is_none(stranger, name):
    for command, key in (("train", "resume"), ("evaluate", "run"), ("predict", "run")):
        assert stranger.refused(command, f"{key}={name}")


def test_a_link_to_elsewhere_is_not_a_run(stranger):
    (stranger.folder / "logs").mkdir()
    (stranger.folder / "logs" / "latest").symlink_to("../../../../etc")
    for command, key in (("train", "resume"), ("evaluate", "run"), ("predict", "run")):
        assert stranger.refused(command, f"{key}=latest")


def test_a_checkpoint_does_not_choose_where_results_go(stranger):
    content = honest()
    content["config"]["log_dir"] = str(stranger.folder / "elsewhere")
    stranger.plant(content)
    assert stranger.runs("evaluate", f"run={stranger.run}")[0] == 0
    assert not (stranger.folder / "elsewhere").exists()


# Answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1"])
def test_text_that_would_be_a_formula_is_quoted(tmp_path, text):
    rows = [{"number": -1.5, text: text, "word": "fizz", "none": ""}]
    (tmp_path / "a.csv").write_text(output.rows_as(".csv", rows), newline="")
    with (tmp_path / "a.csv").open(newline="") as file:
        header, row = csv.reader(file)
    assert header == ["number", f"'{text}", "word", "none"]
    assert row == ["-1.5", f"'{text}", "fizz", ""]


def test_json_is_left_as_it_is():
    assert json.loads(output.rows_as(".json", [{"answer": "=1"}])) == [{"answer": "=1"}]


def test_tensorboard_is_for_this_machine():
    assert "--host 127.0.0.1" in (ROOT / "Makefile").read_text()
    assert "Report a vulnerability" in (ROOT / ".github" / "SECURITY.md").read_text()
    for path in ("README.md", "Makefile", ".github/SECURITY.md"):
        assert not re.search("bind_all|0\\.0\\.0\\.0", (ROOT / path).read_text())
