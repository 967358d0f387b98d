"""What objects of one kind there are: a list, then a watch that goes on where it was.

The watch may be lost, slow, or too far behind (410 Gone). None of that is an error: it is resumed
from the last version, or everything is listed anew and compared with what was known.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import structlog

from operators.runtime.api_server import GONE, ApiError, ApiServer, Object, pause

Key = tuple[str, str]
"""Namespace and name; the namespace of what has none is empty."""

PAGE = 500
WATCH_SECONDS = 60
"""After so long the server ends a watch in which nothing was wrong, and it is resumed."""
_IDLE_SECONDS = WATCH_SECONDS + 10.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Kept(Protocol):
    """What is kept of an object."""

    @property
    def key(self) -> Key: ...
    @property
    def uid(self) -> str: ...
    @property
    def version(self) -> int: ...


T = TypeVar("T", bound=Kept)


def version_of(document: Mapping[str, object]) -> int:
    """The resourceVersion, which Kubernetes lets clients compare as a number since 1.35."""
    metadata = document["metadata"]
    assert isinstance(metadata, Mapping)
    return int(str(metadata["resourceVersion"]))


class Informer(Generic[T]):
    """The objects of a kind, in some collections."""

    def __init__(
        self,
        server: ApiServer,
        paths: Sequence[str],
        keep: Callable[[Object], T],
        heard: Callable[[Key, T | None, T | None], None],
        selector: str = "",
    ) -> None:
        """Asks nobody yet.

        Args:
            server: Where they are.
            paths: Collections, which have no object in common.
            keep: Takes of an object what is needed.
            heard: Told of each change: key, what was kept before, what is kept now.
            selector: Of labels; empty for all.
        """
        self._server = server
        self._paths = {path: set[Key]() for path in paths}
        self._keep = keep
        self._heard = heard
        self._selected = {"labelSelector": selector} if selector else {}
        self._unlisted = set(paths)
        self.objects: dict[Key, T] = {}
        self.synced = asyncio.Event()
        """Set when everything was listed once."""
        self.relists = 0
        self.resumed = 0

    async def run(self) -> None:
        """Lists and watches, for ever."""
        async with asyncio.TaskGroup() as group:
            for path in self._paths:
                group.create_task(self._follow(path))

    def note(self, document: Object) -> None:
        """Takes in the answer to a write of our own, ahead of the watch."""
        kept = self._keep(document)
        known = self.objects.get(kept.key)
        # Not one that is gone by now, or newer already.
        if known is not None and known.uid == kept.uid and kept.version > known.version:
            self.objects[kept.key] = kept

    async def _follow(self, path: str) -> None:
        wait, version = _FIRST_PAUSE_SECONDS, 0
        while True:
            try:
                if not version:
                    version = await self._list(path)
                query = _resuming(version) | self._selected
                async for event in self._server.watch(path, query, _IDLE_SECONDS):
                    version = self._take(path, event)
                    wait = _FIRST_PAUSE_SECONDS
            except ApiError as error:
                if error.status == GONE:
                    log.info("a watch is too far behind; listing anew", path=path)
                    self.relists += 1
                    version = 0
                    continue
                log.warning("watch lost", path=path, why=str(error), again_in_seconds=wait)
                self.resumed += 1
                await pause(wait)
                wait = min(2 * wait, _LONGEST_PAUSE_SECONDS)

    async def _list(self, path: str) -> int:
        """Lists everything; what is not there any more is told as gone. Returns the version."""
        mine = self._paths[path]
        missing = set(mine)
        more, version = "", 0
        while True:
            query = {"limit": str(PAGE), **({"continue": more} if more else {}), **self._selected}
            page = await self._server.get(path, query)
            for document in page.get("items", ()):
                kept = self._keep(document)
                missing.discard(kept.key)
                self._changed(mine, kept)
            version = version_of(page)
            more = page["metadata"].get("continue", "")
            if not more:
                break
        for key in missing:
            self._gone(mine, key)
        self._unlisted.discard(path)
        if not self._unlisted:
            self.synced.set()
        return version

    def _take(self, path: str, event: Object) -> int:
        document = event["object"]
        if event["type"] == "ERROR":
            raise ApiError(
                int(document.get("code", 0)), document.get("reason", ""), str(document["message"])
            )
        if event["type"] != "BOOKMARK":
            kept = self._keep(document)
            if event["type"] == "DELETED":
                self._gone(self._paths[path], kept.key)
            else:
                self._changed(self._paths[path], kept)
        return version_of(document)

    def _changed(self, mine: set[Key], kept: T) -> None:
        known = self.objects.get(kept.key)
        if known is not None and known.uid == kept.uid and known.version >= kept.version:
            return
        mine.add(kept.key)
        self.objects[kept.key] = kept
        self._heard(kept.key, known, kept)

    def _gone(self, mine: set[Key], key: Key) -> None:
        mine.discard(key)
        known = self.objects.pop(key, None)
        if known is not None:
            self._heard(key, known, None)


def _resuming(version: int) -> dict[str, str]:
    return {
        "resourceVersion": str(version),
        "allowWatchBookmarks": "true",
        "timeoutSeconds": str(WATCH_SECONDS),
    }
