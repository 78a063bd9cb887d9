"""Run the HTTP server until a signal, and finish what has begun."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from src.kindling.config.values import check_options
from src.kindling.errors import InputError, printable
from src.kindling.layout import Plain
from src.kindling.process import signals
from src.kindling.serve.app import HOSTS, Service, create_app

LIMITS = ("max_rows", "max_bytes", "max_batch", "max_waiting")
OPTIONS = {
    **dict.fromkeys((*LIMITS, "max_connections"), PositiveInt),
    "threads": PositiveInt | None,
    "port": Annotated[int, Field(ge=0, lt=2**16)],
}
LOOK = 0.05  # seconds between two looks for a signal
HEAD_SECONDS, HEAD_BYTES = 10, 2**16  # for the headers of a request
DRAIN_SECONDS = 60  # after a signal, for answers; a client may never read its own
LEAVE = 0.5  # seconds for clients to be told that their connection closes


def check(settings: Plain) -> None:
    """Validate the settings before anything is loaded.

    Raises:
        InputError: naming the key.
    """
    check_options(settings, OPTIONS)


def serve(find: Callable[[], Path], settings: Plain) -> None:
    """Serve a checkpoint on 127.0.0.1.

    Raises:
        InputError: the checkpoint cannot be served, or the port is taken.
        Stopped: a signal stopped the server, after the last answer.
    """
    import torch
    import uvicorn

    if settings["threads"]:
        torch.set_num_threads(settings["threads"])

    class Server(uvicorn.Server):
        """A server that leaves the signals to this process."""

        def capture_signals(self) -> Any:
            return contextlib.nullcontext()

    with listening(settings["port"]) as port, signals.defer_signals():
        service = Service(find, {key: settings[key] for key in LIMITS})
        config = uvicorn.Config(
            create_app(service),
            log_level="critical",  # a line per client that misbehaves would fill a disk
            access_log=False,
            limit_concurrency=settings["max_connections"],
            http=bounded_protocol(),
        )
        address = f"http://{HOSTS[0]}:{port.getsockname()[1]}"
        line = f"{service.served.checkpoint}: {address}/predict, /health, /docs"
        print(printable(line), flush=True)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_until_signal(Server(config), port, service))
        number = signals.pending_signal()
    how = f"stopped after {service.answered} answers"
    print(how, flush=True)
    raise signals.Stopped(number, how)


def bounded_protocol() -> Any:
    """Return uvicorn's protocol, extended to close a connection whose headers do not end.

    httptools collects headers of any size, and uvicorn waits for them forever.
    """
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Bounded(HttpToolsProtocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.await_headers()

        def await_headers(self) -> None:
            self.size, self.timer = 0, self.loop.call_later(HEAD_SECONDS, self.transport.close)

        def data_received(self, data: bytes) -> None:
            self.size += len(data)
            super().data_received(data)
            if self.size > HEAD_BYTES and not self.timer.cancelled():
                self.transport.close()

        def on_headers_complete(self) -> None:
            self.timer.cancel()
            super().on_headers_complete()

        def on_response_complete(self) -> None:
            is_last = not self.pipeline  # else the headers of the next request are here
            super().on_response_complete()
            if is_last and not self.transport.is_closing():
                self.await_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self.timer.cancel()
            super().connection_lost(exc)

    return Bounded


def listening(port: int) -> socket.socket:
    """Return a socket of this machine's own that listens.

    Raises:
        InputError: the port is taken.
    """
    try:
        return socket.create_server((HOSTS[0], port), backlog=1024)
    except OSError as error:
        raise InputError(f"port={port}: {error.strerror}; port=0 takes a free one") from None


def accept_waiting(server: Any, listener: socket.socket) -> list[Any]:
    """Accept the connections that wait to be: they would be reset when the listener closes.

    uvloop accepts one per turn of its loop, so that under load almost all clients wait there.
    """
    loop, config, state = asyncio.get_running_loop(), server.config, server.server_state

    def protocol() -> Any:
        return config.http_protocol_class(
            config=config, server_state=state, app_state=server.lifespan.state
        )

    accepted = []
    with contextlib.suppress(BlockingIOError):
        while True:
            accepted.append(loop.connect_accepted_socket(protocol, listener.accept()[0]))
    return accepted


async def _until_signal(server: Any, listener: socket.socket, service: Service) -> None:
    """Serve until a signal; then close each connection after the answer that it waits for."""
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not (server.started and signals.pending_signal()) and not running.done():
        await asyncio.sleep(LOOK)
    service.stopping = True
    accepted = accept_waiting(server, listener)
    for one in server.servers:
        one.close()  # new clients are refused; those that are here get an answer to what they ask
    await asyncio.gather(*accepted)
    await asyncio.sleep(LEAVE)
    server.should_exit = True
    await asyncio.wait([running], timeout=DRAIN_SECONDS)
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    await running
