"""What a printed line advises works: each command in it is followed, in this process.

A run that a line ends with is trained for real. Where an error names what to give instead, the
command with it is followed up to the fit.
"""

import contextlib
import importlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import pytest
from hydra.core.global_hydra import GlobalHydra

from src.kindling import build
from src.kindling.cli import new
from src.kindling.errors import InputError
from src.kindling.training import run as running
from src.kindling.training.fit import Metrics
from tests.conftest import ROOT, has_command
from tests.kindling import examples
from tests.kindling.conftest import Command

QUICK = ("trainer.accelerator=cpu", "~callbacks.figures", "trainer.max_epochs=2")
LINE = ("model=line", *QUICK)


needs_studies = pytest.mark.skipif(
    not has_command("study") or find_spec("optuna") is None, reason="needs src.study and Optuna"
)


def called(name: str, words: list[str]) -> tuple[int, str, str]:
    """Return the exit status, standard output and standard error of a command."""
    GlobalHydra.instance().clear()
    out, err = io.StringIO(), io.StringIO()
    argv = mock.patch.object(sys, "argv", [f"src/{name}.py", *words])
    with argv, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            importlib.import_module(f"src.{name}").main()
        except SystemExit as stop:
            return int(stop.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def followed(line: str) -> str:
    """Follow a command as it is printed; return what it prints."""
    words = shlex.split(line)
    if words[0] == "tensorboard":
        assert words[1] == "--logdir"
        assert list(Path(words[2]).rglob("events.out.*"))
        return ""
    assert words[:2] == ["python", "-m"]
    status, out, err = called(words[2].removeprefix("src."), words[3:])
    assert status == 0, f"{line}\n{out}\n{err}"
    return out


def printed(out: str) -> list[str]:
    """Return the commands that a command prints."""
    lines = [line.removeprefix("next:").strip() for line in out.splitlines()]
    return [line for line in lines if line.startswith(("python -m ", "tensorboard "))]


@contextlib.contextmanager
def without_fits() -> Iterator[None]:
    """Let a run begin, and skip its fit."""
    with mock.patch.object(running, "train", return_value=Metrics()):
        yield


# What a run ends with -----------------------------------------------------------------------------

EARLY = ("callbacks=early_stopping", "callbacks.early_stopping.monitor=train/loss")
EARLY += ("callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=99")
EARLY += ("trainer.max_epochs=20", "trainer.log_every_n_steps=1")
ENDS = {  # how a run is made longer, in what it prints
    (): "trainer.max_epochs=4",
    ("trainer.max_steps=1",): "trainer.max_steps=2 allow_changes=true",
    ("scheduler=one_cycle",): "trainer.max_epochs=4",
    EARLY: "callbacks.early_stopping.patience=2 allow_changes=true",
    ("logger=csv",): "trainer.max_epochs=4",
    ("callbacks=none",): None,
    ("trainer.max_time=00:00:00:00",): None,
    ("debug=overfit", "trainer.max_epochs=2"): "trainer.max_epochs=4",
    ("debug=profile", "trainer.max_epochs=2"): "trainer.max_epochs=4",
    ("debug=anomaly",): "trainer.max_epochs=4",
}


FAST = {(), ("trainer.max_steps=1",), ("callbacks=none",), EARLY}
SOME = [pytest.param(w, marks=[] if w in FAST else [pytest.mark.slow]) for w in ENDS]


@pytest.mark.parametrize("words", SOME, ids=lambda words: " ".join(words) or "plain")
def test_each_command_that_a_run_ends_with_works(words: tuple[str, ...], command: Command) -> None:
    own = [word for word in LINE if word != "~callbacks.figures" or "callbacks=none" not in words]
    commands = printed(command.here("train", *own, *words))
    longer = [line for line in commands if "resume=" in line]
    if (wanted := ENDS[words]) is None:
        assert not longer
    else:
        assert wanted in longer[0]
    run = command.latest
    for line in commands if not words else longer:
        out = followed(line)
        assert "resume=" not in line or f"continuing in {run}" in out
    if longer:  # it can be made longer once more, as it says itself
        again = printed(command.here("train", f"resume={run}"))
        assert len(again) == 1
        assert f"continuing in {run}" in followed(again[0])


def test_after_a_range_test_the_command_trains_at_its_rate(command: Command) -> None:
    out = command.here("train", "debug=lr_find", "seed=3", "trainer.max_steps=60")
    [line] = printed(out)
    [rate] = re.findall(r"try optimizer\.lr=(\S+),", out)
    assert f"optimizer.lr={rate}" in line
    assert "seed=3" in line
    with without_fits():
        followed(line)


def test_a_development_run_advises_nothing(command: Command) -> None:
    assert printed(command.here("train", *LINE, "debug=fast")) == []


@pytest.mark.slow
@needs_studies
def test_the_commands_of_a_study_work(command: Command) -> None:
    words = ("optimizer.lr=tag(log, interval(1e-3, 0.1))", "study.trials=2")
    by = "callbacks.checkpointing.monitor=train/loss"
    [line] = printed(command.here("study", "study.name=a", *LINE, by, *words))
    assert f"--config-dir={examples.CONF}" in line
    assert "trainer.max_epochs=4" in line
    followed(line)
    assert command.latest.is_relative_to(command.log_dir.resolve())
    if has_command("report"):
        command.here("report", "study=a")
        page = (command.log_dir / "study" / "a" / "report.html").read_text()
        commands = re.findall(r"python -m src\.study [^<]*", page)
        assert commands
        for line in commands:
            followed(line.replace("study.confirm=5", "study.confirm=1"))


# What an error says -------------------------------------------------------------------------------

RUN = "RUN"  # in the words below: a finished run of LINE
ADVICE = [
    # the words, the advice in the line, the words that follow it
    ("trainer.accelerator=gpu", r"use (trainer\.accelerator=cpu) or auto", "{1}"),
    ("trainer.precision=16-mixed", r"on the CPU use (\S+)", "trainer.precision={1}"),
    ("trainer.devices=[0]", r"only GPUs have numbers; use (\S+)", "{1}"),
    ("+trainer.logger=false", r"use (logger=none),", "{1}"),
    ("+trainer.enable_checkpointing=false", r"use (callbacks=none), or", "{1}"),
    ("+trainer.enable_checkpointing=false", r", or (\S+)", "{1}"),
    ("+trainer.enable_progress_bar=false", r"use (\S+)", "{1}"),
    ("+trainer.default_root_dir=x", r"use log_dir=FOLDER", ""),
    ("+trainer.barebones=true", r"use (\S+) (\S+)", "{1} {2}"),
    ("seed=0,1", r"need (--multirun); ", "{1} seed=0,1"),
    ("model.bias=0,1", r"a list is written (\S+)", ""),
    ("optimizer.lrr=0.1", r"did you mean '(\S+)'\?", "{1}=0.1"),
    ("max_epochs=3", r"did you mean '(\S+)'\?", "{1}=3"),
    ("optimizer=adm", r"did you mean '(\S+)'\?", "optimizer={1}"),
    ("debug=profil", r"did you mean '(\S+)'\?", "debug={1}"),
    ("--seed 3", r"settings are key=value: (\S+)", "{1}"),
    ("--verbose seed=3", r"key=value: verbose=VALUE$", "seed=3"),
    ("optimizer.lr= 0.1", r"without spaces: (\S+)", "{1}"),
    ("optimizer.lr =0.1", r"without spaces: (\S+)", "{1}"),
    ("optimizer.lr = 0.1", r"without spaces: (\S+)", "{1}"),
    ("seed=1 -m threads=1", r"put flags such as (-m) before", "{1} seed=1 threads=1"),
    ("~callbacks.figurs", r"did you mean '(\S+)'\?", "~{1}"),
    ("+seed=3", r"(seed): the configuration has this key: leave out the \+", "{1}=3"),
    ("+optimizer.lr=0.2", r"error: (\S+): .* leave out the \+", "{1}=0.2"),
    ("~optimizer", r"give it another value instead", "optimizer=sgd"),
    ("hydra.run.dir=x", r"(log_dir)= is the folder of runs", ""),
    ("trainer.max_epochs=-1 scheduler=cosine", r"or (trainer\.max_steps)", "{0} {1}=9"),
    ("init_from='a{{b'", r"quoted: (.*)$", None),
    ("'init_from=~/a'", r"""quoted: ('init_from="/.*/a"')$""", None),
    (f"resume={RUN} optimizer.lr=0.5", r"(allow_changes=true) continues", "{0} {1}"),
    (f"resume={RUN} optimizer.lr=0.5", r"a command without resume=", "optimizer.lr=0.5"),
    (
        f"resume={RUN} optimizer=rmsprop trainer.max_epochs=9 allow_changes=true",
        r"(init_from)= starts a new run from these weights",
        f"{{1}}={RUN} optimizer=rmsprop",
    ),
    (f"resume={RUN} trainer.max_epochs=1", r"has completed 2 epochs already", f"resume={RUN}"),
    (
        "trainer.overfit_batches=1 trainer.limit_val_batches=0",
        r"leave one",
        "trainer.overfit_batches=1",
    ),
    ("-m seed=0,1 trainer=ddp_cpu", r"(trainer\.devices=1);", "{0} {1}"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended."""
    command = Command(tmp_path_factory.mktemp("finished") / "logs")
    command.here("train", *LINE)
    return command.latest


@pytest.mark.parametrize(("typed", "advice", "then"), ADVICE, ids=[row[0] for row in ADVICE])
def test_what_an_error_advises_works(
    typed: str, advice: str, then: str | None, finished: Path, command: Command
) -> None:
    def words(text: str) -> list[str]:
        own = [word.replace(RUN, str(finished)) for word in shlex.split(text)]
        begun = [] if "resume=" in text else ["model=line", "trainer.accelerator=cpu"]
        flags = [word for word in own if word.startswith("-m") or word == "--multirun"]
        given = [word for word in own if word not in flags]
        if typed.startswith("seed=1 -m") and text == typed:
            return command.words("train", *begun, *own)
        return command.words("train", *flags, *begun, *given)

    status, out, err = called("train", words(typed))
    assert (status, err.count("\n")) == (2, 1), f"{out}\n{err}"
    found = re.search(advice, err.rstrip("\n"))
    assert found, err
    if then is None:
        [quoted] = shlex.split(found[1])
        status, _, err = called("train", words(shlex.quote(quoted)))
        assert "cannot be parsed" not in err
        return
    text = then.format(typed, *found.groups())
    with without_fits():
        status, out, err = called("train", words(text))
    assert status == 0, f"{text}\n{out}\n{err}"


def test_an_early_stop_that_is_made_longer_names_the_whole_command(command: Command) -> None:
    command.here("train", *LINE, *EARLY)
    run = command.latest
    status, _, err = called(
        "train", command.words("train", f"resume={run}", "trainer.max_epochs=40")
    )
    assert status == 2
    assert f"continuing in {run}" in followed(err.partition("it continues: ")[2])


def test_without_a_run_the_line_makes_one_where_it_is_looked_for(command: Command) -> None:
    looking = [("evaluate", "run=latest"), ("train", "resume=latest")]
    looking += [("compare",)] if has_command("compare") else []
    for name, *words in looking:
        status, _, err = called(name, command.words(name, *words))
        assert (status, "there is no run yet" in err) == (2, True)
        line = re.search("`(.*)` makes one", err)
        assert line is not None
        with without_fits():
            followed(f"{line[1]} model=line")
        assert called("train", command.words("train", "resume=latest"))[0] == 0
        shutil.rmtree(command.log_dir)


def test_folders_that_a_run_was_trained_with_are_named_as_they_are_given(finished: Path) -> None:
    for name, key in (("predict", "run"), ("evaluate", "run"), ("train", "resume")):
        log_dir = f"log_dir={finished.parents[2]}"
        with mock.patch("src.kindling.layout.own_folders", list):
            status, _, err = called(name, [f"{key}={finished}", log_dir])
        assert status == 2
        added = re.search(r"add (.*), which", err)
        assert added is not None, err
        assert called(name, [*shlex.split(added[1]), f"{key}={finished}", log_dir])[0] == 0


def test_folders_are_named_as_a_shell_takes_them(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    places = [tmp_path / "my own", tmp_path / "another one"]
    shutil.copytree(examples.CONF, places[0])
    places[1].mkdir()
    record = json.loads((run / "run.json").read_text())
    record["config_dirs"] = [str(place) for place in places]
    (run / "run.json").write_text(json.dumps(record))
    with mock.patch("src.kindling.layout.own_folders", list):
        _, _, err = called("evaluate", [f"run={run}", f"log_dir={tmp_path}"])
    added = re.search(r"add (.*), which", err)
    assert added is not None, err
    words = [*shlex.split(added[1]), f"run={run}", f"log_dir={tmp_path}"]
    assert called("evaluate", words)[0] == 0


def test_a_target_goes_into_a_yaml_as_the_line_says(tmp_path: Path, command: Command) -> None:
    target = "lightning.pytorch.callbacks.OnExceptionCheckpoint"
    typed = [f"+callbacks.mine._target_={target}", f"+callbacks.mine.dirpath={tmp_path}/x"]
    status, _, err = called("train", command.words("train", *LINE, *typed))
    assert status == 2
    assert "add it to a YAML in conf/callbacks/, or in --config-dir=FOLDER" in err
    folder = Path(shutil.copytree(examples.CONF, tmp_path / "conf"))
    (folder / "callbacks").mkdir(exist_ok=True)
    text = f"defaults: [default]\nmine:\n  _target_: {target}\n  dirpath: {tmp_path}/x\n"
    (folder / "callbacks" / "mine.yaml").write_text(text)
    words = [f"--config-dir={folder}", *LINE, "callbacks=mine", f"log_dir={command.log_dir}"]
    with without_fits():
        status, _, err = called("train", words)
    assert status == 0, err


def test_a_run_with_links_is_copied_as_the_line_says(
    finished: Path, tmp_path: Path, command: Command
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "run.log").rename(tmp_path / "log")
    (run / "run.log").symlink_to(tmp_path / "log")
    status, _, err = called("train", command.words("train", f"resume={run}"))
    assert (status, "`cp -rL` copies" in err) == (2, True)
    shutil.copytree(run, tmp_path / "copy", symlinks=False)  # as cp -rL does
    words = (f"resume={tmp_path / 'copy'}", "trainer.max_epochs=3")
    assert called("train", command.words("train", *words))[0] == 0


OTHERS = [
    # the command and its words, the advice in the line, the words that follow it
    (f"evaluate run={RUN} accelerator=mps", r"use (accelerator=cpu) or auto", f"run={RUN} {{1}}"),
    (f"predict run={RUN} output=OUT/x", r"ends in (\.csv)", "{0}{1}"),
    (f"predict run={RUN} output=OUT/x", r"or (\.pt)", "{0}{1}"),
    (f"compare {RUN} mode=smallest", r"choose (min) or max", f"{RUN} mode={{1}}"),
    (f"compare {RUN} output=OUT/x", r"or (\.md)", "{0}{1}"),
    (f"compare {RUN} runs={RUN}", r"use (runs=) for all of them", f"{{1}}{RUN}"),
    (f"compare {RUN} metric=train/los", r"mean '(\S+)'", f"{RUN} metric={{1}}"),
    (f"report run={RUN} output=OUT/x.pdf", r"ends in (\.html)", f"run={RUN} output=OUT/x{{1}}"),
    (f"export run={RUN} format=pt", r"'(pt2)'", f"run={RUN} format={{1}}"),
    (f"export run={RUN} format=pt2 output=OUT/x", r"ends in (\.pt2)", "{0}{1}"),
    (f"export run={RUN} opset=99", r"use (opset=\d+)", f"run={RUN} {{1}}"),
    (f"export run={RUN} opset=18 format=pt2", r"only (format=onnx) takes", f"run={RUN} {{1}}"),
]


@pytest.mark.parametrize(("typed", "advice", "then"), OTHERS, ids=[row[0] for row in OTHERS])
def test_what_the_other_commands_advise_works(
    typed: str, advice: str, then: str, finished: Path, command: Command, tmp_path: Path
) -> None:
    name, _, rest = typed.partition(" ")
    if not has_command(name):
        pytest.skip("the command is deleted")
    if "opset" in typed:
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")

    def words(text: str) -> list[str]:
        text = text.replace(RUN, str(finished)).replace("OUT", str(tmp_path))
        return command.words(name, *text.split())

    status, out, err = called(name, words(rest))
    found = re.search(advice, err.rstrip("\n"))
    assert (status, err.count("\n"), bool(found)) == (2, 1, True), f"{out}\n{err}"
    assert found is not None
    status, out, err = called(name, words(then.format(rest, *found.groups())))
    assert status == 0, f"{out}\n{err}"


def test_a_damaged_checkpoint_names_a_whole_one(
    finished: Path, tmp_path: Path, command: Command
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "a run"))
    best, content = run / "checkpoints" / "best.ckpt", b"PK" + bytes(100)
    best.unlink()  # it may have last.ckpt as its second name
    best.write_bytes(content)
    status, _, err = called("evaluate", command.words("evaluate", f"run={run}"))
    assert status == 2
    whole = shlex.split(err.partition("; use ")[2])
    status, out, err = called("evaluate", command.words("evaluate", *whole))
    assert status == 0, f"{out}\n{err}"


@pytest.mark.parametrize("words", [["seed=3\r"], ["seed=3", "\r"], ["-m\r", "seed=3"]], ids=repr)
def test_a_script_with_the_line_ends_of_windows_is_mended_by_the_line(
    words: list[str], tmp_path: Path, command: Command
) -> None:
    status, _, err = called("train", [*words, f"log_dir={command.log_dir}"])
    assert (status, err.count("\n"), command.log_dir.exists()) == (2, 1, False)
    advised = re.search(r"(sed .*) removes them", err)
    assert advised is not None, err
    script = tmp_path / "script"
    script.write_bytes(b"a\r\nb\r\n")
    subprocess.run(advised[1].replace("SCRIPT", str(script)), shell=True, check=True)
    assert script.read_bytes() == b"a\nb\n"


def test_a_yaml_with_the_line_ends_of_windows_is_read(tmp_path: Path, command: Command) -> None:
    folder = Path(shutil.copytree(examples.CONF, tmp_path / "conf"))
    for path in folder.rglob("*.yaml"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    words = [f"--config-dir={folder}", *LINE, f"log_dir={command.log_dir}"]
    with without_fits():
        status, _, err = called("train", words)
    assert status == 0, err
    assert b"\r" not in (command.latest / "config.yaml").read_bytes()


SEARCHED = [
    ("optimizer.lr=tag(log,range(1,9,2))", r"use (interval)", "optimizer.lr=tag(log,{1}(1,9))"),
    ("optimizer=tag(log,choice(sgd,adam))", r"leave out tag", "optimizer=choice(sgd,adam)"),
    ("threads=tag(lg,choice(1,2))", r"the only one is log", "threads=choice(1,2)"),
    ("seed=interval(0.5,3)", r"int\(interval\(a,b\)\) draws", "seed=int(interval(1,3))"),
    ("study.metric=test/loss", r"train/... or val/...", "study.metric=train/loss"),
    ("study.constraints=['val/loss']", r"largest value, (\S+)", "study.constraints=['{1}']"),
]


@pytest.mark.slow
@needs_studies
@pytest.mark.parametrize(("typed", "advice", "then"), SEARCHED, ids=[row[0] for row in SEARCHED])
def test_what_a_study_advises_works(typed: str, advice: str, then: str, command: Command) -> None:
    own = ("study.name=a", "study.trials=1", *LINE, "callbacks.checkpointing.monitor=train/loss")
    status, _, err = called("study", command.words("study", *own, typed))
    found = re.search(advice, err)
    assert (status, bool(found)) == (2, True), err
    assert found is not None
    status, out, err = called(
        "study", command.words("study", *own, then.format(typed, *found.groups()))
    )
    assert status == 0, f"{out}\n{err}"


@needs_studies
def test_a_study_that_was_started_otherwise_is_joined_as_the_line_says(command: Command) -> None:
    own = ("study.name=a", "study.trials=1", *LINE, "callbacks.checkpointing.monitor=train/loss")
    command.here("study", *own, "optimizer.lr=interval(0.01,0.1)")
    other = [*own, "optimizer.lr=interval(0.01,0.2)"]
    status, _, err = called("study", command.words("study", *other))
    assert (status, "study.allow_changes=true continues" in err) == (2, True)
    assert called("study", command.words("study", *other, "study.allow_changes=true"))[0] == 0
    status, _, err = called("study", command.words("study", *other, "study.seed=3"))
    assert (status, "leave it out to join, or choose another study.name" in err) == (2, True)
    assert called("study", command.words("study", *other))[0] == 0


@pytest.mark.parametrize("name", ["My-model", "class", "9lives", "true"])
def test_a_name_that_is_advised_is_a_right_one(name: str) -> None:
    with pytest.raises(InputError) as refusal:
        new.check_name(name, ROOT)
    advised = re.search(r"(?:try |and _: )(\w+)$", str(refusal.value))
    assert advised is not None
    new.check_name(advised[1], ROOT)


def test_each_extra_that_a_line_names_is_one_of_this_project() -> None:
    texts = [path.read_text() for path in (ROOT / "src").rglob("*.py")]
    named = {name for text in texts for name in re.findall(r"install_extra\(['\"](\w+)", text)}
    assert "study" in named
    for tracker in ("wandb", "mlflow", "dvclive"):
        with pytest.raises(InputError, match=rf"'\.\[{tracker}\]'"), build.errors_from("logger"):
            raise ModuleNotFoundError(f"No module named '{tracker}'")
        named.add(tracker)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert named <= project["optional-dependencies"].keys()
