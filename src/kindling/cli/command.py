"""Run a command: compose its configuration, and report an error in one line."""

import functools
import io
import os
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.kindling.cli import arguments, composition, sweep
from src.kindling.config import masking
from src.kindling.config.hydra_calls import BASE
from src.kindling.errors import InputError, first_line, printable
from src.kindling.files import sweep_links
from src.kindling.layout import CONF, Plain, added_folders, as_started
from src.kindling.process import garbage, ranks, streams
from src.kindling.process.environment import variable

Task = Callable[[DictConfig], Any]


def command(name: str, words: str | None = None, asks: bool = False) -> Callable[[Task], "Command"]:
    """Make a function of a configuration into a command that composes conf/<name>.yaml.

    Args:
        name: name of the command and of its YAML.
        words: key whose values may be given without it, like the files of `ls`.
        asks: whether keys that its YAML lacks reach the function, which checks them: those of a
            question depend on the run that is asked.
    """
    return functools.partial(Command, name=name, words=words, asks=asks)


class Command:
    """A function of a configuration that runs as `python -m src.<name>`.

    An error is one line, with exit status 2 for bad input and 1 for a failure while running.
    HYDRA_FULL_ERROR=1 or any `debug=` also shows the traceback. In a `--multirun`, the sweeper
    receives the return value.
    """

    def __init__(self, task: Task, name: str, words: str | None, asks: bool) -> None:
        self.task, self.name, self.words, self.asks = task, name, words, asks
        self.typed: list[str] = []  # the command line: that of each rank, too
        self.values: Plain = {}  # values that Hydra cannot parse, by key
        self.of_run: list[str] = []  # overrides of a resumed run's own configuration
        self.any_model = [arguments.RESUMED_MODEL]  # what Hydra composes instead of its model
        self.full_error: str | None = None
        self.failed = sweep.Failures()
        self.__doc__ = task.__doc__

    def __call__(self) -> None:
        """Run with the arguments of the command line."""
        self.typed = sys.argv[1:]
        with garbage.gc_paused(), one_line_errors(self.name):
            arguments.check_flags(self.typed)
            self.typed = arguments.flags_first(self.typed)
            words, self.values = arguments.split(self.name, self.words, self.typed)
            words = arguments.quoted(words)
            words = arguments.added(self.name, words) if self.asks else words
            folders = composition.own_folders(self.name, words)
            with added_folders(folders), one_line_errors(self.name):
                if not ranks.is_launched():  # Lightning adds Hydra settings for these ranks
                    arguments.check_settings(self.name, words)
                arguments.strip_completion_line(self.name, self.words)
                if self.asks:
                    from src.kindling.cli import run_question  # pydantic, for these commands alone

                    words = run_question.shown(self.name, words)
                if not sweep.is_asked_for(self.name, words):
                    words, self.of_run = arguments.split_resumed(self.name, words)
                self.compose(words)
            self.failed.exit()

    def compose(self, words: list[str]) -> None:
        """Have Hydra compose the configuration of each job, and run it."""
        self.full_error, self.failed = os.environ.get("HYDRA_FULL_ERROR"), sweep.Failures()
        links: list[Path] = []
        with ExitStack() as during:
            if sweep.is_asked_for(self.name, words):
                log_dirs = sweep.check(self.name, words)
                links = during.enter_context(sweep.continued(words, log_dirs))
                words = during.enter_context(sweep.without_files(words))
            # Makes Hydra raise instead of exit.
            during.enter_context(variable("HYDRA_FULL_ERROR", "1"))
            during.enter_context(_command_line(words))
            during.enter_context(self.failed)
            if {"-h", "--help"} & set(words):
                during.enter_context(_help_as_started())
            main = hydra.main(config_path=str(CONF), config_name=self.name, **BASE)
            main(self.run_job)()
        if not self.failed.statuses:
            sweep_links.remove(links)

    def run_job(self, config: DictConfig) -> Any:
        """Run the function with the configuration of one job, possibly in a launcher's process."""
        debugging = HydraConfig.get().runtime.choices.get("debug") not in (None, "null")
        sources = [s for s in HydraConfig.get().runtime.config_sources if s.schema == "file"]
        folders = [path for s in sources if (path := Path(s.path)) != CONF]
        with (
            self.failed.job(),
            _command_line(self.typed),  # with which Lightning launches ranks
            added_folders(list(dict.fromkeys(folders))),
            variable("HYDRA_FULL_ERROR", "1" if debugging else self.full_error),
            one_line_errors(),
        ):
            config.update(self.values)
            _check_text(config, self.words)
            with self._explained():
                return self.task(config)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Explain an invalid setting of a resumed run, whose configuration the task composes."""
        try:
            yield
        except (HydraException, OmegaConfBaseException) as error:
            if not self.of_run:
                raise
            raise InputError(composition.explain(error, self.name, self.of_run)) from error


@contextmanager
def one_line_errors(name: str | None = None) -> Iterator[None]:
    """Turn an exception into one line on standard error and an exit status.

    Args:
        name: the command, if composition errors are to be explained.
    """
    try:
        yield
    except KeyboardInterrupt:
        _exit("interrupted before anything was saved", 130)
    except InputError as error:
        _exit(str(error), 2)
    except (HydraException, OmegaConfBaseException) as error:
        _exit(composition.explain(error, name, sys.argv[1:]), 2)
    except Exception as error:
        # The reader of a pipe (head, less) has seen enough; that of a worker process has died.
        if isinstance(error, BrokenPipeError) and streams.reader_has_left():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        if name is not None:  # composition failed without an error of Hydra's own
            _exit(composition.explain(error, name, sys.argv[1:]), 2)
        log = getattr(error, "run_log", None)
        where = f" (traceback: {log})" if log else ""
        _exit(f"{type(error).__name__}: {first_line(error)}{where}", 1)


def _exit(line: str, status: int) -> typing.NoReturn:
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        import traceback

        traceback.print_exc()
    shown = printable(masking.redacted(" ".join(line.splitlines())), 2000)
    print("error:", shown, file=sys.stderr)
    sys.exit(status)


@contextmanager
def _command_line(words: list[str]) -> Iterator[None]:
    """Present these arguments to Hydra as the command line."""
    before = sys.argv[1:]
    sys.argv[1:] = words
    try:
        yield
    finally:
        sys.argv[1:] = before


@contextmanager
def _help_as_started() -> Iterator[None]:
    """Print Hydra's help with the commands in the form in which the user started this one."""
    text = io.StringIO()
    try:
        with redirect_stdout(text):
            yield
    finally:  # Hydra exits after its help
        print(as_started(text.getvalue()), end="")


def _check_text(config: DictConfig, words: str | None) -> None:
    """Refuse a log_dir or a run that is not a string; the key that takes words may be a list."""
    settings: Any = OmegaConf.to_container(config)
    if "trainer" in settings and settings["resume"] is None:
        return  # checked later, with all settings of the new run
    for key in {"log_dir", "run", words} & settings.keys():
        value = settings[key]
        several = key == words and isinstance(value, list)
        if not all(isinstance(v, str) and v for v in (value if several else [value])):
            kind = "a path (a string)" if key == "log_dir" else "the name of a run"
            raise InputError(f"{key}={'null' if value is None else value}: must be {kind}")
