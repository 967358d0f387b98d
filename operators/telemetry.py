"""Metrics and health of the operator. Labels are closed sets, never objects."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Info, generate_latest

_GRACE_SECONDS = 1.0
_PLAIN = "text/plain; version=0.0.4; charset=utf-8"


class Telemetry:
    """Every metric, in a registry of its own."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        build = Info("headrace_operator_build", "Which operator this is.", registry=self.registry)
        build.info({"version": version})
        self.leads = Gauge(
            "headrace_operator_leads", "1 while this replica leads.", registry=self.registry
        )
        self.term = Gauge(
            "headrace_operator_term", "Term under which it leads.", registry=self.registry
        )
        self._requests = Counter(
            "headrace_operator_api_server_requests",
            "Requests to the API server, but no watches, by verb and status; 0 for no answer.",
            ("verb", "status"),
            registry=self.registry,
        )
        self._calls = Counter(
            "headrace_operator_control_plane_calls",
            "Calls to the control plane by method and code.",
            ("method", "code"),
            registry=self.registry,
        )

    def request(self, verb: str, status: int) -> None:
        """A request to the API server ended."""
        self._requests.labels(verb, str(status)).inc()

    def call(self, method: str, code: str) -> None:
        """A call to the control plane ended."""
        self._calls.labels(method, code).inc()

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A number that is looked up whenever somebody asks; the last one of a name counts."""
        if name not in self._gauges:
            self._gauges[name] = Gauge(f"headrace_operator_{name}", text, registry=self.registry)
        self._gauges[name].set_function(value)


class Page:
    """``/healthz``, ``/readyz`` and ``/metrics``, over plain HTTP."""

    def __init__(self, telemetry: Telemetry, not_ready: Callable[[], str]) -> None:
        """Listens to nothing yet.

        Args:
            telemetry: What ``/metrics`` shows.
            not_ready: Why it is not ready; empty when it is.
        """
        self._telemetry = telemetry
        self._not_ready = not_ready
        self.address = ""

    async def start(self, address: str) -> None:
        """Listens.

        Raises:
            OSError: The address cannot be bound.
        """
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=_GRACE_SECONDS
        )
        await self._runner.setup()
        host, _, port = address.rpartition(":")
        await web.TCPSite(self._runner, host.strip("[]"), int(port)).start()
        self.address = f"{host}:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """Listens no more."""
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        # That it is answered says that the event loop lives.
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        why = self._not_ready()
        return web.Response(text=f"{why or 'ok'}\n", status=503 if why else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self._telemetry.registry)
        return web.Response(body=body, headers={"Content-Type": _PLAIN})
