"""One leader of several replicas: a Lease, and a term that grows with each leader.

A Lease alone cannot stop a leader that was frozen and wakes up. So the leader writes nothing to
Kubernetes once it could not renew in time by its own clock, which goes on while it is frozen, and
its calls to the control plane carry the term, where a lower one is refused.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from operators.runtime.api_server import CONFLICT, NOT_FOUND, ApiError, ApiServer, Object, pause

TERM_ANNOTATION = "headrace.dev/term"
_LOOK_SECONDS = 1.0
_TRY_AGAIN_SECONDS = 0.5

log = structlog.get_logger(__name__)


class DeposedError(Exception):
    """This replica leads no more."""


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """Which Lease, and for how long it holds.

    Attributes:
        namespace: Where it is.
        name: Its name.
        identity: This replica's; one that is started again under it takes over at once.
        duration_seconds: A Lease that was not renewed for so long can be taken.
    """

    namespace: str
    name: str
    identity: str
    duration_seconds: int = 12

    @property
    def full_name(self) -> str:
        """What the control plane knows the operator by."""
        return f"{self.namespace}/{self.name}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Leadership:
    """This replica's claim to lead."""

    def __init__(
        self,
        server: ApiServer,
        settings: LeaseSettings,
        monotonic: Callable[[], float],
    ) -> None:
        self._server = server
        self._settings = settings
        self._monotonic = monotonic
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{settings.namespace}/leases"
        self._path = f"{self._collection}/{settings.name}"
        self._lease: Object = {}
        self._renewed = float("-inf")
        self._changing = asyncio.Lock()
        self._seen = ""
        self._seen_at = 0.0
        self.term = 0
        """Under which it leads; 0 while it stands by."""
        self.heard = False
        """Whether the API server answered when it was last asked."""

    @property
    def _patience_seconds(self) -> float:
        """Who has not renewed for so long stops, well before others may take the Lease."""
        return self._settings.duration_seconds * 2 / 3

    def check(self) -> None:
        """Returns if this replica still leads, as far as it can know.

        Raises:
            DeposedError: It does not, or could not renew in time.
        """
        if not self.term:
            raise DeposedError("this replica does not lead")
        silent = self._monotonic() - self._renewed
        if silent > self._patience_seconds:
            raise DeposedError(
                f"the lease {self._settings.full_name} was last renewed {silent:.1f} s ago, which "
                f"must not take more than {self._patience_seconds:.1f} s"
            )

    async def acquire(self) -> int:
        """Waits until this replica leads; returns its term."""
        told = ""
        while True:
            try:
                holder = await self._try()
                self.heard = True
            except ApiError as error:
                self.heard = False
                holder = f"nobody knows who leads: {error}"
            if self.term:
                return self.term
            if holder != told:
                log.info("standing by", holder=holder)
                told = holder
            await pause(_LOOK_SECONDS)

    async def _try(self) -> str:
        """Takes the Lease if it can be taken; returns who holds it."""
        asked = self._monotonic()
        try:
            lease = await self._server.get(self._path)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._settings.name, "namespace": self._settings.namespace},
            }
        spec = lease.get("spec", {})
        holder = str(spec.get("holderIdentity") or "")
        if holder not in ("", self._settings.identity) and not self._is_over(lease, spec):
            return holder
        try:
            await self._take(lease, _term_of(lease) + 1, asked)
        except ApiError as error:
            if error.status != CONFLICT:
                raise
            return "another replica, which was faster"
        return self._settings.identity

    def _is_over(self, lease: Object, spec: dict[str, Any]) -> bool:
        """Whether it was not renewed for its duration, by our clock: others' may be wrong."""
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen:
            self._seen, self._seen_at = version, self._monotonic()
        lasts = float(spec.get("leaseDurationSeconds") or self._settings.duration_seconds)
        return self._monotonic() - self._seen_at > lasts

    async def _take(self, lease: Object, term: int, asked: float) -> None:
        spec, metadata = lease.get("spec", {}), lease["metadata"]
        changes = spec.get("holderIdentity") != self._settings.identity
        annotations = {**metadata.get("annotations", {}), TERM_ANNOTATION: str(term)}
        taken = {
            **lease,
            "metadata": {**_writable(metadata), "annotations": annotations},
            "spec": {
                **spec,
                "holderIdentity": self._settings.identity,
                "leaseDurationSeconds": self._settings.duration_seconds,
                "acquireTime": _now() if changes else spec.get("acquireTime", _now()),
                "renewTime": _now(),
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + int(changes),
            },
        }
        if "resourceVersion" in metadata:
            self._lease = await self._server.replace(self._path, taken)
        else:
            self._lease = await self._server.create(self._collection, taken)
        self._renewed, self.term = asked, term
        log.info("leads", term=term, lease=self._settings.full_name)

    async def rise_above(self, known: int) -> None:
        """Takes a term above one that the control plane knows, if this replica still leads.

        A Lease that was deleted and made anew counts from 1 again.

        Raises:
            DeposedError: Another replica leads.
        """
        async with self._changing:
            self.check()
            asked = self._monotonic()
            try:
                await self._take(self._lease, known + 1, asked)
            except ApiError as error:
                if error.status != CONFLICT:
                    raise
                raise DeposedError(f"another replica leads: {error}") from error

    async def keep(self) -> None:
        """Renews the Lease, until this replica leads no more.

        Raises:
            DeposedError: That is now.
        """
        while True:
            self.check()
            await pause(self._settings.duration_seconds / 4)
            self.check()
            try:
                await self._renew()
                self.heard = True
            except ApiError as error:
                self.heard = False
                log.warning("the lease could not be renewed yet", why=str(error))
                await pause(_TRY_AGAIN_SECONDS)

    async def _renew(self) -> None:
        async with self._changing:
            asked = self._monotonic()
            renewed = {**self._lease, "spec": {**self._lease["spec"], "renewTime": _now()}}
            try:
                self._lease = await self._server.replace(self._path, renewed)
            except ApiError as error:
                if error.status not in (CONFLICT, NOT_FOUND):
                    raise
                await self._read_again()
            else:
                self._renewed = asked

    async def _read_again(self) -> None:
        """Somebody else wrote the Lease: took it, or edited it by hand."""
        try:
            lease = await self._server.get(self._path)
        except ApiError as error:
            if error.status == NOT_FOUND:
                raise DeposedError("the lease was deleted") from error
            raise
        holder = lease.get("spec", {}).get("holderIdentity")
        if holder != self._settings.identity or _term_of(lease) > self.term:
            raise DeposedError(f"{holder or 'nobody'} holds the lease, in term {_term_of(lease)}")
        self._lease = lease

    async def release(self) -> None:
        """Lets another replica take the Lease at once."""
        if not self.term:
            return
        released = {
            **self._lease,
            "spec": {**self._lease["spec"], "holderIdentity": "", "renewTime": _now()},
        }
        self.term = 0
        try:
            await self._server.replace(self._path, released)
        except ApiError as error:
            log.warning("the lease could not be released; it runs out", why=str(error))
        else:
            log.info("the lease is released")


def _term_of(lease: Object) -> int:
    """The highest term that was given; one that nobody can read counts as none."""
    written = lease["metadata"].get("annotations", {}).get(TERM_ANNOTATION, "")
    transitions = int(lease.get("spec", {}).get("leaseTransitions") or 0)
    return max(int(written) if written.isdigit() else 0, transitions)


def _writable(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if key != "managedFields"}
