"""Requests to the API server, with objects as plain dictionaries.

The client's models would take several times the memory of what they describe, and one of them
breaks Leases: it drops microseconds that are zero, and the API server then refuses the time.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.config.config_exception import ConfigException

Object = dict[str, Any]

FIELD_MANAGER = "headrace-operator"
"""Who owns, in server-side apply, the fields that we write."""
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
_JSON = "application/json"
_ANSWER_SECONDS = 30.0
_CONNECTIONS = 64

NOT_FOUND, CONFLICT, GONE, UNPROCESSABLE, TOO_MANY = 404, 409, 410, 422, 429
_ERROR = 400


class ApiError(Exception):
    """The API server refused, or could not be reached.

    Attributes:
        status: Its HTTP status; 0 if there was no answer.
        reason: Its word for it, for example ``AlreadyExists``; empty if there was no answer.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def passes(self) -> bool:
        """Whether the same request may well succeed later."""
        return self.status in (0, CONFLICT, TOO_MANY) or self.status >= 500


class NoClusterError(Exception):
    """There is no API server to speak to; the text says what was tried."""


def _unguarded() -> None:
    """Everybody may write."""


class ApiServer:
    """One API server.

    Attributes:
        before_write: Called before each request that changes something; raises to prevent it.
        observe: Told of each request: verb and status.
    """

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self.before_write: Callable[[], None] = _unguarded
        self.observe: Callable[[str, int], None] = lambda verb, status: None

    @classmethod
    async def connect(cls, kubeconfig: str) -> "ApiServer":
        """Reads where it is and who we are; opens no connection yet.

        Args:
            kubeconfig: A file; empty for the service account of the pod that this runs in.

        Raises:
            NoClusterError: There is neither.
        """
        settings = client.Configuration()
        try:
            if kubeconfig:
                await config.load_kube_config(kubeconfig, client_configuration=settings)
            else:
                config.load_incluster_config(settings)
        except (ConfigException, OSError) as error:
            where = kubeconfig or "the pod's service account"
            raise NoClusterError(
                f"cannot read how to reach the API server from {where}: {error}; give --kubeconfig "
                "FILE outside of a cluster"
            ) from error
        settings.connection_pool_maxsize = _CONNECTIONS
        return cls(client.ApiClient(settings))

    async def close(self) -> None:
        """Ends all connections."""
        await self._api.close()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Object:
        """Reads an object or a list."""
        return await self._answer("GET", path, query)

    async def create(self, path: str, document: Object) -> Object:
        """Creates an object in the collection ``path``."""
        return await self._answer("POST", path, {"fieldManager": FIELD_MANAGER}, document)

    async def replace(self, path: str, document: Object) -> Object:
        """Replaces an object, if it still has the resourceVersion that ``document`` names."""
        return await self._answer("PUT", path, {"fieldManager": FIELD_MANAGER}, document)

    async def merge(self, path: str, patch: Object) -> Object:
        """Changes some fields; with a resourceVersion in it, only if that is still current."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self._answer("PATCH", path, query, patch, content=MERGE)

    async def apply(self, path: str, document: Object) -> Object:
        """Server-side apply: exactly these fields are ours, whoever else wrote them."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._answer("PATCH", path, query, document, content=APPLY)

    async def delete(self, path: str, uid: str) -> None:
        """Deletes an object, if it still has that uid."""
        await self._answer("DELETE", path, None, {"preconditions": {"uid": uid}})

    async def watch(
        self, path: str, query: Mapping[str, str], idle_seconds: float
    ) -> AsyncIterator[Object]:
        """The events of a watch until the server ends it.

        Args:
            path: The collection.
            query: Beside ``watch``, for example ``resourceVersion``.
            idle_seconds: With nothing for so long, the connection counts as lost.

        Raises:
            ApiError: It was refused, or the connection was lost.
        """
        limits = aiohttp.ClientTimeout(total=None, connect=_ANSWER_SECONDS, sock_read=idle_seconds)
        try:
            response = await self._request("GET", path, {**query, "watch": "true"}, limits=limits)
            async with response:
                if response.status >= _ERROR:
                    raise _refusal(response.status, await response.read())
                async for line in response.content:
                    yield json.loads(line)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ApiError(0, "", f"the watch was lost: {_said(error)}") from error

    async def _answer(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        content: str = _JSON,
    ) -> Object:
        if verb != "GET":
            self.before_write()
        limits = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        status = 0
        try:
            response = await self._request(verb, path, query, body, content, limits)
            async with response:
                said, status = await response.read(), response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(0, "", f"the API server does not answer: {_said(error)}") from error
        finally:
            self.observe(verb, status)
        if status >= _ERROR:
            raise _refusal(status, said)
        document: Object = json.loads(said)
        return document

    async def _request(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content: str = _JSON,
        limits: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": _JSON, "Content-Type": content, "User-Agent": FIELD_MANAGER}
        pairs: list[tuple[str, str]] = list((query or {}).items())
        # A service account's token changes while we run; the client knows when.
        await self._api.update_params_for_auth(headers, pairs, ["BearerToken"], path, verb, body)
        url = f"{self._api.configuration.host}{quote(path)}"
        if pairs:
            url += f"?{urlencode(pairs)}"
        answer = await self._api.rest_client.request(
            verb, url, headers=headers, body=body, _request_timeout=limits
        )
        response: aiohttp.ClientResponse = answer.response
        return response


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _refusal(status: int, said: bytes) -> ApiError:
    try:
        told = json.loads(said)
    except ValueError:
        told = {}
    told = told if isinstance(told, dict) else {}
    message = told.get("message") or said[:500].decode(errors="replace") or f"HTTP {status}"
    return ApiError(status, str(told.get("reason", "")), str(message))


async def pause(seconds: float) -> None:
    """Waits; a name of its own, because everything else here waits for events."""
    await asyncio.sleep(seconds)
