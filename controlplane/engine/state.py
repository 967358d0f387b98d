"""The state of the cluster, as folded from events. Frozen: folding returns the next one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import is_
from types import MappingProxyType

from controlplane.domain.changing import changed
from controlplane.domain.clock import Instant
from controlplane.domain.conditions import Conditions, conditions_of
from controlplane.domain.event import Event
from controlplane.domain.forecast import ForecastOutcome, KnownForecasts
from controlplane.domain.holding import (
    held_after,
    held_by_attempts,
    memory_by_type,
    usable_accelerators,
    usable_after,
    with_strays,
)
from controlplane.domain.ids import Attempt, JobUid, NodeId, QueueName, SequenceNumber, Term
from controlplane.domain.lifecycle import FINISHED
from controlplane.domain.memory_loss import MemoryLoss
from controlplane.domain.node import ClosedNode, Contact
from controlplane.domain.observation import Observation
from controlplane.domain.policy import PolicySettings
from controlplane.domain.proposal import Proposal
from controlplane.domain.queue import DEFAULT_QUEUE, Queue
from controlplane.domain.racks import racks_of
from controlplane.domain.record import JobRecord, NodeRecord
from controlplane.domain.settings_version import SettingsVersion
from controlplane.domain.snapshot import ClusterSnapshot, Offer, Slot, TypeMemory
from controlplane.domain.step_time_fit import StepTimeFit
from controlplane.domain.switch_price import SwitchPrice
from controlplane.engine.fold import Draft, fold_event


@dataclass(frozen=True, slots=True)
class SequencedEvent:
    """An event with the place that the log gave it."""

    sequence: SequenceNumber
    event: Event


@dataclass(frozen=True, slots=True)
class Purge:
    """Checkpoints of a forgotten job that a node still has to remove.

    Attributes:
        node: Who removes them; empty while no node can be reached.
        attempt: A number of its own, above the job's attempts, under which it is reported done.
        manifest_json: The job's manifest, which names the checkpoint store.
    """

    node: NodeId
    attempt: Attempt
    manifest_json: str


@dataclass(frozen=True)
class ClusterState:
    """All that is known.

    Attributes:
        jobs: Every job that is not forgotten, in order of submission.
        nodes: Every known node, in order of registration.
        queues: Every queue.
        settings: The policy's settings.
        last_sequence: The last event that was folded.
        term: The highest term that decided anything.
        attempts_seen: Highest attempt that agents reported for uids the store did not know.
        unwanted: Uids without a job whose strays shall be ended: by explicit order, or because
            the job was forgotten. The values are empty; it is a set that keeps its order.
        purges: Checkpoints still to be removed, by uid of the forgotten job.
        observations: What plans take, as jobs told in passing, by what it is about; those told
            longest ago come first.
        switch_prices: What changes of plan or place cost so far, by their sort; those of which the
            last switch was longest ago come first.
        fits: What is known of steps, by type of model and of accelerator; those fitted longest ago
            come first.
        settings_versions: Which settings there were, oldest first, the present ones last; empty
            while they were never set.
        proposal: What a longer search found last; None if the last event tells that it is outdated.
        operator_terms: Highest term of each operator, by the name of its lease.
        attempt_floor: What a restored store knows of attempts: none up to this number is new.
        memory_losses: Plans under which memory ran out, by what was trained on what.
        closed_nodes: Nodes that Kubernetes keeps work off, known here or not, by the operator that
            told so.
        forecasts: When jobs are predicted to start and end, of those that have not ended.
        forecast_outcomes: What came true of predictions that are counted, oldest first.
    """

    jobs: dict[JobUid, JobRecord] = field(default_factory=dict)
    nodes: dict[NodeId, NodeRecord] = field(default_factory=dict)
    queues: dict[QueueName, Queue] = field(default_factory=dict)
    settings: PolicySettings = field(default_factory=PolicySettings)
    last_sequence: SequenceNumber = SequenceNumber(0)
    term: Term = Term(0)
    attempts_seen: dict[JobUid, Attempt] = field(default_factory=dict)
    unwanted: dict[JobUid, None] = field(default_factory=dict)
    purges: dict[JobUid, Purge] = field(default_factory=dict)
    attempt_floor: Attempt = Attempt(0)
    observations: dict[str, Observation] = field(default_factory=dict)
    switch_prices: dict[str, SwitchPrice] = field(default_factory=dict)
    fits: dict[str, StepTimeFit] = field(default_factory=dict)
    settings_versions: tuple[SettingsVersion, ...] = ()
    proposal: Proposal | None = None
    operator_terms: dict[str, int] = field(default_factory=dict)
    memory_losses: dict[str, MemoryLoss] = field(default_factory=dict)
    closed_nodes: dict[str, tuple[ClosedNode, ...]] = field(default_factory=dict)
    forecasts: dict[JobUid, KnownForecasts] = field(default_factory=dict)
    forecast_outcomes: tuple[ForecastOutcome, ...] = ()

    @classmethod
    def empty(cls) -> "ClusterState":
        """A cluster without jobs and nodes, with the default queue."""
        return cls(queues={DEFAULT_QUEUE: Queue(DEFAULT_QUEUE)})

    def fold(self, batch: Sequence[SequencedEvent]) -> "ClusterState":
        """The state after ``batch``. Copies each map once, however long the batch is."""
        if not batch:
            return self
        draft = Draft(
            jobs=dict(self.jobs),
            nodes=dict(self.nodes),
            queues=dict(self.queues),
            settings=self.settings,
            term=self.term,
            attempts_seen=self.attempts_seen,
            unwanted=self.unwanted,
            purges={
                uid: (purge.node, purge.attempt, purge.manifest_json)
                for uid, purge in self.purges.items()
            },
            attempt_floor=self.attempt_floor,
            observations=dict(self.observations),
            switch_prices=dict(self.switch_prices),
            fits=dict(self.fits),
            settings_versions=self.settings_versions,
            proposal=self.proposal,
            operator_terms=self.operator_terms,
            memory_losses=dict(self.memory_losses),
            closed_nodes=self.closed_nodes,
            forecasts=dict(self.forecasts),
            forecast_outcomes=self.forecast_outcomes,
        )
        last = self.last_sequence
        for numbered in batch:
            fold_event(draft, numbered.event)
            last = max(last, numbered.sequence)
        then = ClusterState(
            jobs=draft.jobs,
            # The same nodes are the same mapping, so that what follows from them is found once.
            nodes=self.nodes if _same(self.nodes, draft.nodes) else draft.nodes,
            queues=draft.queues,
            settings=draft.settings,
            last_sequence=last,
            term=draft.term,
            attempts_seen=draft.attempts_seen,
            unwanted=draft.unwanted,
            purges={uid: Purge(*purge) for uid, purge in draft.purges.items()},
            attempt_floor=self.attempt_floor,
            observations=draft.observations,
            switch_prices=draft.switch_prices,
            fits=draft.fits,
            settings_versions=draft.settings_versions,
            proposal=draft.proposal,
            operator_terms=draft.operator_terms,
            memory_losses=draft.memory_losses,
            closed_nodes=draft.closed_nodes,
            forecasts=draft.forecasts,
            forecast_outcomes=draft.forecast_outcomes,
        )
        if "_held" in self.__dict__:
            then.__dict__["_held"] = held_after(self._held, self.jobs, then.jobs)
        if "_usable" in self.__dict__:
            then.__dict__["_usable"] = usable_after(self._usable, self.nodes, then.nodes)
            if "_memory" in self.__dict__ and then._usable is self._usable:
                then.__dict__["_memory"] = self._memory
        if then.nodes is self.nodes:
            for found in ("conditions", "racks"):
                if found in self.__dict__:
                    then.__dict__[found] = self.__dict__[found]
        return then

    @cached_property
    def _held(self) -> Mapping[Slot, JobUid]:
        """What attempts hold. No field, because it follows from the jobs; ``fold`` hands it on."""
        return held_by_attempts(self.jobs)

    @cached_property
    def _usable(self) -> Mapping[NodeId, Offer]:
        """What nodes offer; like ``_held``, it follows from the nodes."""
        return usable_accelerators(self.nodes)

    @cached_property
    def _memory(self) -> Mapping[str, TypeMemory]:
        """What accelerators tell of their memory; it follows from what nodes offer."""
        return memory_by_type(self._usable)

    @cached_property
    def holders(self) -> Mapping[Slot, JobUid]:
        """Who holds each accelerator that is not free: attempts not released, and strays."""
        strays = self.conditions.strays
        return MappingProxyType(with_strays(self._held, {n: self.nodes[n] for n in strays}))

    @cached_property
    def conditions(self) -> Conditions:
        """What is wrong with nodes; like ``_usable``, it follows from them."""
        return conditions_of(self.nodes)

    @cached_property
    def racks(self) -> Mapping[NodeId, str]:
        """The rack of each node that tells one; like ``_usable``, it follows from the nodes."""
        return racks_of(self.nodes)

    def snapshot(self, at: Instant) -> ClusterSnapshot:
        """What a policy may see."""
        proposal = self.proposal
        if proposal is not None and proposal.is_outdated(at):
            # It is forgotten with the next event, for which an idle cluster may wait long.
            proposal = None
        return ClusterSnapshot(
            at=at,
            jobs=MappingProxyType(self.jobs),
            nodes=MappingProxyType(self.nodes),
            queues=MappingProxyType(self.queues),
            holders=self.holders,
            usable=MappingProxyType(self._usable),
            racks=MappingProxyType(self.racks),
            memory=MappingProxyType(self._memory),
            observations=MappingProxyType(self.observations),
            switch_prices=MappingProxyType(self.switch_prices),
            conditions=self.conditions,
            fits=MappingProxyType(self.fits),
            knobs=dict(self.settings.knobs),
            proposal=proposal,
            memory_losses=MappingProxyType(self.memory_losses),
        )

    def after_restart(self) -> "ClusterState":
        """The same, with every node that was online marked as not heard of yet."""
        nodes = {
            name: changed(node, contact=Contact.SILENT) if node.contact is Contact.ONLINE else node
            for name, node in self.nodes.items()
        }
        return replace(self, nodes=nodes)

    def with_attempts_above(self, floor: Attempt) -> "ClusterState":
        """The same, where no job that can still start gets an attempt up to ``floor``.

        Does nothing the second time: a job that came later has no lost future, unless its owner
        brings the uid.
        """
        if floor <= self.attempt_floor:
            return self
        jobs = {
            uid: record if record.stage in FINISHED else changed(record, attempt_floor=floor)
            for uid, record in self.jobs.items()
        }
        return replace(self, jobs=jobs, attempt_floor=floor)

    @property
    def silent_nodes(self) -> tuple[NodeId, ...]:
        """Nodes that have not spoken since the control plane started."""
        return self.conditions.silent


def _same(before: Mapping[NodeId, NodeRecord], after: Mapping[NodeId, NodeRecord]) -> bool:
    return len(before) == len(after) and all(map(is_, before.values(), after.values()))


def in_replay_order(
    stored: Sequence[SequencedEvent], positions: Mapping[SequenceNumber, SequenceNumber]
) -> list[SequencedEvent]:
    """Events as they were folded live: each decision right after the last event it had seen.

    Args:
        stored: Events in sequence order.
        positions: For each decision, the last event that its cycle had folded.
    """
    return sorted(
        stored,
        key=lambda item: (
            positions.get(item.sequence, item.sequence),
            item.sequence in positions,
            item.sequence,
        ),
    )
