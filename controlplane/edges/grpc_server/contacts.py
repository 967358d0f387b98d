"""Which agents can be heard. Silence is measured by the monotonic clock, and only while this
process itself was awake: neither a jump of the wall clock nor a pause of the control plane makes a
node silent.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import structlog

from controlplane.domain.clock import SECOND
from controlplane.domain.event import NodeLost
from controlplane.domain.ids import NodeId
from controlplane.domain.node import Contact
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.errors import RefusedError
from controlplane.edges.grpc_server.feed import StateFeed
from controlplane.edges.store.errors import StoreError
from controlplane.engine.ports import TermLostError

_TICKS_A_GRACE = 5
_TICK_MOST_NS = SECOND
_TICK_LEAST_NS = SECOND // 50

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Registration:
    """One agent process that speaks for a node.

    Attributes:
        agent: What it calls itself.
        in_touch: Whether it may still be there. One that was killed leaves its node free at once,
            because its connection breaks; one that cannot be reached, once the node is lost.
    """

    agent: str
    in_touch: bool = True


class Contacts:
    """Counts silence, declares nodes lost, and lets one agent at a time speak for a node."""

    def __init__(self, feed: StateFeed, door: Door, monotonic: Callable[[], int]) -> None:
        self._feed = feed
        self._door = door
        self._monotonic = monotonic
        self._online: set[NodeId] = set()
        self._registrations: dict[NodeId, Registration] = {}
        self._losing: set[NodeId] = set()
        self._silent_ns: dict[NodeId, int] = {}
        self._ticked_ns = monotonic()

    def introduce(self, node: NodeId, agent: str) -> Registration:
        """Reserves the node for an agent while its registration is recorded.

        Raises:
            RefusedError: ALREADY_EXISTS: another agent speaks for it.
        """
        present = self._registrations.get(node)
        if present is not None and present.in_touch and present.agent != agent:
            silent = self._silent_ns.get(node, 0) / SECOND
            grace = self._feed.state.settings.node_grace_seconds
            log.warning("second agent refused", node=node, agent=agent, present=present.agent)
            raise RefusedError(
                grpc.StatusCode.ALREADY_EXISTS,
                f"another agent speaks for {node}: {present.agent or 'one without an id'}, heard "
                f"from {silent:.0f} s ago; end that one, or give this one a --node of its own. "
                f"It gets in when the other is gone, or has been silent for {grace:g} s",
            )
        self._registrations[node] = registration = Registration(agent)
        return registration

    def registered(self, node: NodeId) -> None:
        """That the node's agent introduced itself is recorded."""
        self._online.add(node)
        self._losing.discard(node)
        self._silent_ns[node] = 0

    def knows(self, node: NodeId) -> bool:
        """Whether an agent registered with this process and was not lost since."""
        return node in self._online

    def registration(self, node: NodeId, agent: str) -> Registration | None:
        """The agent's, if it is the one that speaks for the node."""
        present = self._registrations.get(node) if self.knows(node) else None
        return present if present is not None and present.agent == agent else None

    def heard(self, node: NodeId) -> None:
        """The node's agent said something."""
        self._silent_ns[node] = 0

    def restart(self) -> None:
        """A new reign began: every agent has to register again, and has time to do so."""
        self._online.clear()
        self._registrations.clear()
        self._losing.clear()
        self._silent_ns.clear()

    @property
    def heartbeat_seconds(self) -> float:
        """How often an agent should speak so that one lost message does no harm."""
        return self._feed.state.settings.node_grace_seconds / 3

    async def watch(self) -> None:
        """Declares nodes lost, until cancelled."""
        while True:
            grace_ns = self._feed.state.settings.node_grace_seconds * SECOND
            tick_ns = max(_TICK_LEAST_NS, min(_TICK_MOST_NS, grace_ns / _TICKS_A_GRACE))
            await asyncio.sleep(tick_ns / SECOND)
            for node in self.tick(round(tick_ns)):
                await self.lose(node)

    def tick(self, expected_ns: int) -> list[NodeId]:
        """Counts the silence since the last tick and returns who is overdue.

        Args:
            expected_ns: How long ago the last tick should have been. Of a longer time, only
                twice this counts: this process was asleep then and could hear nobody.
        """
        now_ns = self._monotonic()
        elapsed_ns = min(now_ns - self._ticked_ns, 2 * expected_ns)
        self._ticked_ns = now_ns
        settings = self._feed.state.settings
        online_ns = settings.node_grace_seconds * SECOND
        unheard_ns = max(online_ns, settings.recovery_grace_seconds * SECOND)
        overdue = []
        nodes = self._feed.state.nodes
        for name in [name for name in self._silent_ns if name not in nodes]:
            if name not in self._online:
                del self._silent_ns[name]
        for name, record in nodes.items():
            if record.contact is Contact.LOST and name not in self._online:
                continue
            silent_ns = self._silent_ns[name] = self._silent_ns.get(name, 0) + elapsed_ns
            limit_ns = online_ns if name in self._online else unheard_ns
            if silent_ns > limit_ns or name in self._losing:
                overdue.append(name)
        return overdue

    async def lose(self, node: NodeId) -> None:
        """Declares the node lost; if that cannot be recorded now, it stays overdue."""
        # First, so that whatever the agent says from here on is answered with "register again".
        self._part_from(node)
        self._losing.add(node)
        try:
            await self._door.append(NodeLost(node, self._door.now()))
        except (RefusedError, StoreError, TermLostError) as error:
            log.warning("a lost node could not be recorded yet", node=node, why=str(error))
            return
        log.warning("node lost", node=node)
        # Its agent may have registered meanwhile, by an event before this one, which undid it.
        self._part_from(node)
        self._losing.discard(node)
        self._silent_ns.pop(node, None)

    def _part_from(self, node: NodeId) -> None:
        self._online.discard(node)
        self._registrations.pop(node, None)
