"""A secret reaches no file: environment variables stay names, other secrets become ***."""

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger

from src.kindling.config import masking, untrusted
from src.kindling.errors import InputError
from src.kindling.layout import added_folders
from tests.kindling import examples

TOKEN = "hf_" + "x" * 30
LOGGER = {
    "secret": {
        "_target_": "lightning.pytorch.loggers.CSVLogger",
        "version": "${oc.env:SECRET_OF_TEST,none}",
    }
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("logger.wandb.api_key", "abc"),
        ("logger.x.token", "abc"),
        ("data.password", "abc"),
        ("data.client_secret", "abc"),
        ("logger.x.name", TOKEN),
        ("logger.mlflow.tracking_uri", "https://me:word@host/path"),
    ],
)
def test_what_looks_like_a_secret_is_masked_in_settings_and_command_lines(key, value):
    nested = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    assert value not in str(masking.masked(nested))
    assert masking.MASK in str(masking.masked(nested))
    assert masking.masked_words(["python", f"{key}={value}"]) == ["python", f"{key}=***"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("eos_token", "</s>"), ("num_tokens", 7), ("key", "a"), ("tokenizer", "bpe"), ("token", None)],
)
def test_other_settings_are_stored_as_they_are(key, value):
    assert masking.masked({"data": {key: value}}) == {"data": {key: value}}


@pytest.fixture
def own(tmp_path):
    """A folder of the user's own whose logger names an environment variable."""
    (tmp_path / "own" / "logger").mkdir(parents=True)
    (tmp_path / "own" / "logger" / "secret.yaml").write_text(yaml.safe_dump(LOGGER))
    return tmp_path / "own"


def test_a_variable_of_conf_is_kept_by_its_name_and_no_other(own):
    raw = {"logger": LOGGER, "seed": "${oc.env:SEED}"}
    resolved = {"logger": {"secret": LOGGER["secret"] | {"version": "word"}}, "seed": "1"}
    with added_folders([own]):
        assert masking.keep_variables(raw, resolved) == {"logger": LOGGER, "seed": "1"}
    assert masking.keep_variables(raw, resolved) == resolved


def test_variables_get_their_values_where_they_are_set(monkeypatch):
    monkeypatch.setenv("SECRET_OF_TEST", "word")
    text = ["a ${oc.env:SECRET_OF_TEST} b", "${oc.env:NOT_THERE_AT_ALL}", "${oc.env:NOT_THERE,x}"]
    assert masking.with_variables(text) == ["a word b", "${oc.env:NOT_THERE_AT_ALL}", "x"]


def test_only_a_variable_that_conf_names_at_the_same_key_is_read_back(own, tmp_path):
    part = {"_target_": "x"}
    settings = dict.fromkeys(untrusted.GROUPS, part) | {"logger": LOGGER}
    with added_folders([own]):
        with pytest.raises(InputError, match="which is not in conf/"):  # the others' targets
            untrusted.check(settings, tmp_path)
        variables = masking.environment_of_conf()
    assert ("logger", "version", "${oc.env:SECRET_OF_TEST,none}") in variables
    assert ("data", "version", "${oc.env:SECRET_OF_TEST,none}") not in variables


def test_a_masked_value_must_be_given_again():
    with pytest.raises(InputError, match=r"logger\.x\.token: .* set it again"):
        masking.check_complete({"logger": {"x": {"token": masking.MASK}}})


@pytest.mark.filterwarnings("ignore:Experiment logs directory")  # of the resumed run
def test_no_file_of_a_run_holds_the_secret(own, command, monkeypatch):
    monkeypatch.setenv("SECRET_OF_TEST", "word-of-nobody")
    folders = ("--config-dir", str(own), f"hydra.searchpath=[file://{examples.CONF}]")
    short = ("model=line", "trainer.max_epochs=2", "trainer.accelerator=cpu")
    command.here("train", *folders, *short, "logger=[tensorboard,secret]")
    files = [path for path in command.latest.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if b"word-of-nobody" in path.read_bytes()] == []
    config = yaml.safe_load((command.latest / "config.yaml").read_text())
    assert config["logger"]["secret"]["version"] == "${oc.env:SECRET_OF_TEST,none}"
    command.here("train", *folders, "resume=latest", "trainer.max_epochs=3")
    command.here("evaluate", *folders)


class Keyed(CSVLogger):
    """A logger with an API key, which its server repeats in an error."""

    def __init__(self, save_dir: str, api_key: str | None = None, url: str | None = None) -> None:
        super().__init__(save_dir)
        self.said = f"{url} refuses {api_key}"

    def log_metrics(self, metrics, step=None):
        raise ConnectionError(self.said)


@pytest.mark.parametrize(
    "given",
    [
        ["logger.keyed.api_key=word-of-all"],
        ["logger.keyed={api_key: word-of-all}"],
        ["logger.keyed.url=https://me:word-of-all@host/"],
        ["logger.keyed.url=${oc.env:TOKEN_OF_TEST}"],
    ],
)
def test_no_file_holds_a_secret_of_the_command_line(given, tmp_path, command, monkeypatch, capsys):
    monkeypatch.setenv("TOKEN_OF_TEST", "word-of-all")
    logger = {"_target_": f"{__name__}.Keyed", "save_dir": str(tmp_path / "x")}
    logger |= {"api_key": None, "url": None}
    (tmp_path / "own" / "logger").mkdir(parents=True)
    (tmp_path / "own" / "logger" / "keyed.yaml").write_text(yaml.safe_dump({"keyed": logger}))
    folders = [f"hydra.searchpath=[file://{tmp_path}/own,file://{examples.CONF}]"]
    short = ["model=line", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
    words = [*folders, *short, "logger=[tensorboard,keyed]", *given]
    monkeypatch.setattr("sys.orig_argv", ["python", "-m", "src.train", *words])
    command.here("train", *words)
    files = [path for path in command.latest.rglob("*") if path.is_file()]
    assert [path for path in files if b"word-of-all" in path.read_bytes()] == []
    assert "no longer logged there" in (command.latest / "run.log").read_text()
    assert "word-of-all" not in capsys.readouterr().err
