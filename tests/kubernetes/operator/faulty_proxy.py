"""A proxy between operator and API server, which does to requests what networks and servers do."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import aiohttp
from aiohttp import web

from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.operator.processes import kubeconfig_to

_CONTENT = "application/json"


class Fault(Enum):
    """What becomes of a request."""

    LOST = "it does not arrive"
    UNANSWERED = "it is carried out, and the answer does not come back"


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as rules see it.

    Attributes:
        verb: GET, POST, PUT, PATCH or DELETE; WATCH for a watch.
        path: Without the query.
        number: Counts those about jobs and events, watches aside, from 1; 0 for others.
    """

    verb: str
    path: str
    number: int

    def __str__(self) -> str:
        return f"{self.verb} {self.path.rpartition('/')[2]}"


Rule = Callable[[Request], Fault | int | None]
"""A fault, or the status of a refusal; None lets it pass."""


class FaultyProxy:
    """What passes, and what is done to it.

    Attributes:
        rule: Asked about each request.
        seen: Requests so far.
        kubeconfig: How a client reaches it.
    """

    def __init__(self, kubernetes: ApiServer) -> None:
        self._kubernetes = kubernetes
        self.rule: Rule = lambda request: None
        self.seen: list[Request] = []
        self.kubeconfig = Path()
        self._count = 0
        self._watches: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator["FaultyProxy"]:
        """Listens on loopback."""
        settings = self._kubernetes.client.configuration
        trust = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        if settings.cert_file:
            trust.load_cert_chain(settings.cert_file, settings.key_file)
        connector = aiohttp.TCPConnector(ssl=trust, limit=0)
        async with aiohttp.ClientSession(connector=connector, read_bufsize=2**21) as self._upstream:
            app = web.Application(client_max_size=2**24)
            app.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            address = f"127.0.0.1:{runner.addresses[0][1]}"
            self.kubeconfig = kubeconfig_to(self._kubernetes, address, folder)
            try:
                yield self
            finally:
                self.cut_watches()
                await runner.cleanup()

    def cut_watches(self) -> int:
        """Every watch loses its connection in the middle; returns how many there were."""
        cut = len(self._watches)
        for watch in self._watches:
            watch.cancel()
        return cut

    async def _handle(self, asked: web.Request) -> web.StreamResponse:
        request = self._noted(asked)
        fault = self.rule(request)
        if fault is Fault.LOST:
            return self._dropped(asked)
        if isinstance(fault, int):
            body = {"kind": "Status", "code": fault, "message": "as the test wants it"}
            return web.json_response(body, status=fault)
        headers = {
            name: value
            for name, value in asked.headers.items()
            if name.lower() in ("accept", "content-type", "user-agent")
        }
        url = f"{self._kubernetes.server}{asked.raw_path}"
        async with self._upstream.request(
            asked.method,
            url.replace("%2F", "/"),
            data=await asked.read(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            if request.verb == "WATCH":
                return await self._pass_on(asked, answer)
            said = await answer.read()
        if fault is Fault.UNANSWERED:
            return self._dropped(asked)
        return web.Response(body=said, status=answer.status, content_type=_CONTENT)

    def _noted(self, asked: web.Request) -> Request:
        verb = "WATCH" if asked.query.get("watch") == "true" else asked.method
        counts = verb != "WATCH" and re.search("/(trainingjobs|events)", asked.path) is not None
        self._count += counts
        request = Request(verb, asked.path, self._count if counts else 0)
        self.seen.append(request)
        return request

    @staticmethod
    def _dropped(asked: web.Request) -> web.StreamResponse:
        assert asked.transport is not None
        asked.transport.abort()
        return web.Response()

    async def _pass_on(
        self, asked: web.Request, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": _CONTENT})
        await response.prepare(asked)

        async def copy() -> None:
            async for piece in answer.content.iter_any():
                await response.write(piece)

        watch = asyncio.create_task(copy())
        self._watches.add(watch)
        try:
            await asyncio.wait([watch])
        finally:
            watch.cancel()
            self._watches.discard(watch)
        if watch.cancelled():
            return self._dropped(asked)
        if watch.exception() is None:
            await response.write_eof()
        return response
