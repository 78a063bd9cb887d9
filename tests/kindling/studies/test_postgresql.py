"""A study on a real PostgreSQL server, which the tests start on loopback; make test-services."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.kindling.studies import trials
from tests.conftest import ROOT, environment
from tests.kindling.conftest import Command

pytestmark = pytest.mark.services
PLACES = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
WORDS = (
    "study.name=p", "model=line", "optimizer.lr=interval(0.1,0.4)", "logger=csv",
    "~callbacks.figures", "study.trials=6", "study.heartbeat=1", "study/pruner=none",
)  # fmt: skip


class Server:
    """A PostgreSQL server with its files in a folder.

    Args:
        binaries: where initdb and pg_ctl are.
        folder: where its files go.
    """

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries, self.folder = binaries, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://tester@127.0.0.1:{self.port}/postgres"

    def run(self, name: str, *words: str) -> None:
        """Run one of the server's programs; it refuses to run as root."""
        line = [str(self.binaries / name), *words]
        if os.geteuid() == 0:
            line = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *line]
        subprocess.run(line, check=True, capture_output=True, cwd=self.folder, timeout=120)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        data, log = str(self.folder / "data"), str(self.folder / "log")
        self.run("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")

    def stop(self) -> None:
        """Stop it at once, as a restart of its machine does."""
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a running server."""
    binaries = next((place for place in PLACES if (place / "initdb").is_file()), None)
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    folder = Path("/tmp") / f"kindling-postgresql-{os.getpid()}"  # a path that its user may enter
    folder.mkdir()
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    made = Server(binaries, folder)
    try:
        made.run("initdb", "-D", str(folder / "data"), "-U", "tester", "--auth=trust")
        made.start()
        yield made
        made.stop()
    finally:
        shutil.rmtree(folder)


def load(server: Server) -> Any:
    import optuna

    url = server.url.replace("postgresql:", "postgresql+psycopg:")
    storage = optuna.storages.RDBStorage(url)
    study = optuna.load_study(study_name="p", storage=storage)
    found = trials.latest(study)
    storage.engine.dispose()
    return found


def test_two_workers_share_a_study_and_the_server_restarts_meanwhile(
    server: Server, command: Command
) -> None:
    line = command.line("study", *WORDS, f"study.storage={server.url}")
    workers = [
        subprocess.Popen(
            line, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    folder = command.log_dir / "study" / "p"
    deadline = time.monotonic() + 120
    while not list(folder.glob("trial-0001/run.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server.stop()
    time.sleep(1)
    server.start()
    printed = [worker.communicate(timeout=300)[0] for worker in workers]
    # A worker whose transaction was cut off may end; another start continues its trial.
    if any(worker.returncode for worker in workers):
        command("study", *WORDS, f"study.storage={server.url}")
    found = load(server)
    assert sorted(found) == list(range(6)), printed
    assert {trial.state.name for trial in found.values()} == {"COMPLETE"}, printed
    assert not (folder / "study.db").exists()


def test_no_password_is_written_or_printed(server: Server, command: Command) -> None:
    url = server.url.replace("tester@", "tester:s3cret@")
    done = command("study", *WORDS, "study.name=q", "study.trials=1", f"study.storage={url}")
    assert "s3cret" not in done.stdout + done.stderr
    files = [path for path in command.log_dir.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if b"s3cret" in path.read_bytes()] == []
