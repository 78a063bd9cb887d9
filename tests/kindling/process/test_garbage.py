"""The garbage collector rests while a command imports, and works while it trains."""

import gc
import importlib
import os

import pytest

import src
from src.kindling.build import Experiment
from src.kindling.process import garbage


def test_garbage_is_left_alone_until_the_imports_are_done():
    with garbage.gc_paused():
        assert not gc.isenabled()
        garbage.resume_gc()
        assert gc.isenabled()
        frozen = gc.get_freeze_count()
        assert frozen > 0
        garbage.resume_gc()  # a second build of the process
        assert gc.get_freeze_count() <= frozen  # its garbage may still be found
    assert gc.isenabled()


def test_a_command_that_ends_early_leaves_the_collector_on_and_nothing_to_collect():
    garbage._freeze_once.cache_clear()
    gc.unfreeze()
    with pytest.raises(SystemExit), garbage.gc_paused():
        raise SystemExit(2)
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_a_run_is_built_with_the_collector_on(build):
    with garbage.gc_paused():
        built = build("model=line")
        assert gc.isenabled()
    assert isinstance(built, Experiment)


def test_a_command_rests_it(command, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "src.kindling.cli.arguments.check_flags", lambda words: seen.append(gc.isenabled())
    )
    command.here("train", "model=line", "trainer.max_epochs=1")
    assert seen == [False]
    assert gc.isenabled()


def test_large_pages_are_asked_for_unless_the_user_has_said_no(monkeypatch):
    for said, expected in ((None, "1"), ("0", "0")):
        monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
        if said is not None:
            monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", said)
        importlib.reload(src)
        assert os.environ["THP_MEM_ALLOC_ENABLE"] == expected
