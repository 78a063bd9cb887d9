"""The server under load: a reload and a SIGTERM in it lose no answer."""

import contextlib
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Command, environment, has_command
from tests.warm import PYTHON

ASKED = (
    ROOT / "src" / "data" / "fizzbuzz.py"
)  # a project may delete the model whose question this is
pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(
        not (has_command("serve") and ASKED.is_file()),
        reason="the command or the FizzBuzz classifier is not there",
    ),
]
pytest.importorskip("fastapi_offline")
pytest.importorskip("uvicorn")
SECONDS = 6  # under load; a reload and a SIGTERM are in it
CLIENTS = 16  # that keep their connection
FRESH = 100  # that open one per question: most of them wait to be accepted
# The server, with less patience for its last clients.
IMPATIENT = """
import runpy
from src.kindling.serve import server
server.DRAIN_SECONDS = 1
runpy.run_module("src.serve", run_name="__main__", alter_sys=True)
"""


class Server:
    """`python -m src.serve` on a free port."""

    def __init__(
        self, command: Command, *arguments: str, start: tuple[str, ...] = ("-m", "src.serve")
    ) -> None:
        words = [*PYTHON, "-W", "error", *start, "port=0", "threads=1", *arguments]
        self.process = subprocess.Popen(
            [*words, f"log_dir={command.log_dir}"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/predict", line)
        assert found is not None, line + self.process.stdout.read()
        self.port = int(found[1])

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        content = reply.read().decode()
        connection.close()
        return reply.status, content

    def predict(self, body: str) -> tuple[int, str]:
        return self.ask("POST", "/predict", body)


@pytest.fixture
def command(command: Command) -> Command:
    words = ("trainer.max_epochs=5", "logger=none", "~callbacks.figures")
    command("train", "model=fizzbuzz", "trainer.accelerator=cpu", *words)
    return command


@pytest.fixture
def server(command: Command) -> Iterator[Server]:
    one = Server(command, "max_bytes=10000", "max_rows=500")
    one.ask("GET", "/health")  # the kernel accepts its connection before the server does
    yield one
    one.process.kill()
    one.process.communicate()


def test_it_answers_as_predict_does_and_refuses_in_one_line(
    server: Server, command: Command
) -> None:
    status, content = server.predict('{"numbers": [15, 301]}')
    assert status == 200
    assert [row["number"] for row in json.loads(content)["answers"]] == [15, 301]
    for body, setting in (('{"number": 3}', "number=3"), ('{"numbers": -1}', "numbers=-1")):
        status, content = server.predict(body)
        assert status == 422
        line = command("predict", setting, status=2).stderr
        assert f"error: {json.loads(content)['error']}\n" == line
    assert server.predict('{"numbers": "1..501"}')[0] == 422
    status, content = server.predict(" " * 10_001)
    assert (status, "larger than 10000 bytes" in content) == (422, True)
    assert server.ask("GET", "/health", Host="evil.example")[0] == 400
    openapi = json.loads(server.ask("GET", "/openapi.json")[1])
    schema = openapi["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert list(schema["schema"]["properties"]) == ["numbers"]
    status, page = server.ask("GET", "/docs")
    assert (status, re.findall(r"https?://[^\"']*", page)) == (200, [])
    for script in re.findall(r'(?:src|href)="([^"]*\.(?:js|css))"', page):
        assert server.ask("GET", script)[0] == 200


def test_a_taken_port_is_one_line(server: Server, command: Command) -> None:
    refused = command("serve", f"port={server.port}", status=2).stderr
    assert refused.startswith(f"error: port={server.port}: Address already in use")


def test_headers_that_do_not_end_close_their_connection(server: Server) -> None:
    start = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as slow,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as large,
    ):
        for client, words in ((slow, start), (large, start + b"x: " + b"a" * 100_000)):
            client.sendall(words)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
    assert server.predict("{}")[0] == 200


def test_a_client_that_reads_no_answer_does_not_prevent_the_end(command: Command) -> None:
    server = Server(command, start=("-c", IMPATIENT))
    server.ask("GET", "/health")
    body = b'{"numbers": "1..1000"}'
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(5)
        client.connect(("127.0.0.1", server.port))
        with contextlib.suppress(TimeoutError):  # it waits for its answers to be read
            client.sendall((head.encode() + body) * 400)
        server.process.send_signal(signal.SIGTERM)
        printed, _ = server.process.communicate(timeout=60)
    assert (server.process.returncode, "Traceback" in printed) == (143, False)


def test_a_signal_before_the_first_question_ends_it(command: Command) -> None:
    server = Server(command)
    server.process.send_signal(signal.SIGTERM)
    server.process.communicate(timeout=60)
    assert server.process.returncode == 143


def test_a_reload_takes_the_new_checkpoint_or_keeps_the_old(
    server: Server, command: Command
) -> None:
    best = command.latest / "checkpoints" / "best.ckpt"
    assert server.ask("POST", "/reload") == (200, '{"reloaded": false}')
    replace(best, best.read_bytes())
    assert server.ask("POST", "/reload") == (200, '{"reloaded": true}')
    replace(best, b"not a checkpoint")
    status, content = server.ask("POST", "/reload")
    assert (status, "the earlier checkpoint stays" in content) == (409, True)
    assert server.predict("{}")[0] == 200


def replace(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


class Client(threading.Thread):
    """Asks over one connection or several, and counts what comes of each question."""

    def __init__(self, port: int, fresh: bool) -> None:
        super().__init__()
        self.port, self.counts = port, Counter[str]()
        self.headers = {"Connection": "close"} if fresh else {}

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while True:
            try:
                connection.connect() if connection.sock is None else None
            except OSError:
                return  # it has stopped listening
            number = self.counts["answered"] % 900
            try:
                asked = json.dumps({"numbers": number})
                connection.request("POST", "/predict", asked, self.headers)
                with connection.getresponse() as reply:
                    [row] = json.loads(reply.read())["answers"]
            except (OSError, http.client.HTTPException):
                self.counts["lost"] += 1
                connection.close()
            else:
                self.counts["answered" if row["number"] == number else "wrong"] += 1


def test_nothing_is_lost_under_load_with_a_reload_and_a_sigterm(
    server: Server, command: Command
) -> None:
    clients = [Client(server.port, fresh=i >= CLIENTS) for i in range(CLIENTS + FRESH)]
    for client in clients:
        client.start()
    time.sleep(SECONDS / 2)
    best = command.latest / "checkpoints" / "best.ckpt"
    shutil.copy(best, best.with_suffix(".copy"))
    best.with_suffix(".copy").replace(best)
    assert server.ask("POST", "/reload") == (200, '{"reloaded": true}')
    time.sleep(SECONDS / 2)
    server.process.send_signal(signal.SIGTERM)
    for client in clients:
        client.join(timeout=60)
    assert server.process.wait(timeout=60) == 143
    total = sum((client.counts for client in clients), Counter[str]())
    print(total)
    assert total["answered"] > 100
    assert (total["lost"], total["wrong"]) == (0, 0)
    assert server.process.stdout is not None
    assert server.process.stdout.read() == f"stopped after {total['answered']} answers\n"
