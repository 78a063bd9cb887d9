"""Stand in for the Python interpreter, with torch and Lightning imported in advance.

Their import takes seconds, and the tests start hundreds of commands. So a server imports them
once, and forks itself for each command. `python tests/warm.py -m src.train seed=3` asks it to,
hands over its streams, folder and environment, passes signals on, and ends as the command ends.

The command is real: a process of its own, with its arguments, streams, exit status, and every
import of this project's code. Not real are the import of packages, the limits and masks that a
process inherits (ulimit, SIGSTOP), fsync, and the interpreter's clean-up after the last exit
handler.
Where they matter, start `sys.executable`. Without a server, or with one that cannot fork, this
becomes the plain interpreter; so it does with options other than -m and -W error.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

PYTHON = [sys.executable, "-I", "-S", __file__]  # how a command line begins
ADDRESS = "KINDLING_WARM"  # the environment variable that says where the server listens
PASSED_ON = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
# What commands import from others; a command that needs more imports it by itself.
PACKAGES = (
    "antlr4.LL1Analyzer", "hydra.core.hydra_config", "hydra.core.plugins", "hydra.utils",
    "importlib.resources.readers", "lightning.pytorch", "matplotlib.backends.backend_agg",
    "matplotlib.pyplot", "omegaconf._impl", "PIL.BmpImagePlugin", "PIL.GifImagePlugin",
    "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.PpmImagePlugin", "pydantic.json_schema",
    "pydantic.main", "pydantic.type_adapter", "pydantic._internal._generate_schema",
    "pydantic._internal._validators", "tensorboard.backend.event_processing.event_file_loader",
    "tensorboard.plugins.graph.metadata", "tensorboard.plugins.hparams.metadata",
    "tensorboard.plugins.mesh.metadata", "torch", "torch.utils.serialization.config",
    "torch.utils.tensorboard", "torchmetrics.classification", "tqdm",
)  # fmt: skip


# The command's side -------------------------------------------------------------------------------


def ask(words: list[str]) -> None:
    """Have the server run `python <words>`, and end as that ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until it is known to whom
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(os.environ[ADDRESS])
        request = json.dumps([words, os.getcwd(), dict(os.environ)]).encode() + b"\n"
        socket.send_fds(server, [request[:1]], [0, 1, 2])
        server.sendall(request[1:])
        answers = server.makefile()
        if not (command := int(answers.readline())):  # the server cannot fork
            signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
            os.execv(sys.executable, [sys.executable, *words])
        pass_signals_on(command, server)
        status = os.waitstatus_to_exitcode(int(answers.readline()))
    if status < 0:  # a signal ended it
        with contextlib.suppress(OSError):  # SIGKILL has no other handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def pass_signals_on(command: int, server: socket.socket) -> None:
    """Send a command each signal that comes, until the server has said how the command ended.

    A signal that a Python handler took just before a blocking read would wait for the read to end;
    the wakeup descriptor ends the wait.
    """
    signals, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    signal.set_wakeup_fd(wakeup.fileno())
    for number in PASSED_ON:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    while server not in select.select([server, signals], [], [])[0]:
        for number in signals.recv(64):
            with contextlib.suppress(ProcessLookupError):
                os.kill(command, number)
    signal.set_wakeup_fd(-1)


# The server's side --------------------------------------------------------------------------------


@contextlib.contextmanager
def server():
    """Keep a server while the tests run, for all their processes."""
    if ADDRESS in os.environ or not hasattr(os, "pidfd_open"):
        yield  # tests that tests start have one already
        return
    with TemporaryDirectory() as folder:
        address = f"{folder}/socket"
        words = [sys.executable, __file__, "--serve", address]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # a fork keeps no other
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=one_thread, process_group=0
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()  # it listens
            os.environ[ADDRESS] = address
            yield
            del os.environ[ADDRESS]


def serve(address: str) -> list[str]:
    """Fork a process for each command that is asked for, until standard input ends.

    Returns:
        The words of a command line, in a process that is there to run it.
    """
    # A shell has what it starts in the background ignore Ctrl-C; the commands shall not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        print("listening", flush=True)
        while True:
            if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
                os.killpg(0, signal.SIGKILL)  # whoever is left too
            asker, _ = listener.accept()
            if not prepare():
                refuse(asker)
            elif os.fork() == 0:
                listener.close()
                return keep(asker)
            asker.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass


def skip_fsync() -> None:
    """Do not wait for the disk, a tenth of a second per command: no test cuts the power."""
    os.fsync = os.fstat  # it refuses a closed file too


def prepare() -> bool:
    """Import what commands import, once, when the first is asked for.

    Returns:
        Whether the process can be forked: some packages start threads, as builds of torch for CUDA
        may, and a fork keeps only the thread that makes it.
    """
    if "torch" not in sys.modules:
        for name in PACKAGES:
            importlib.import_module(name)
        skip_fsync()
        gc.freeze()
    return len(os.listdir("/proc/self/task")) == 1


def requested(asker: socket.socket) -> tuple[list[str], str, dict[str, str], list[int]]:
    """Return the words, folder, environment and streams of the command that is asked for."""
    first, streams, _, _ = socket.recv_fds(asker, 1, 3)
    words, folder, environment = json.loads(first + asker.makefile("rb").readline())
    return words, folder, environment, streams


def refuse(asker: socket.socket) -> None:
    """Leave the command to a new interpreter."""
    for stream in requested(asker)[-1]:
        os.close(stream)
    asker.sendall(b"0\n")


def keep(asker: socket.socket) -> list[str]:
    """Fork once more, tell who asked how that ends, and end it if who asked is gone.

    Returns:
        As `serve`, in the forked process.
    """
    words, folder, environment, streams = requested(asker)
    if (command := os.fork()) == 0:
        asker.close()
        become(folder, environment, streams)
        return words
    asker.sendall(f"{command}\n".encode())
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(command)
    if ended not in select.select([ended, asker], [], [])[0]:
        os.kill(command, signal.SIGKILL)
    status = os.waitpid(command, 0)[1]
    with contextlib.suppress(BrokenPipeError):
        asker.sendall(f"{status}\n".encode())
    os._exit(0)


def become(folder: str, environment: dict[str, str], streams: list[int]) -> None:
    """Make this process as a new one would be, started in a folder, with an environment."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    here = Path(__file__).parent
    shared = [path for path in sys.path if path != str(here)]
    added = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [folder, *added, *shared]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", 1 if os.isatty(1) else -1, closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(  # noqa: SIM115
        2, "w", 1, errors="backslashreplace", closefd=False
    )


def run(words: list[str]) -> None:
    """Run `python <words>` in this process."""
    status: list[int] = []
    atexit.register(end_at_once, status)  # the first to be registered is the last to be called
    try:
        run_module(words)
    except SystemExit as stop:
        status += [stop.code or 0] if isinstance(stop.code, int | None) else []
        raise
    else:
        status.append(0)


def end_at_once(status: list[int]) -> None:
    """Leave out the interpreter's clean-up of all modules, which copies the server's memory.

    It takes 0.45 s, four times as long as the rest. Without a status an exception ends the program.
    """
    if status:
        with contextlib.suppress(OSError, ValueError):  # the interpreter says what is wrong
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status[0])


def run_module(words: list[str]) -> None:
    """Run it as the interpreter does."""
    sys.orig_argv[:] = [sys.executable, *words]
    if words[0] == "-W":
        sys.warnoptions.append(words[1])
        warnings.simplefilter("error")
    _, module, *sys.argv[1:] = words[-len(without_warnings(words)) :]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def without_warnings(words: list[str]) -> list[str]:
    """Return a command line without `-W error`."""
    return words[2:] if words[:2] == ["-W", "error"] else words


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        run(serve(sys.argv[2]))
    elif ADDRESS in os.environ and without_warnings(sys.argv[1:])[0] == "-m":
        ask(sys.argv[1:])
    else:
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
