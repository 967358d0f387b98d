"""The live action sink: what each node must run, numbered, to whoever watches for that node."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from itertools import chain

import grpc

from controlplane.domain.event import AttemptReport, CycleDecided
from controlplane.domain.ids import JobUid, NodeId, Term
from controlplane.domain.launch import Launch
from controlplane.edges.grpc_server.errors import RefusedError
from controlplane.edges.grpc_server.feed import changes_between
from controlplane.engine.assignment import extra_launches, launches_of
from controlplane.engine.hearsay import is_worth_storing
from controlplane.engine.state import ClusterState


@dataclass(frozen=True, slots=True)
class Assignment:
    """All that a node must run.

    Attributes:
        term: Reign that says so.
        number: Grows by one with every change, from 1 in every term.
        launches: The node's parts of attempts.
    """

    term: Term
    number: int
    launches: tuple[Launch, ...]


@dataclass(eq=False)
class _Seat:
    """The one stream that a node's agent watches."""

    woken: asyncio.Event
    taken_over: bool = False


class AssignmentBook:
    """Keeps every node's assignment; recomputes only what a cycle touched."""

    def __init__(self) -> None:
        self._term = Term(0)
        self._state = ClusterState()
        self._of_jobs: dict[JobUid, Mapping[NodeId, tuple[Launch, ...]]] = {}
        self._on_nodes: dict[NodeId, dict[JobUid, tuple[Launch, ...]]] = {}
        self._extras: dict[NodeId, tuple[Launch, ...]] = {}
        self._current: dict[NodeId, Assignment] = {}
        self._seats: dict[NodeId, _Seat] = {}
        self._closed = ""

    def begin(self, term: Term, state: ClusterState) -> None:
        """A reign begins: every node gets its assignment anew, under the new term."""
        self._term = term
        self._state = ClusterState()
        self._of_jobs.clear()
        self._on_nodes.clear()
        self._extras.clear()
        self._current.clear()
        self.follow(state)
        for seat in self._seats.values():
            seat.woken.set()

    async def carry_out(self, state: ClusterState, decided: CycleDecided) -> None:
        """Publishes what differs from the last state."""
        self.follow(state)

    def follow(self, state: ClusterState) -> None:
        """The same, for whoever has no decision at hand."""
        changes = changes_between(self._state, state)
        self._state = state
        touched: set[NodeId] = set(changes.nodes)
        for uid in changes.jobs:
            touched |= self._place(uid, launches_of(state.jobs[uid]))
        for record in changes.gone:
            touched |= self._place(record.uid, {})
        touched |= self._place_extras(state)
        for node in touched:
            self._renumber(node)

    def _place(self, uid: JobUid, launches: Mapping[NodeId, tuple[Launch, ...]]) -> set[NodeId]:
        before = self._of_jobs.get(uid, {})
        changed = {node for node in (*before, *launches) if before.get(node) != launches.get(node)}
        for node in changed:
            there = self._on_nodes.setdefault(node, {})
            of_job = launches.get(node)
            if of_job is None:
                del there[uid]
            else:
                there[uid] = of_job
        if launches:
            self._of_jobs[uid] = launches
        else:
            self._of_jobs.pop(uid, None)
        return changed

    def _place_extras(self, state: ClusterState) -> set[NodeId]:
        purging = {purge.node for purge in state.purges.values()}
        changed: set[NodeId] = set()
        for name in [name for name in self._extras if name not in state.nodes]:
            del self._extras[name]
            changed.add(name)
        for name, node in state.nodes.items():
            if not node.strays and name not in purging and name not in self._extras:
                continue
            extras = extra_launches(state, node)
            if extras != self._extras.get(name, ()):
                changed.add(name)
                if extras:
                    self._extras[name] = extras
                else:
                    del self._extras[name]
        return changed

    def _launches(self, node: NodeId) -> tuple[Launch, ...]:
        of_jobs = self._on_nodes.get(node, {}).values()
        return (*self._extras.get(node, ()), *chain.from_iterable(of_jobs))

    def _renumber(self, node: NodeId) -> None:
        launches = self._launches(node)
        before = self._current.get(node)
        if before is not None and before.launches == launches:
            return
        number = before.number + 1 if before is not None else 1
        self._current[node] = Assignment(self._term, number, launches)
        seat = self._seats.get(node)
        if seat is not None:
            seat.woken.set()

    def current(self, node: NodeId) -> Assignment:
        """The node's present assignment."""
        if node not in self._current:
            self._renumber(node)
        return self._current[node]

    def concerns(self, report: AttemptReport) -> bool:
        """Whether a report can mean anything by what its node must run."""
        return is_worth_storing(self._state.jobs, report)

    async def watch(self, node: NodeId) -> AsyncIterator[Assignment]:
        """The present assignment at once, then every later one; those in between may be skipped.

        Raises:
            RefusedError: ABORTED: another stream watches for this node now.
        """
        self.release(node)
        seat = self._seats[node] = _Seat(asyncio.Event())
        try:
            sent: tuple[Term, int] | None = None
            while not self._closed:
                if seat.taken_over:
                    raise RefusedError(
                        grpc.StatusCode.ABORTED, f"another agent speaks for {node} now"
                    )
                now = self.current(node)
                if sent != (now.term, now.number):
                    sent = (now.term, now.number)
                    yield now
                    continue
                await seat.woken.wait()
                seat.woken.clear()
        finally:
            if self._seats.get(node) is seat:
                del self._seats[node]

    def release(self, node: NodeId) -> None:
        """Ends the stream that watches for the node, if there is one."""
        seat = self._seats.pop(node, None)
        if seat is not None:
            seat.taken_over = True
            seat.woken.set()

    def close(self, why: str) -> None:
        """The process stops: every stream ends."""
        self._closed = why
        for seat in self._seats.values():
            seat.woken.set()
