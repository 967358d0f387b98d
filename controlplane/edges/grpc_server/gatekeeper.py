"""What happens around every call: who is it, may it, and how is a refusal answered."""

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing
from typing import Any

import grpc
import structlog
from grpc import aio

from controlplane.edges.grpc_server.errors import (
    DETAILS_KEY,
    RefusedError,
    denied,
    from_invalid_message,
    unavailable,
)
from controlplane.edges.grpc_server.roles import (
    ALLOWED,
    LOCAL,
    LOCAL_OPERATOR,
    Caller,
    Role,
    RoleMap,
    caller,
)
from controlplane.edges.store.errors import StoreClosedError, StoreUnavailableError
from controlplane.engine.ports import TermLostError
from controlplane.wire.violations import InvalidMessageError

ROLE_KEY = "headrace-role"
_SAYS_OPERATOR = (ROLE_KEY, Role.OPERATOR.value)
_ALWAYS = frozenset(
    method
    for method in ALLOWED
    if method.startswith("/grpc.") or method.endswith("AdminService/GetCluster")
)
Context = aio.ServicerContext[Any, Any]
Observer = Callable[[str, str, float], None]
"""Told of each call: method, code, seconds."""

log = structlog.get_logger(__name__)


Fence = Callable[[Iterable[tuple[str, str | bytes]]], Coroutine[Any, Any, None]]
"""Given the metadata of an operator's call; raises RefusedError for one that was deposed."""


async def _unfenced(metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Every operator may act."""


def _unobserved(method: str, code: str, seconds: float) -> None:
    """Nobody watches."""


class Gatekeeper(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Checks the role of every caller and turns refusals into status codes.

    Services are added to it as to a server, and the server is given it alone: so no call passes
    it by, and a call costs less than with an interceptor, which gRPC runs as one more coroutine.

    Attributes:
        roles: What certificates' identities are; None where nobody is authenticated.
        monotonic: Nanoseconds for measuring calls.
        observe: Told of every finished call.
        fence: Asked about every call of an operator.
    """

    def __init__(
        self,
        roles: RoleMap | None,
        monotonic: Callable[[], int],
        observe: Observer = _unobserved,
        fence: Fence = _unfenced,
    ) -> None:
        self.roles = roles
        self._monotonic = monotonic
        self._observe = observe
        self._fence = fence
        self._services: list[grpc.GenericRpcHandler[Any, Any]] = []
        self._wrapped: dict[tuple[str, bool], Any] = {}
        self.closed = ""
        """Why only health, reflection and GetCluster are answered; empty when all is."""

    def add_generic_rpc_handlers(
        self, handlers: Iterable["grpc.GenericRpcHandler[Any, Any]"]
    ) -> None:
        """Puts a service behind the gate; generated code calls this."""
        self._services.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """The same methods again, which generated code tells a server apart."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of the call with this gate around it; made once for each method."""
        method = handler_call_details.method
        says_operator = _SAYS_OPERATOR in (handler_call_details.invocation_metadata or ())
        known = self._wrapped.get((method, says_operator))
        if known is None:
            found = (service.service(handler_call_details) for service in self._services)
            handler = next((each for each in found if each is not None), None)
            if handler is None:
                return None
            unknown = LOCAL_OPERATOR if says_operator else LOCAL
            known = self._wrapped[method, says_operator] = self._wrap(method, handler, unknown)
        return known

    def identify(self, context: Context, unauthenticated: Caller) -> Caller:
        """Who makes this call.

        Args:
            context: The call's.
            unauthenticated: Who it is where nobody is authenticated.

        Raises:
            RefusedError: The certificate is of nobody who is known.
        """
        if self.roles is None:
            return unauthenticated
        names = _certificate_names(context)
        found = self.roles.find(names)
        if found is None:
            raise denied(f"the certificate of {', '.join(names) or 'nobody'} maps to no role")
        return found

    async def _admit(self, method: str, context: Context, unauthenticated: Caller) -> None:
        if self.closed and method not in _ALWAYS:
            raise unavailable(f"{self.closed}; try again")
        who = self.identify(context, unauthenticated)
        if not who.may_call(method):
            allowed = ", ".join(sorted(ALLOWED.get(method, ()))) or "nobody"
            raise denied(
                f"{who.identity} has role {who.role}; {method.rsplit('/', 1)[-1]} is for {allowed}"
            )
        if who.role is Role.OPERATOR and method not in _ALWAYS:
            await self._fence(context.invocation_metadata() or ())
        caller.set(who)

    def _wrap(self, method: str, handler: Any, unauthenticated: Caller) -> Any:
        if handler.response_streaming:
            inner = handler.stream_stream if handler.request_streaming else handler.unary_stream
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            serve = self._streaming(method, inner, unauthenticated)
        else:
            inner = handler.stream_unary if handler.request_streaming else handler.unary_unary
            make = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            serve = self._answering(method, inner, unauthenticated)
        return make(
            serve,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _answering(self, method: str, inner: Any, unauthenticated: Caller) -> Any:
        async def serve(request: Any, context: Context) -> Any:
            started = self._monotonic()
            code = "OK"
            try:
                await self._admit(method, context, unauthenticated)
                return await inner(request, context)
            except Exception as error:
                refused = _refusal(error, method)
                code = refused.code.name
            finally:
                self._observe(method, code, (self._monotonic() - started) / 1e9)
            await _abort(context, refused)
            return None

        return serve

    def _streaming(self, method: str, inner: Any, unauthenticated: Caller) -> Any:
        generates = inspect.isasyncgenfunction(inner)

        async def serve(request: Any, context: Context) -> AsyncIterator[Any]:
            started = self._monotonic()
            code = "OK"
            refused = None
            try:
                await self._admit(method, context, unauthenticated)
                if generates:
                    async with aclosing(inner(request, context)) as answers:
                        async for answer in answers:
                            yield answer
                else:
                    await inner(request, context)
            except Exception as error:
                refused = _refusal(error, method)
                code = refused.code.name
            finally:
                self._observe(method, code, (self._monotonic() - started) / 1e9)
            if refused is not None:
                await _abort(context, refused)

        return serve


def _certificate_names(context: Context) -> list[str]:
    told = context.auth_context()
    found = [*told.get("x509_subject_alternative_name", ()), *told.get("x509_common_name", ())]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in found]


def _refusal(error: Exception, method: str) -> RefusedError:
    match error:
        case RefusedError():
            return error
        case InvalidMessageError():
            return from_invalid_message(error)
        case StoreUnavailableError() | StoreClosedError():
            return unavailable(f"{error}; try again")
        case TermLostError():
            return unavailable("another control plane decides now; ask that one")
        case aio.AbortError():
            raise error
    log.error("call failed", method=method, exc_info=error)
    return RefusedError(
        grpc.StatusCode.INTERNAL,
        f"{method.rsplit('/', 1)[-1]} failed inside the control plane ({type(error).__name__}); "
        "its log has the story",
    )


async def _abort(context: Context, refused: RefusedError) -> None:
    await context.abort(
        refused.code, refused.message, trailing_metadata=((DETAILS_KEY, refused.details()),)
    )
