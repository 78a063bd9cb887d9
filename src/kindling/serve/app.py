"""The HTTP interface: questions that wait are answered together, one batch at a time."""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pydantic

from src.kindling.errors import InputError, first_line, printable
from src.kindling.files.run_record import json_safe
from src.kindling.layout import Plain
from src.kindling.serve.answering import LOCAL, Served, stamp

HOSTS = ["127.0.0.1", "localhost"]
BODY_SECONDS = 10  # for a client to send its question
QUICK = 0.02  # seconds that other clients wait for a batch without noticing


class BusyError(Exception):
    """Raised when too many questions wait."""


class Service:
    """A checkpoint, the questions that wait for it, and whether it stops.

    Args:
        find: returns the checkpoint to serve; asked again by a reload.
        limits: max_rows, max_bytes, max_batch, max_waiting.
    """

    def __init__(self, find: Callable[[], Path], limits: dict[str, int]) -> None:
        self.find, self.limits = find, limits
        self.served = Served(find(), limits["max_rows"])
        self.waiting: deque[tuple[Plain, asyncio.Future[Any]]] = deque()
        self.arrived, self.reloading = asyncio.Event(), asyncio.Lock()
        self.stopping, self.answered = False, 0
        self.seconds = 0.0  # of the last batch

    async def ask(self, asked: Plain) -> Any:
        """Answer a question, together with those that wait by then.

        Raises:
            BusyError: too many questions wait.
        """
        if len(self.waiting) >= self.limits["max_waiting"]:
            raise BusyError
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((asked, future))
        self.arrived.set()
        return await future

    async def run(self) -> None:
        """Answer the questions that wait, forever."""
        while True:
            await self.arrived.wait()
            self.arrived.clear()
            while self.waiting:
                size = min(self.limits["max_batch"], len(self.waiting))
                taken = [self.waiting.popleft() for _ in range(size)]
                questions = [asked for asked, _ in taken]
                answers = await self._answer(questions)
                self.answered += size
                for (_, future), answer in zip(taken, answers, strict=True):
                    if not future.done():  # its client may be gone
                        future.set_result(answer)

    async def _answer(self, questions: list[Plain]) -> list[Any]:
        """Answer in this thread while that is quick: two would wait for each other's GIL."""
        start = time.perf_counter()
        if self.seconds < QUICK:
            answers = self.served.answer(questions)
            await asyncio.sleep(0)  # for other clients
        else:
            answers = await asyncio.to_thread(self.served.answer, questions)
        self.seconds = time.perf_counter() - start
        return answers

    async def reload(self) -> bool:
        """Load the checkpoint again if it was replaced, and return whether it was.

        Raises:
            InputError: the new one cannot be loaded; the old one stays.
        """
        async with self.reloading:
            path = self.find()
            if path == self.served.checkpoint and stamp(path) == self.served.stamp:
                return False
            self.served = await asyncio.to_thread(Served, path, self.limits["max_rows"])
            return True


def create_app(service: Service) -> Any:
    """Return the ASGI application of a service."""
    from fastapi import Request, Response
    from fastapi_offline import FastAPIOffline
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    def reply(status: int, content: Plain) -> Response:
        text = json.dumps(json_safe(content), allow_nan=False)
        return Response(text, status, media_type="application/json")

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(service.run())
        yield
        task.cancel()

    # FastAPI with the scripts of its page in the package, where its own come from a CDN.
    app = FastAPIOffline(title="Kindling", redoc_url=None, lifespan=lifespan)
    # Only for this machine: a page in its browser could otherwise ask through a name of its own.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
    body = {"content": {"application/json": {"schema": schema(service.served)}}}

    @app.post("/predict", openapi_extra={"requestBody": body}, responses={422: {}, 503: {}})
    async def predict(request: Request) -> Response:
        """Answer a question; its keys are those of the command `predict`."""
        return reply(*await answered(service, request))

    @app.get("/health")
    async def health() -> Response:
        """Say which checkpoint answers; 503 once the server stops."""
        return reply(*state(service))

    @app.post("/reload")
    async def reload() -> Response:
        """Load the best checkpoint again if it was replaced; the old one answers meanwhile."""
        return reply(*await reloaded(service))

    return closing(app, service)


async def answered(service: Service, request: Any) -> tuple[int, Plain]:
    """Return the status and content of the reply to a question."""
    try:
        asked = parse(await read(request, service.limits["max_bytes"]))
        answer = await service.ask(asked)
    except InputError as error:
        return refusal(422, str(error))
    except BusyError:
        return refusal(503, "too many questions wait; ask again later")
    except TimeoutError:
        return refusal(408, "the question did not arrive in time")
    if isinstance(answer, InputError):
        return refusal(422, str(answer))
    if isinstance(answer, Exception):
        return refusal(500, f"{type(answer).__name__}: {first_line(answer)}")
    return 200, {"answers": answer}


async def reloaded(service: Service) -> tuple[int, Plain]:
    """Return the status and content of the reply to a reload."""
    try:
        return 200, {"reloaded": await service.reload()}
    except (InputError, OSError) as error:
        return refusal(409, f"{first_line(error)}; the earlier checkpoint stays")


def state(service: Service) -> tuple[int, Plain]:
    """Return the status and content of the reply to a health check."""
    facts = {"checkpoint": str(service.served.checkpoint), "answered": service.answered}
    facts |= {"waiting": len(service.waiting), "batches": service.served.joins}
    if service.stopping:
        return 503, {"status": "stopping", **facts}
    return 200, {"status": "ok", **facts}


def refusal(status: int, line: str) -> tuple[int, Plain]:
    """Return a reply that names what is wrong in one line."""
    return status, {"error": printable(line)}


def closing(app: Any, service: Service) -> Any:
    """Have each connection closed after its answer once the server stops."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if service.stopping and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await app(scope, receive, sent)

    return application


async def read(request: Any, most: int) -> bytes:
    """Return the body of a request.

    Raises:
        InputError: it is larger than allowed.
        TimeoutError: it does not arrive.
    """
    content = bytearray()
    async with asyncio.timeout(BODY_SECONDS):
        async for chunk in request.stream():
            content += chunk
            if len(content) > most:
                raise InputError(f"the question is larger than {most} bytes")
    return bytes(content)


def parse(content: bytes) -> Plain:
    """Return a question.

    Raises:
        InputError: it is not a JSON object of standard JSON.
    """

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        asked = json.loads(content or b"{}", parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the question is not JSON: {first_line(error)}") from None
    if not isinstance(asked, dict):
        raise InputError('the question must be a JSON object: {"key": value}')
    return {key: value for key, value in asked.items() if value is not None}


def schema(served: Served) -> Plain:
    """Return the JSON schema of a question, for the OpenAPI page."""
    fields: Any = {
        name: (p.annotation, ... if p.default is p.empty else p.default)
        for name, p in served.arguments.items()
        if name != LOCAL
    }
    try:
        return pydantic.create_model("Question", **fields).model_json_schema()
    except (pydantic.PydanticUserError, TypeError):  # an annotation that JSON cannot express
        return {"type": "object", "properties": {name: {} for name in fields}}
