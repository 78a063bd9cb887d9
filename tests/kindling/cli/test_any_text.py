"""Any text that is typed ends in a run or in one line: never in a traceback, never in a hang."""

import contextlib
import importlib
import io
import os
import sys
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.kindling.training import run
from tests.conftest import has_command
from tests.kindling.conftest import Command

KEYS = [
    # of each type: text, whole number, number, truth, list, nothing, a group, a key of no one
    "log_dir",
    "resume",
    "seed",
    "threads",
    "model",
    "model.hidden_features",
    "data.val_fraction",
    "data.shuffle",
    "optimizer.lr",
    "optimizer.betas",
    "trainer.max_epochs",
    "trainer.precision",
    "trainer.max_time",
    "callbacks",
    "experiment",
    "init_from",
    "allow_changes",
    "logger",
    "+new.key",
    "++optimizer.lr",
    "~scheduler",
    "hydra.run.dir",
    "hydra.job.name",
]
# Of the commands that are asked about a run, with one there.
OTHERS = [
    ("evaluate", "run"),
    ("evaluate", "accelerator"),
    ("predict", "run"),
    ("predict", "numbers"),
    ("predict", "features"),
    ("predict", "file"),
    ("predict", "output"),
    ("predict", "log_dir"),
    ("compare", "runs"),
    ("compare", "metric"),
    ("compare", "last"),
    ("compare", "model"),
    ("report", "run"),
    ("report", "output"),
]
OTHERS = [(name, key) for name, key in OTHERS if has_command(name)]
# What a shell can pass: no zero byte. Whole arguments that stop or sweep are another matter.
CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
SPECIAL = st.sampled_from([*"[]{}:,='-\"\\\n", "${", "1e"])
TEXTS = st.one_of(
    st.text(CHARACTERS, max_size=20),
    st.lists(st.one_of(SPECIAL, st.text(CHARACTERS, max_size=2)), max_size=6).map("".join),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
)


def status_of(folder, *arguments, name="train"):
    """Return how a command ends; one that trains builds all, and trains nothing."""
    said = io.StringIO()
    small = ["logger=none", "trainer.accelerator=cpu"] if name == "train" else []
    with (
        contextlib.chdir(folder),
        mock.patch.object(sys, "argv", [f"src/{name}.py", *arguments, *small]),
        mock.patch.object(run, "train", return_value=run.Metrics()),
        mock.patch.dict(os.environ),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            importlib.import_module(f"src.{name}").main()
        except SystemExit as stop:
            return stop.code, said.getvalue()
    return 0, said.getvalue()


def ends_well_or_in_one_line(folder, *arguments, name="train"):
    status, said = status_of(folder, *arguments, name=name)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in said
    return (status, len(errors)) in ((0, 0), (2, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any_text")


@settings(max_examples=24, deadline=None, derandomize=True, database=None)
@given(key=st.sampled_from(KEYS), text=TEXTS)
def test_any_text_as_a_value(folder, key, text):
    assert ends_well_or_in_one_line(folder, f"{key}={text}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run in it, below `logs` as usual."""
    folder = tmp_path_factory.mktemp("trained")
    quick = ("model=line", "trainer.max_epochs=1", "trainer.accelerator=cpu")
    Command(folder / "logs").here("train", *quick)
    return folder


@settings(max_examples=14, deadline=None, derandomize=True, database=None)
@given(of=st.sampled_from(OTHERS), text=TEXTS)
def test_any_text_as_a_value_of_another_command(trained, of, text):
    name, key = of
    assert ends_well_or_in_one_line(trained, f"{key}={text}", name=name)


@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(text=TEXTS)
def test_any_text_as_an_argument(folder, text):
    assert ends_well_or_in_one_line(folder, text)


LONG = "x" * 5000


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("log_dir", LONG),
        ("resume", LONG),
        ("resume", "0"),
        ("model", LONG),
        ("optimizer.lr", "[" * 300),
        ("seed", "9" * 5000),
        ("model", "\x1b[2J"),
        ("log_dir", "a\nb"),
        ("log_dir", "\udcff"),  # how Python represents a byte that is not UTF-8
    ],
    ids=lambda text: repr(text[:20]),
)
def test_text_that_breaks_programs(folder, key, text):
    assert ends_well_or_in_one_line(folder, f"{key}={text}")
