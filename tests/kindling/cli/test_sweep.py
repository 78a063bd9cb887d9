"""A sweep counts its failed jobs, whichever process a launcher ran them in."""

import pickle
from types import SimpleNamespace

import pytest
from hydra.types import RunMode

from src.kindling.cli import sweep


@pytest.fixture
def multirun(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job of a sweep sees of Hydra's configuration."""
    config = SimpleNamespace(get=lambda: SimpleNamespace(mode=RunMode.MULTIRUN))
    monkeypatch.setattr(sweep, "HydraConfig", config)


@pytest.mark.usefixtures("multirun")
@pytest.mark.parametrize("status", [1, 2, 143])
def test_a_failure_in_a_launchers_process_ends_the_sweep_with_its_status(
    status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = sweep.Failures()
    failures.process = -1  # that the sweep began in
    with pytest.raises(sweep.JobFailedError) as raised, failures.job():
        raise SystemExit(status)
    brought = pickle.loads(pickle.dumps(raised.value))  # as a launcher brings it back
    with failures:
        raise brought
    with pytest.raises(SystemExit) as stop:
        failures.exit()
    assert stop.value.code == status
    assert capsys.readouterr().err.startswith("error: a job failed")


@pytest.mark.usefixtures("multirun")
def test_a_failure_in_the_sweeps_own_process_leaves_the_others_their_turn() -> None:
    failures = sweep.Failures()
    for code in (1, 0, 1):
        with failures.job():
            if code:
                raise SystemExit(code)
    with pytest.raises(SystemExit) as stop:
        failures.exit()
    assert stop.value.code == 1


@pytest.mark.usefixtures("multirun")
def test_bad_input_in_the_sweeps_own_process_ends_it_at_once() -> None:
    with pytest.raises(SystemExit) as stop, sweep.Failures().job():
        raise SystemExit(2)
    assert stop.value.code == 2


def test_without_failures_nothing_ends() -> None:
    sweep.Failures().exit()


@pytest.mark.parametrize(
    ("words", "several"),
    [
        (["-m", "seed=1,2"], True),
        (["seed=1,2", "--multirun"], True),
        (["hydra.mode=MULTIRUN", "seed=1,2"], True),
        (["hydra.mode=RUN"], False),
        (["seed=1"], False),
        (["--help"], False),
    ],
)
def test_a_sweep_is_recognized_however_it_is_asked_for(words: list[str], several: bool) -> None:
    assert sweep.is_asked_for("train", words) is several
